"""Parts in one shape: lists of one unwrapped, ± written out, words that only introduce dropped."""

from __future__ import annotations

import re

from scdpo.grading.comparing.names import wordy
from scdpo.grading.reading.parts import Equation, Items, Leaf, Named, Part, Reals
from scdpo.grading.reading.structure import read


def plain(part: Part) -> Part:
    """A part without a list of one around it, its ± written out."""
    while isinstance(part, Items) and part.kind in ("list", "set", "bracket", "parts"):
        if len(part.items) != 1 or part.items[0] == Reals(()):  # the set of the empty set
            break
        part = part.items[0]
    if isinstance(part, Leaf):
        return _signs(part)
    if isinstance(part, Equation) and re.search("[±∓]", part.left + part.right):
        tables = [str.maketrans("±∓", pair) for pair in ("+-", "-+")]
        pair = (Equation(part.left.translate(t), part.right.translate(t)) for t in tables)
        return Items("list", tuple(pair))
    if isinstance(part, Named) and isinstance(part.value, Leaf):
        both = _signs(part.value)
        if isinstance(both, Items):
            return Items("list", tuple(Named(part.name, one) for one in both.items))
    if isinstance(part, Items) and part.kind == "tuple":
        return _signed_tuple(part)
    if isinstance(part, Items) and part.kind in ("list", "set"):
        flat: list[Part] = []
        for item in part.items:
            one = plain(item)
            inner = isinstance(one, Items) and one.kind == "list"
            flat.extend(one.items if inner and isinstance(one, Items) else (one,))
        return Items(part.kind, tuple(flat))
    return part


def _signed_tuple(part: Items) -> Part:
    """`(\\pm 1, 0)` as its two tuples."""
    texts = [item.text if isinstance(item, Leaf) else "" for item in part.items]
    if not any("±" in text or "∓" in text for text in texts):
        return part
    signs = [str.maketrans("±∓", pair) for pair in ("+-", "-+")]
    points = []
    for table in signs:
        items = [
            Leaf(item.text.translate(table).lstrip("+ ")) if isinstance(item, Leaf) else item
            for item in part.items
        ]
        points.append(Items("tuple", tuple(items)))
    return Items("list", tuple(points))


def unframed(part: Part) -> Part:
    """A part without words that only introduce it: the equation of the line is …"""
    if isinstance(part, Named) and wordy(part.name) and not isinstance(part.value, Leaf):
        return plain(part.value)
    return part


def _signs(part: Part) -> Part:
    """`1 ± √2` as its two values."""
    if not isinstance(part, Leaf) or not ("±" in part.text or "∓" in part.text):
        return part
    text = part.text
    first = text.replace("±", "+").replace("∓", "-")
    second = text.replace("±", "-").replace("∓", "+")
    return Items("list", tuple(read(one.lstrip("+ ")) for one in (first, second)))


def flat_column(part: Items) -> Items:
    """`[[1], [2]]` as `[1, 2]`."""
    return Items(part.kind, tuple(plain(item) for item in part.items))
