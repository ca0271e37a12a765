"""The tables of a plan."""

from __future__ import annotations

from scdpo.pipeline.planning.advice import Advice
from scdpo.pipeline.planning.hardware import GIB
from scdpo.pipeline.planning.plan import Plan, StagePlan
from scdpo.report.grid import Cell, Column, Grid
from scdpo.report.notation import count, duration

FITS = {"single": "yes", "replicated": "yes, whole", "sharded": "yes, sharded"}
LAUNCHES = (
    "whole: every device has all weights (torchrun); sharded: it has a part of them (FSDP2, "
    "ZeRO-3)."
)
PARTS = {
    "weights": ("weights",),
    "grads": ("gradients",),
    "Adam": ("optimizer",),
    "ref.": ("reference",),
    "activ.": ("activations", "logits"),
    "KV": ("cache",),
}
"""Columns of the table of memory, and what they add up."""


def plan_tables(plan: Plan) -> list[Grid]:
    """Work and time of each stage, its memory, and what does not fit."""
    tables = [_work(plan), _memory(plan)]
    if any(not stage.fits for stage in plan.stages):
        tables.append(_advice(plan))
    return tables


def _work(plan: Plan) -> Grid:
    rows = [
        (
            Cell(stage.stage, style="bold"),
            Cell(count(stage.rows)),
            Cell("" if stage.epochs is None else f"{stage.epochs:g}"),
            Cell("" if stage.steps is None else count(stage.steps)),
            Cell(_millions(stage.tokens)),
            Cell(_devices(plan, stage)),
            Cell(_time(stage.seconds), style="" if stage.fits else "red"),
        )
        for stage in plan.stages
    ]
    rows.append((Cell("total", style="bold"), *(Cell(),) * 5, Cell(_time(plan.seconds))))
    columns = (
        Column("stage", "left"),
        Column("rows"),
        Column("epochs"),
        Column("steps"),
        Column("tokens, M"),
        Column("on"),
        Column("time"),
    )
    notes = ("Rows: solutions sampled, training examples, questions answered.", *plan.assumptions)
    return Grid(_title(plan), columns, tuple(rows), notes, total=True)


def _memory(plan: Plan) -> Grid:
    sizes = {
        name: [sum(getattr(stage.memory, part) for part in parts) for stage in plan.stages]
        for name, parts in PARTS.items()
    }
    used = {name: column for name, column in sizes.items() if any(column)}
    rows = tuple(
        (
            Cell(stage.stage, style="bold"),
            *(Cell(_gib(column[number])) for column in used.values()),
            Cell(_gib(stage.memory.total), style="" if stage.fits else "bold red"),
            Cell(
                FITS[stage.launch] if stage.fits else "no", style="" if stage.fits else "bold red"
            ),
        )
        for number, stage in enumerate(plan.stages)
    )
    columns = (
        Column("stage", "left"),
        *(Column(name) for name in used),
        Column("total"),
        Column("fits", "left"),
    )
    what = "a device" if plan.hardware.gpu else "the machine"
    notes = [
        f"Peak on {what}; {_gib(plan.usable)} can be used. activ.: with logits. KV: keys and "
        "values when all rows are as long as the context."
    ]
    if plan.hardware.count > 1:
        notes.append(LAUNCHES)
    return Grid("Memory, GiB", columns, rows, tuple(notes))


def _advice(plan: Plan) -> Grid:
    """Each change once, with all stages that it is for."""
    stages: dict[Advice, list[str]] = {}
    for stage in plan.stages:
        if not stage.fits:
            for advice in stage.advice or (Advice(change="no change of the recipe", total=0),):
                stages.setdefault(advice, []).append(stage.stage)
    rows = [
        (Cell(", ".join(names), style="bold"), Cell(advice.change), Cell(_gib(advice.total)))
        for advice, names in stages.items()
    ]
    columns = (
        Column("stages", "left", wrap=True),
        Column("change", "left", wrap=True),
        Column("GiB then"),
    )
    return Grid("What does not fit, and with which change it does", columns, tuple(rows))


def _title(plan: Plan) -> str:
    hardware = plan.hardware
    machine = f"{hardware.count} × {hardware.name}" if hardware.gpu else hardware.name
    size = plan.parameters / 1e9
    size_text = f"{size:.2f} B" if size >= 1 else f"{1000 * size:.0f} M"
    return f"Plan of {plan.recipe} on {machine} ({plan.policy}, {size_text} parameters)"


def _devices(plan: Plan, stage: StagePlan) -> str:
    if not plan.hardware.gpu:
        return "CPU"
    return f"{stage.devices} GPU{'s' * (stage.devices > 1)}"


def _millions(tokens: int) -> str:
    return f"{tokens / 1e6:.1f}" if tokens < 1e8 else count(round(tokens / 1e6))


def _gib(size: float) -> str:
    gib = size / GIB
    return "" if not size else f"{gib:.1f}" if gib >= 0.05 else "<0.1"


def _time(seconds: float) -> str:
    if seconds < 3600:
        return duration(seconds)
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 100 else f"{hours / 24:.1f} days"
