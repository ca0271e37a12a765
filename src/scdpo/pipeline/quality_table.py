"""The tables of `scdpo quality`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import get_args

from scdpo.insight.branch_lines import By, Part, QualityLine
from scdpo.insight.branches import Mistake, Outcome
from scdpo.report.grid import Cell, Column, Grid
from scdpo.report.notation import MINUS, count, percent

_PAIRS: tuple[tuple[str, str], ...] = (
    ("same_share", "the same at the beginning, % of the shorter side"),
    ("chosen_tokens", "tokens of the chosen side"),
    ("rejected_tokens", "tokens of the rejected side"),
    ("rejected_longer", "rejected side is longer, %"),
    ("chosen_logp", "log-prob per token, chosen"),
    ("rejected_logp", "log-prob per token, rejected"),
    ("distance", "right new steps before the first wrong one"),
    *((f"mistake:{name}", f"first wrong step: {name}, %") for name in get_args(Mistake)),
    ("no_wrong_step", "no step known to be wrong, %"),
)
_BRANCHES: tuple[tuple[By, str, str], ...] = (
    ("branch_step", "k", "Branches by branch step k"),
    ("steps_left", "left", "Branches by the steps that the chosen side has after k"),
)
_LOST: tuple[Outcome, ...] = ("garbled", "unfinished", "undecided")
_KINDS: tuple[tuple[Part, str], ...] = (
    ("naive", "naive"),
    ("step_controlled", "step-controlled"),
)
_INTERVALS = "In brackets: 95 % intervals over resampled questions."


class _Figures:
    """The lines by what they are about."""

    def __init__(self, lines: Sequence[QualityLine]):
        self._known = {(line.part, line.by, line.group, line.measure): line for line in lines}

    def line(
        self, part: Part, measure: str, by: By = "all", group: int | None = None
    ) -> QualityLine | None:
        """The line with a figure, if there is one."""
        return self._known.get((part, by, group, measure))

    def cell(self, part: Part, measure: str, by: By = "all", group: int | None = None) -> Cell:
        """The figure as a cell."""
        line = self.line(part, measure, by, group)
        return Cell() if line is None else _written(line)

    def groups(self, *parts: Part, by: By) -> list[int]:
        """The groups that these parts have figures of."""
        keys = [key for key in self._known if key[0] in parts and key[1] == by]
        return sorted({group for _, _, group, _ in keys if group is not None})


def quality_tables(lines: Sequence[QualityLine]) -> Iterator[Grid]:
    """Tables of pairs, of where negatives go wrong, and of branches."""
    figures = _Figures(lines)
    yield _pair_table(figures)
    if figures.groups("naive", "step_controlled", by="distance"):
        yield _distance_table(figures)
    for by, heading, title in _BRANCHES:
        if groups := figures.groups("branches", by=by):
            yield _branch_table(figures, by, groups, heading, title)


def _pair_table(figures: _Figures) -> Grid:
    kinds = [kind for kind in _KINDS if figures.line(kind[0], "same_share")]
    rows = [(Cell("pairs"), *(_number(figures.line(part, "same_share")) for part, _ in kinds))]
    for measure, name in _PAIRS:
        cells = [figures.cell(part, measure) for part, _ in kinds]
        if any(cell.value for cell in cells):
            rows.append((Cell(name), *cells))
    notes = ("Both sides are compared after the shared steps.", *_hidden(figures), _INTERVALS)
    columns = (Column("", "left", wrap=True), *(Column(name, "number") for _, name in kinds))
    return Grid("Pairs", columns, tuple(rows), notes)


def _hidden(figures: _Figures) -> Iterator[str]:
    solutions = figures.line("preferred", "hidden_wrong")
    steps = figures.line("preferred", "hidden_wrong_steps")
    if solutions and steps:
        yield (
            f"A wrong step hides in {_written(solutions).line} % of {count(solutions.n)} preferred "
            f"solutions: {_written(steps).line} % of their {count(steps.n)} steps."
        )


def _distance_table(figures: _Figures) -> Grid:
    kinds = [kind for kind in _KINDS if figures.groups(kind[0], by="distance")]
    rows = tuple(
        (
            Cell(_place(group)),
            *(figures.cell(part, "negatives", "distance", group) for part, _ in kinds),
        )
        for group in figures.groups("naive", "step_controlled", by="distance")
    )
    columns = (
        Column("first wrong new step", "left"),
        *(Column(f"{name} %", "number") for _, name in kinds),
    )
    return Grid("Where negatives first go wrong", columns, rows, (_INTERVALS,))


def _place(distance: int) -> str:
    if distance < 0:
        return f"shared step k{MINUS}{-distance - 1}" if distance < -1 else "shared step k"
    return f"step k+{distance + 1}"


def _branch_table(
    figures: _Figures, by: By, groups: Sequence[int], heading: str, title: str
) -> Grid:
    rows = [_branch_row(figures, by, group) for group in groups]
    every = by == "branch_step"
    rows += [_branch_row(figures, "all", None)] * every
    columns = (
        *(Column(heading), Column("branches"), Column("correct %", "number"), Column("lost %")),
        *(Column("pairs"), Column("wrong at\nonce %", "number"), Column("same %", "number")),
    )
    notes: tuple[str, ...] = (_INTERVALS,)
    if every:
        notes = (
            "Correct and lost are shares of the branches. Wrong at once: pairs whose rejected side "
            "errs in its first new step; same: their common beginning after k, in % of the "
            "shorter side.",
            f"Lost in all: {_lost(figures)}.",
            _INTERVALS,
        )
    return Grid(title, columns, tuple(rows), notes, total=every)


def _branch_row(figures: _Figures, by: By, group: int | None) -> tuple[Cell, ...]:
    pairs = figures.line("step_controlled", "same_share", by, group)
    lost = [figures.line("branches", outcome, by, group) for outcome in _LOST]
    return (
        Cell("all" if group is None else str(group), style="bold"),
        _number(figures.line("branches", "correct", by, group)),
        figures.cell("branches", "correct", by, group),
        Cell(percent(sum(line.value for line in lost if line is not None))),
        _number(pairs),
        figures.cell("step_controlled", "wrong_at_once", by, group),
        figures.cell("step_controlled", "same_share", by, group),
    )


def _lost(figures: _Figures) -> str:
    parts = ((outcome, figures.line("branches", outcome)) for outcome in _LOST)
    return ", ".join(f"{name} {_written(line).line} %" for name, line in parts if line is not None)


def _number(line: QualityLine | None) -> Cell:
    return Cell(count(0 if line is None else line.n))


def _written(line: QualityLine) -> Cell:
    write = percent if line.unit == "share" else _number_of(line)
    if line.low is None or line.high is None:
        return Cell(write(line.value))
    return Cell(write(line.value), f"[{write(line.low)}, {write(line.high)}]")


def _number_of(line: QualityLine) -> Callable[[float], str]:
    digits = 1 if line.unit == "tokens" else 2
    return lambda number: f"{number:.{digits}f}".replace("-", MINUS)
