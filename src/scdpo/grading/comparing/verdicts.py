"""The comparisons of leaves that `compare` uses, and how verdicts on parts are combined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from scdpo.grading.reading.parts import Equation, Family, Reals, Relation
from scdpo.records import CORRECT, WRONG, Verdict

Found = Verdict | None
"""A verdict, or None where the text cannot be judged without algebra."""
Vectors = list[tuple[str, ...]]
"""The members of a family, each as the formulas of its coordinates."""


class Leaves:
    """The questions about leaves that `compare` asks."""

    def __init__(
        self,
        same: Callable[[str, str], Found],
        value: Callable[[str], Fraction | None],
        equation: Callable[[Equation, Equation], bool | None],
        relation: Callable[[Relation, Relation], bool | None],
        family: Callable[[Family, Vectors, Family, Vectors], bool | None],
        solve: Callable[[Relation], Reals | None],
        readable: Callable[[str], bool],
    ):
        self.same = same
        self.value = value
        self.equation = equation
        self.relation = relation
        self.family = family
        self.solve = solve
        self.readable = readable


MAX_COST = 1_500
"""Most comparisons of leaves for a pair of answers; comparing equations counts as several."""
_COSTS = {"equation": 60, "relation": 20, "family": 60, "solve": 20}


class TooManyError(Exception):
    """A pair of answers has more parts than are compared."""


def limited(leaves: Leaves) -> Leaves:
    """The same comparisons, which raise TooManyError once a pair has taken more than MAX_COST."""
    spent = 0

    def counted(name: str) -> Callable[..., object]:
        inner, cost = getattr(leaves, name), _COSTS.get(name, 1)

        def call(*arguments: object) -> object:
            nonlocal spent
            spent += cost
            if spent > MAX_COST:
                raise TooManyError
            return inner(*arguments)

        return call

    names = ("same", "value", "equation", "relation", "family", "solve", "readable")
    return Leaves(*(counted(name) for name in names))  # type: ignore[arg-type]


def verdict_on(equal: bool | None) -> Found:
    """A comparison's result as a verdict."""
    return None if equal is None else CORRECT if equal else WRONG


def conjunction(verdicts: Sequence[Found]) -> Found:
    """The verdict on a whole whose parts all have to be correct."""
    if WRONG in verdicts:
        return WRONG
    if None in verdicts:
        return None
    return next((v for v in verdicts if v is not None and v.undecided), CORRECT)


def perfectly_matched(table: Sequence[Sequence[bool]]) -> bool:
    """Whether a square table has a perfect matching of rows and columns on its true cells."""
    taken: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for column, possible in enumerate(table[row]):
            if possible and column not in seen:
                seen.add(column)
                if column not in taken or place(taken[column], seen):
                    taken[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(table)))
