"""The parts of an answer: leaves, lists, named values, sets of reals, equations, families."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from scdpo.grading.formulas.notation import FUNCTIONS

REAL = -(10**9)
"""The `first` of a family whose parameters are real numbers."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A number, formula or word, as written."""

    text: str


@dataclass(frozen=True, slots=True)
class Items:
    """Several parts.

    `list` and `set` have no order; `bracket` is `[…]`, which may be a list; `row` is `6 4 0`, as
    sorting problems write it; `parts` are (a), (b), ….
    """

    kind: Literal["list", "set", "tuple", "bracket", "row", "column", "parts", "matrix"]
    items: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """A value under a name: `x = 3`, `f(x) = x + 1`."""

    name: str
    value: Part


@dataclass(frozen=True, slots=True)
class Equation:
    """An equation between two formulas, neither of which is just a name."""

    left: str
    right: str


@dataclass(frozen=True, slots=True)
class Interval:
    """From `low` to `high`; None is infinity."""

    low: str | None
    high: str | None
    low_closed: bool = False
    high_closed: bool = False


@dataclass(frozen=True, slots=True)
class Reals:
    """A set of real numbers: intervals minus single points; `name` is the variable, if any."""

    intervals: tuple[Interval, ...]
    without: tuple[str, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Relation:
    """An inequality `left op right` that is not an interval; op is <, ≤ or ≠."""

    left: str
    op: str
    right: str


@dataclass(frozen=True, slots=True)
class Family:
    """Values with parameters: π/4 + kπ.

    The parameters are integers, from `first` on if it is a number; they are real numbers if
    `first` is REAL.
    """

    parts: tuple[Part, ...]
    parameters: frozenset[str]
    first: int | None = None


Part = Leaf | Items | Named | Equation | Reals | Relation | Family

Read = Callable[[str], Part]
"""Reads a piece of a canonical text, a level deeper."""
_RUN = re.compile(r"\\[A-Za-z]+|[A-Za-z]+")


def renamed(text: str, old: str, new: str) -> str:
    """`text` with a variable renamed, unless the text already uses the new name."""
    if old == new:
        return text

    def replace(match: re.Match[str]) -> str:
        run = match.group()
        return run if run[0] == "\\" or len(run) > 3 or run in FUNCTIONS else run.replace(old, new)

    taken = any(
        new in run.group() and run.group()[0] != "\\" and run.group() not in FUNCTIONS
        for run in _RUN.finditer(text)
        if len(run.group()) <= 3
    )
    return text if taken else _RUN.sub(replace, text)


def rename(part: Part, old: str, new: str) -> Part:
    """A part with a variable renamed throughout."""
    match part:
        case Leaf(text):
            return Leaf(renamed(text, old, new))
        case Items(kind, items):
            return Items(kind, tuple(rename(item, old, new) for item in items))
        case Named(name, value):
            return Named(name, rename(value, old, new))
        case Reals(intervals, without, name):
            ends = [
                [
                    None if end is None else renamed(end, old, new)
                    for end in (interval.low, interval.high)
                ]
                for interval in intervals
            ]
            moved = (
                Interval(low, high, interval.low_closed, interval.high_closed)
                for interval, (low, high) in zip(intervals, ends, strict=True)
            )
            return Reals(tuple(moved), without, name)
    return part
