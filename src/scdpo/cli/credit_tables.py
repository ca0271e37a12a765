"""The table of `scdpo credit`."""

from __future__ import annotations

from collections.abc import Sequence

from scdpo.insight.finding import Estimate, FindingDifference, FindingLine
from scdpo.report.grid import Cell, Column, Grid
from scdpo.report.notation import count, p_value, percent, percent_interval, points, points_interval


def credit_table(
    lines: Sequence[FindingLine], differences: Sequence[FindingDifference], by: str
) -> Grid:
    """How well each scorer finds the first wrong step, and how the first policy differs."""
    with_f1 = any(line.f1 for line in lines)
    columns = (
        Column("lowest step by", "left"),
        Column("ROC-AUC %", "number"),
        Column("first error found %", "number"),
        *([Column("F1 %", "number")] if with_f1 else []),
    )
    rows = [
        (
            Cell(line.scorer, style="bold"),
            _share(line.auc),
            _share(line.first_error),
            *([_share(line.f1)] if with_f1 else []),
        )
        for line in lines
    ]
    first = lines[0]
    notes = [
        f"{count(first.n_solutions)} solutions of {count(first.n_problems)} questions, "
        f"{count(first.n_wrong)} with a wrong step. A step is scored by the {_OF[by]}.",
        "ROC-AUC over the steps up to the first wrong one; F1 as in ProcessBench.",
        "In brackets: 95 % bootstrap intervals over questions.",
        *map(_difference, differences),
    ]
    return Grid("Where rewards put the blame", columns, tuple(rows), tuple(notes))


_OF = {
    "mean": "mean reward of its tokens",
    "total": "sum of its tokens' rewards",
    "lowest": "lowest reward of its tokens",
}


def _share(estimate: Estimate | None) -> Cell:
    if estimate is None:
        return Cell()
    return Cell(percent(estimate.value), percent_interval(estimate.low, estimate.high))


def _difference(found: FindingDifference) -> str:
    parts = [
        ("ROC-AUC", found.auc, found.auc_p),
        ("first error", found.first_error, found.first_error_p),
        *([("F1", found.f1, found.f1_p)] if found.f1 and found.f1_p is not None else []),
    ]
    listed = (
        f"{name} {points(of.value)} {points_interval(of.low, of.high)} {p_value(p)}"
        for name, of, p in parts
    )
    return f"{found.a} − {found.b}: {'; '.join(listed)}"
