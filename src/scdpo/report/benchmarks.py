"""Benchmark tables: one policy's accuracy, and two policies compared."""

from __future__ import annotations

from collections.abc import Sequence

from scdpo.errors import InputError
from scdpo.evaluation import BenchmarkLine, ComparisonLine
from scdpo.report import notation
from scdpo.report.grid import Cell, Column, Grid
from scdpo.report.table import SIGNIFICANT


def benchmark_table(lines: Sequence[BenchmarkLine]) -> Grid:
    """Accuracy with its interval on each benchmark, and what became of the other questions.

    Raises InputError if there are no lines.
    """
    if not lines:
        raise InputError("a table needs at least one row, found no benchmarks")
    rows = [
        (
            Cell(line.benchmark, style="bold"),
            Cell(notation.count(line.n)),
            Cell(notation.percent(line.accuracy), notation.percent_interval(line.low, line.high)),
            *(Cell(notation.count(n)) for n in (line.wrong, line.undecided, line.unfinished)),
        )
        for line in lines
    ]
    columns = (
        Column("benchmark", "left", wrap=True),
        Column("n"),
        Column("accuracy %", "number"),
        *(Column(name) for name in ("wrong", "undecided", "unfinished")),
    )
    notes = [
        "n questions; in brackets: 95 % Wilson interval.",
        *(f"{line.benchmark}: {_reasons(line)}." for line in lines if line.reasons),
    ]
    policies = ", ".join(dict.fromkeys(line.policy for line in lines))
    return Grid(f"Accuracy of {policies}, greedy decoding", columns, tuple(rows), tuple(notes))


def comparison_table(lines: Sequence[ComparisonLine], a: str, b: str) -> Grid:
    """The difference between policies `a` and `b` on each benchmark; the last line is the total.

    Raises InputError if there are no lines.
    """
    if not lines:
        raise InputError("a table needs at least one row, found no comparisons")
    columns = (
        Column("benchmark", "left", wrap=True),
        *(Column(name) for name in ("n", "A %", "B %")),
        Column("A − B", "number"),
        *(Column(name) for name in ("only A", "only B")),
    )
    notes = (
        f"A: {a}",
        f"B: {b}",
        "A − B: percentage points on the same questions; in brackets: 95 % paired",
        "bootstrap interval; p: two-sided exact McNemar test on the questions that",
        "only one of the two policies answered correctly.",
    )
    rows = tuple(_compared(line) for line in lines)
    return Grid("Comparison, question by question", columns, rows, notes, total=len(rows) > 1)


def _compared(line: ComparisonLine) -> tuple[Cell, ...]:
    style = ""
    if line.p < SIGNIFICANT:
        style = "bold green" if line.difference > 0 else "bold red"
    return (
        Cell(line.benchmark, style="bold"),
        Cell(notation.count(line.n)),
        Cell(notation.percent(line.a_accuracy)),
        Cell(notation.percent(line.b_accuracy)),
        Cell(
            notation.points(line.difference),
            notation.points_interval(line.low, line.high),
            notation.p_value(line.p),
            style,
        ),
        Cell(notation.count(line.only_a)),
        Cell(notation.count(line.only_b)),
    )


def _reasons(line: BenchmarkLine) -> str:
    return ", ".join(f"{notation.count(n)} {reason}" for reason, n in line.reasons.items())
