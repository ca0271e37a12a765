"""Families of values with parameters, as lists of vectors of formulas."""

from __future__ import annotations

from collections.abc import Sequence

from scdpo.grading.comparing.verdicts import Vectors
from scdpo.grading.reading.parts import Family, Interval, Items, Leaf, Named, Part, Reals


def vectors(family: Family) -> Vectors | None:
    """The members of a family as tuples of formulas: numbers, points, ends of intervals."""
    found: Vectors = []
    for part in family.parts:
        match part:
            case Leaf(text):
                found.append((text,))
            case Reals((Interval(low, high, low_closed, high_closed),), ()) if low and high:
                found.append((low, high, str(int(low_closed)), str(int(high_closed))))
            case Items("list" | "set", items) if all(isinstance(i, Items) for i in items):
                inner = vectors(Family(items, family.parameters))
                if inner is None:
                    return None
                found.extend(inner)
            case Items("list", items) if all(isinstance(item, Named) for item in items):
                named = sorted((i for i in items if isinstance(i, Named)), key=lambda i: i.name)
                found.append(tuple(i.value.text for i in named if isinstance(i.value, Leaf)))
            case Items("bracket", (Leaf(low), Leaf(high))):
                found.append((low, high, "1", "1"))
            case Items("tuple" | "bracket", items) if all(isinstance(i, Leaf) for i in items):
                found.append(tuple(item.text for item in items if isinstance(item, Leaf)))
            case Named(_, value):
                inner = vectors(Family((value,), family.parameters))
                if inner is None:
                    return None
                found.extend(inner)
            case _:
                return None
    return found


def as_intervals(members: Vectors) -> Vectors:
    """Members of which some are intervals: pairs of ends in round brackets are open intervals."""
    return [(*vector, "0", "0") if len(vector) == 2 else vector for vector in members]


def as_family(part: Part, other: Part) -> Family | None:
    """A part as a family; without a condition it has the parameters of the other side."""
    if isinstance(part, Family):
        return part
    if isinstance(other, Family):
        parameters, first = other.parameters, other.first
    else:
        parameters, first = frozenset("kn"), None
    parameters |= frozenset("kmn")
    if (
        isinstance(part, Items)
        and part.kind in ("tuple", "bracket")
        and isinstance(other, Family)
        and any(isinstance(item, Items | Reals) for item in other.parts)
    ):
        return Family((part,), parameters, first)
    parts: Sequence[Part] = part.items if isinstance(part, Items) else (part,)
    values = [item.value if isinstance(item, Named) else item for item in parts]
    if all(isinstance(value, Leaf) for value in values):
        return Family(tuple(values), parameters, first)
    return Family((part,), parameters, first)
