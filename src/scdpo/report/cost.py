"""What a run cost: tokens, time, and attempts for each pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scdpo.report import notation
from scdpo.report.curves import KINDS
from scdpo.report.grid import Cell, Column, Grid
from scdpo.store import Manifest

_DRAWN_FROM = {"naive": "solutions", "step_controlled": "branches"}
"""For each kind of pair, the stage whose attempts it was drawn from."""


def cost_table(manifests: Sequence[Manifest], tokens: Mapping[str, int]) -> Grid | None:
    """Rows, tokens written by a policy and time of each stage, with the totals; None without
    stages. `tokens` are counted by stage."""
    if not manifests:
        return None
    measured = [m.cpu_seconds for m in manifests if m.cpu_seconds is not None]
    rows = [
        (
            Cell(manifest.stage, "" if manifest.status == "done" else "(unfinished)", style="bold"),
            Cell(notation.count(manifest.rows)),
            Cell(notation.count(tokens[manifest.stage]) if tokens.get(manifest.stage) else ""),
            Cell(notation.duration(manifest.seconds)),
            Cell("" if manifest.cpu_seconds is None else notation.duration(manifest.cpu_seconds)),
        )
        for manifest in manifests
    ]
    total = sum(manifest.seconds for manifest in manifests)
    rows.append(
        (
            Cell("total", style="bold"),
            Cell(),
            Cell(notation.count(sum(tokens.values()))),
            Cell(notation.duration(total)),
            Cell(notation.duration(sum(measured)) if len(measured) == len(manifests) else ""),
        )
    )
    columns = (
        Column("stage", "left"),
        Column("rows"),
        Column("tokens written"),
        Column("time"),
        *([Column("CPU time")] if measured else []),
    )
    notes = ["Tokens that a policy wrote; prompts, shared steps and execution output not counted."]
    if measured:
        notes.append("CPU time is that of the process itself, without the sandbox's.")
    cut = tuple(row[: len(columns)] for row in rows)
    return Grid("Tokens and time", columns, cut, tuple(notes), total=True)


def pair_cost_table(manifests: Sequence[Manifest], tokens: Mapping[str, int]) -> Grid | None:
    """Attempts, tokens and time for each pair, by kind; None where there are no pairs."""
    found = {manifest.stage: manifest for manifest in manifests}
    rows = []
    for kind, source in _DRAWN_FROM.items():
        made, drawn = found.get(f"pairs/{kind}"), found.get(source)
        pairs = int(made.counts.get("pairs", 0)) if made else 0
        if drawn is None or not pairs:
            continue
        rows.append(
            (
                Cell(KINDS[kind], style="bold"),
                Cell(notation.count(pairs)),
                Cell(notation.count(drawn.rows)),
                Cell(f"{drawn.rows / pairs:.1f}"),
                Cell(notation.count(round(tokens[source] / pairs)) if tokens.get(source) else ""),
                Cell(notation.duration(drawn.seconds / pairs)),
            )
        )
    if not rows:
        return None
    columns = (
        Column("kind of pair", "left"),
        Column("pairs"),
        Column("attempts"),
        Column("attempts a pair"),
        Column("tokens a pair"),
        Column("time a pair"),
    )
    return Grid("Cost of a pair", columns, tuple(rows))
