"""Formulas as trees."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

FLOAT = "float"
"""The name of a number that was printed with six decimals or more."""


class NotAFormulaError(ValueError):
    """The text is not a formula that can be evaluated."""


@dataclass(frozen=True, slots=True)
class Node:
    """`op` applied to `args`; a number has a `value`, a variable and a function call a `name`."""

    op: str
    args: tuple[Node, ...] = ()
    value: Fraction = Fraction(0)
    name: str = ""


def number(value: Fraction | int, name: str = "") -> Node:
    """A constant; `name` is FLOAT for the output of a floating-point computation."""
    return Node("number", value=Fraction(value), name=name)


def variable(name: str) -> Node:
    """A variable, or the value of an unknown function, with its name."""
    return Node("variable", name=name)


def variables(node: Node) -> frozenset[str]:
    """The names of all variables in a tree."""
    found: set[str] = set()
    stack = [node]
    while stack:
        top = stack.pop()
        if top.op == "variable":
            found.add(top.name)
        stack.extend(top.args)
    return frozenset(found)


def uses(node: Node, *names: str) -> bool:
    """Whether any of the operations or functions occurs in a tree."""
    stack = [node]
    while stack:
        top = stack.pop()
        if top.op in names or top.name in names:
            return True
        stack.extend(top.args)
    return False
