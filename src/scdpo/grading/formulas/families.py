"""Families of numbers and points with integer parameters: π/4 + kπ."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from scdpo.grading.formulas.evaluation import NoValueError, evaluate, precise
from scdpo.grading.formulas.tree import Node, variables


@dataclass(frozen=True, slots=True)
class Member:
    """The coordinates of a family's member, its integer parameters, and where those start."""

    nodes: tuple[Node, ...]
    parameters: frozenset[str]
    first: int | None = None


SPREAD = 24
"""A family's parameter runs from −SPREAD to SPREAD."""
LARGEST = 1e6
"""Floats do not distinguish larger values well enough."""
_Point = tuple[float, ...]


def same_family(first: Sequence[Member], second: Sequence[Member]) -> bool | None:
    """Whether two families of numbers or points with integer parameters are the same set.

    All values within a window that both families cover are compared. None if a formula has other
    variables or no values.
    """
    endless = [any(_used(member) for member in family) for family in (first, second)]
    if endless[0] != endless[1]:
        return False
    sets = []
    for family in (first, second):
        values = _members(family)
        if values is None:
            return None
        sets.append(values)
    window = min(map(_reach, sets)) / 2
    if window <= 0 or len({len(point) for values in sets for point in values}) != 1:
        return None
    inside = [
        {point for point in values if max(map(abs, point)) <= window * (1 + 1e-9)}
        for values in sets
    ]
    return inside[0] == inside[1] if all(inside) else None


def _used(member: Member) -> bool:
    """Whether a member depends on its parameters."""
    return bool(frozenset().union(*map(variables, member.nodes)) & member.parameters)


def _members(family: Sequence[Member]) -> set[_Point] | None:
    mp = precise()
    values: set[_Point] = set()
    for member in family:
        used = frozenset().union(*map(variables, member.nodes))
        names = sorted(used & member.parameters)
        if used - member.parameters or len(names) > 2:
            return None
        reach = SPREAD if len(names) < 2 else 5
        steps = range(-reach if member.first is None else member.first, reach + 1)
        for combination in itertools.product(steps, repeat=len(names)):
            point = {name: mp.mpf(value) for name, value in zip(names, combination, strict=True)}
            try:
                found = [evaluate(node, point) for node in member.nodes]
            except NoValueError:
                continue
            if any(abs(value.imag) > 1e-20 for value in found):
                return None
            if any(abs(value) > LARGEST for value in found):
                return None
            values.add(tuple(round(float(value.real), 9) + 0.0 for value in found))
    return values


def _reach(values: set[_Point]) -> float:
    """How far a family's values extend to both sides of zero, or to the only side they have."""
    reaches = []
    for coordinate in zip(*values, strict=True):
        low, high = min(coordinate), max(coordinate)
        if low == high:
            continue
        one_sided = low >= 0 or high <= 0
        reaches.append(max(abs(low), abs(high)) if one_sided else min(abs(low), abs(high)))
    return min(reaches, default=0.0)
