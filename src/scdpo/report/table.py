"""The tables of a run: the accuracy of its policies, breakdowns, and stages."""

from __future__ import annotations

import json
from collections.abc import Sequence

from scdpo.errors import InputError
from scdpo.evaluation import BreakdownLine, Difference, MeasuredLine, PolicyLine
from scdpo.records import Record
from scdpo.report import notation
from scdpo.report.grid import Cell, Column, Grid
from scdpo.store import Manifest

LABELS = {"sft": "SFT", "dpo": "DPO", "dpo_equal": "DPO (data-equal)", "scdpo": "SCDPO"}
"""Labels of the paper's policies; others appear under their own names."""

SIGNIFICANT = 0.05
"""Differences with a p-value below this are coloured; nothing else depends on it."""


def policy_table(lines: Sequence[PolicyLine], title: str = "Accuracy, greedy decoding") -> Grid:
    """Each policy's training pairs, its accuracy with interval, and its differences from SFT and
    from DPO (data-equal) on the same questions, with p-values.

    Empty columns are left out. Raises InputError if there are no lines.
    """
    _need(lines, "policies")
    columns = [
        (Column("policy", "left", wrap=True), [_name(line.policy) for line in lines]),
        (Column("n"), [Cell(notation.count(line.n)) for line in lines]),
        (Column("pairs"), [_count(line.pairs) for line in lines]),
        (Column("accuracy %", "number"), [_accuracy(line) for line in lines]),
        (Column("vs SFT", "number"), [_difference(line.vs_sft) for line in lines]),
        (
            Column("vs DPO\n(data-equal)", "number"),
            [_difference(line.vs_data_equal) for line in lines],
        ),
    ]
    filled = [(column, cells) for column, cells in columns if any(c.value for c in cells)]
    return Grid(
        title,
        tuple(column for column, _ in filled),
        tuple(zip(*(cells for _, cells in filled), strict=True)),
        tuple(_policy_notes(lines)),
    )


def breakdown_table(lines: Sequence[BreakdownLine], by: str, of: str = "") -> Grid:
    """Accuracy of each policy on each group, in the order of `lines`; `by` says what the groups
    are (`level`), `of` names the questions. Raises InputError if there are no lines, or two for
    the same policy and group."""
    _need(lines, "groups")
    policies = list(dict.fromkeys(line.policy for line in lines))
    cells: dict[tuple[str, str], BreakdownLine] = {}
    for line in lines:
        if (line.group, line.policy) in cells:
            raise InputError(f"{by} {line.group} occurs twice for policy {line.policy}")
        cells[line.group, line.policy] = line
    rows = []
    for group in dict.fromkeys(line.group for line in lines):
        here = [cells.get((group, policy)) for policy in policies]
        sizes = sorted({line.n for line in here if line is not None})
        rows.append(
            (
                Cell(group, style="bold"),
                Cell(" / ".join(map(notation.count, sizes))),
                *(Cell() if line is None else _accuracy(line) for line in here),
            )
        )
    columns = (
        Column(by, "left", wrap=True),
        Column("n"),
        *(Column(label(policy).replace(" (", "\n("), "number") for policy in policies),
    )
    return Grid(
        f"Accuracy {f'on {of} ' if of else ''}by {by}, %",
        columns,
        tuple(rows),
        ("n questions; in brackets: 95 % Wilson interval.",),
    )


def stage_table(manifests: Sequence[Manifest], title: str = "Stages") -> Grid:
    """Rows, time and counts (such as reasons for dropping rows) of each stage, with the total
    time. Counts of zero are left out. Raises InputError if there are no manifests."""
    _need(manifests, "stages")
    rows = [
        (
            Cell(manifest.stage, "" if manifest.status == "done" else "(unfinished)", style="bold"),
            Cell(notation.count(manifest.rows)),
            Cell(notation.duration(manifest.seconds)),
            Cell(", ".join(f"{k}={_number(v)}" for k, v in manifest.counts.items() if v)),
        )
        for manifest in manifests
    ]
    total = sum(manifest.seconds for manifest in manifests)
    rows.append((Cell("total", style="bold"), Cell(), Cell(notation.duration(total)), Cell()))
    columns = (
        Column("stage", "left"),
        Column("rows"),
        Column("time"),
        Column("counts", "left", wrap=True),
    )
    return Grid(title, columns, tuple(rows), total=True)


def as_json(lines: Sequence[Record]) -> str:
    """The rows behind a table as a JSON array, with unrounded numbers."""
    return json.dumps([line.model_dump(mode="json") for line in lines], indent=2) + "\n"


def label(policy: str) -> str:
    """A policy's name as it appears in tables."""
    return LABELS.get(policy, policy)


def _accuracy(line: MeasuredLine) -> Cell:
    return Cell(notation.percent(line.accuracy), notation.percent_interval(line.low, line.high))


def _difference(difference: Difference | None) -> Cell:
    if difference is None:
        return Cell()
    style = ""
    if difference.p < SIGNIFICANT:
        style = "bold green" if difference.difference > 0 else "bold red"
    return Cell(
        notation.points(difference.difference),
        notation.points_interval(difference.low, difference.high),
        notation.p_value(difference.p),
        style,
    )


def _name(policy: str) -> Cell:
    return Cell(label(policy), style="bold")


def _count(number: int | None) -> Cell:
    return Cell("" if number is None else notation.count(number))


def _policy_notes(lines: Sequence[PolicyLine]) -> list[str]:
    notes = ["n questions; in brackets: 95 % Wilson interval."]
    if any(line.vs_sft or line.vs_data_equal for line in lines):
        notes = [
            "n questions; in brackets: 95 % interval, Wilson and (vs) paired bootstrap.",
            "vs: percentage points on the same questions; p: two-sided exact McNemar test.",
        ]
    notes += [f"{line.policy}: {line.training}." for line in lines if line.training]
    for name in ("undecided", "unfinished"):
        counts = [(label(line.policy), getattr(line, name)) for line in lines]
        listed = ", ".join(f"{policy} {notation.count(n)}" for policy, n in counts if n)
        if listed:
            notes.append(f"Counted as not correct because {name}: {listed}.")
    return notes


def _number(value: int | float) -> str:
    return notation.count(value) if isinstance(value, int) else f"{value:.3g}"


def _need(rows: Sequence[object], what: str) -> None:
    if not rows:
        raise InputError(f"a table needs at least one row, found no {what}")
