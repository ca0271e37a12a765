"""The page of a run's report: its sections, put together from what the stages have kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from scdpo.evaluation import SFT, PolicyLine
from scdpo.pipeline.report_insight import branch_section, credit_section, temperature_section
from scdpo.pipeline.tables import RunTables, run_tables
from scdpo.pipeline.tokens_written import tokens_written
from scdpo.records import Pair
from scdpo.report import label, notation
from scdpo.report.blocks import Block, Charts, Fold, FoldedTables, Page, Section, Text
from scdpo.report.charts import Interval, Intervals
from scdpo.report.choosing import sides_of
from scdpo.report.cost import cost_table, pair_cost_table
from scdpo.report.curves import (
    Curve,
    HeldOut,
    held_out_table,
    preference_charts,
    read_log,
    tuning_chart,
    verdicts,
)
from scdpo.report.funnel import funnel
from scdpo.report.grid import Cell, Column, Grid
from scdpo.report.samples import chosen_for_reading, pair_view
from scdpo.store import utc_now

if TYPE_CHECKING:
    from scdpo.pipeline.opened import OpenRun

_PAIRS = ("pairs/naive", "pairs/step_controlled")


def report_page(run: OpenRun) -> Page:
    """The report of a run, finished or not. Raises DataError and StoreError for unreadable rows."""
    tables = run_tables(run)
    credit, shades = credit_section(run)
    sections = (
        _accuracy(run, tables),
        _curves(run, tables.lines),
        _yields(run),
        _cost(run),
        temperature_section(run),
        credit,
        branch_section(run),
        _samples(run),
        _origin(run, tables),
    )
    return Page(run.path.name, tuple(_facts(run, tables.lines)), sections, shades)


def _facts(run: OpenRun, lines: Sequence[PolicyLine]) -> Iterator[str]:
    """What stands below the title: the result in a sentence, and what the page is about."""
    if lines:
        yield headline(lines)
    unfinished = [m.stage for m in run.manifests() if m.status != "done"]
    state = f"unfinished: {', '.join(unfinished)}" if unfinished else "all started stages finished"
    yield f"Policy {run.recipe.policy}, preset {run.recipe.preset}; {state}."
    yield f"Written {utc_now()} from {run.path}."


def headline(lines: Sequence[PolicyLine]) -> str:
    """The result of the last policy in a sentence, against SFT and DPO (data-equal)."""
    line = lines[-1]
    said = [
        f"{label(line.policy)} answers {notation.percent(line.accuracy)} % of "
        f"{notation.count(line.n)} questions correctly"
    ]
    for other, found in (("SFT", line.vs_sft), (label("dpo_equal"), line.vs_data_equal)):
        if found is not None:
            interval = notation.points_interval(found.low, found.high)
            said.append(
                f"{notation.points(found.difference)} points against {other} {interval} "
                f"{notation.p_value(found.p)}"
            )
    return f"{', '.join(said)}."


def _accuracy(run: OpenRun, tables: RunTables) -> Section:
    blocks: list[Block] = []
    if not tables.lines:
        blocks.append(_missing("No policy has been evaluated yet.", f"scdpo evaluate {run.path}"))
    else:
        blocks += [
            Charts(tuple(_intervals(tables.lines, _tones(run)))),
            *tables.accuracy,
            *tables.breakdowns,
        ]
        if any("bold" in c.style for g in tables.accuracy for row in g.rows for c in row[1:]):
            blocks.append(Text("* marks a difference with p below 0.05."))
    return Section("accuracy", "Accuracy", tuple(blocks))


def _intervals(lines: Sequence[PolicyLine], tones: Mapping[str, int]) -> Iterator[Intervals]:
    """Accuracies and differences from SFT, drawn."""
    yield Intervals(
        "Accuracy",
        "% of questions answered correctly, 95 % interval",
        tuple(
            Interval(
                label(line.policy),
                100 * line.accuracy,
                100 * line.low,
                100 * line.high,
                notation.percent(line.accuracy),
                tones[line.policy],
            )
            for line in lines
        ),
    )
    compared = [(line, line.vs_sft) for line in lines if line.vs_sft is not None]
    if compared:
        yield Intervals(
            "Difference from SFT",
            "percentage points, 95 % interval",
            tuple(
                Interval(
                    label(line.policy),
                    100 * found.difference,
                    100 * found.low,
                    100 * found.high,
                    notation.points(found.difference),
                    tones[line.policy],
                )
                for line, found in compared
                if found is not None
            ),
            (0.0, ""),
        )


def _curves(run: OpenRun, lines: Sequence[PolicyLine]) -> Section:
    blocks: list[Block] = []
    curves = [_curve(run, name, tone) for name, tone in _tones(run).items() if name != SFT]
    curves = [curve for curve in curves if curve.log]
    tuned = run.path / SFT / "log.jsonl"
    if tuned.exists() and (chart := tuning_chart("Supervised fine-tuning", read_log(tuned))):
        blocks.append(chart)
    blocks += verdicts(curves, lines)
    blocks += preference_charts(curves)
    if table := held_out_table(curves):
        blocks.append(table)
    if not blocks:
        blocks.append(_missing("Nothing has been trained yet.", f"scdpo train {run.path}"))
    return Section("curves", "Learning curves", tuple(blocks))


def _tones(run: OpenRun) -> dict[str, int]:
    """The colour and marker of each policy, the same in all charts."""
    return {name: tone for tone, name in enumerate((SFT, *run.trainings()))}


def _curve(run: OpenRun, name: str, tone: int) -> Curve:
    """What a training of the run has logged."""
    from scdpo.training.dpo_config import TrainingReport

    folder = run.stage(f"policies/{name}").path
    log = read_log(folder / "log.jsonl") if (folder / "log.jsonl").exists() else {}
    held = None
    if (folder / "report.json").exists():
        made = TrainingReport.model_validate_json((folder / "report.json").read_bytes())
        before, after = made.heldout_before, made.heldout_after
        if before is not None and after is not None:
            held = HeldOut(
                pairs=after.n_pairs,
                loss=(before.loss, after.loss),
                accuracy=(before.accuracy, after.accuracy),
                chosen_likelier=(before.chosen_likelier, after.chosen_likelier),
            )
    return Curve(name, log, held, tone)


def _yields(run: OpenRun) -> Section:
    made = funnel(run.manifests())
    blocks: tuple[Block, ...] = (made,) if made.stages else ()
    if not blocks:
        blocks = (_missing("Nothing has been sampled yet.", f"scdpo sample {run.path}"),)
    return Section("yields", "From problems to pairs", blocks)


def _cost(run: OpenRun) -> Section:
    manifests, tokens = run.manifests(), tokens_written(run)
    tables = (cost_table(manifests, tokens), pair_cost_table(manifests, tokens))
    found: tuple[Block, ...] = tuple(table for table in tables if table is not None)
    return Section("cost", "Cost", found or (_missing("Nothing has been done yet."),))


def _samples(run: OpenRun) -> Section:
    made = [stage for name in _PAIRS if (stage := run.stage(name)).done]
    wanted = chosen_for_reading(pair for stage in made for pair in stage.rows(Pair))
    found = {p.id: p for stage in made for p in stage.rows(Pair) if p.id in set(wanted)}
    sides = sides_of(run.folder, found.values())
    blocks: list[Block] = [pair_view(found[name], sides[name]) for name in wanted]
    if blocks:
        what = (
            "A pair of the middle length of each kind, and of step-controlled ones with the fewest "
            "and the most shared steps. ▸ marks where the sides part."
        )
        blocks.insert(0, Text(what))
    else:
        blocks.append(_missing("There are no pairs yet.", f"scdpo pair {run.path}"))
    return Section("pairs", "Pairs to read", tuple(blocks))


def _origin(run: OpenRun, tables: RunTables) -> Section:
    blocks: list[Block] = [Text(_seeds(run))]
    if machines := _machines(run):
        blocks.append(machines)
    recipe = (run.path / "recipe.yaml").read_text(encoding="utf-8")
    blocks.append(Fold("The resolved recipe", recipe))
    if tables.stages:
        blocks.append(FoldedTables("All stages and their counts", tables.stages))
    return Section("origin", "Recipe and machine", tuple(blocks))


def _seeds(run: OpenRun) -> str:
    recipe = run.recipe
    own = {
        "sample": recipe.sample.seed,
        "branch": recipe.branch.seed,
        "pairs": recipe.pairs.seed,
        "train": recipe.train.seed,
    }
    others = ", ".join(f"{stage} {seed}" for stage, seed in own.items() if seed != recipe.seed)
    return f"Seed {recipe.seed}{f'; {others}' if others else ', in every stage'}."


def _machines(run: OpenRun) -> Grid | None:
    """What the stages ran on, a row for each environment; names of machines are left out."""
    kinds: dict[tuple[str, ...], list[str]] = {}
    for found in run.environments():
        versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
        machine = found.host.partition(" ")[2]
        threads = f"{found.device}, {found.threads} threads"
        key = (machine, str(found.cpus), threads, found.sandbox or "–", versions)
        kinds.setdefault(key, []).append(found.stage)
    if not kinds:
        return None
    rows = tuple(
        (Cell(", ".join(dict.fromkeys(stages)), style="bold"), *map(Cell, key))
        for key, stages in kinds.items()
    )
    columns = (
        Column("stages", "left", wrap=True),
        Column("machine", "left"),
        Column("CPUs"),
        Column("device", "left"),
        Column("sandbox", "left"),
        Column("versions", "left", wrap=True),
    )
    return Grid("What it ran on", columns, rows)


def _missing(text: str, command: str = "") -> Text:
    return Text(text, "missing", command)
