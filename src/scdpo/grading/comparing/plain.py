"""Parts brought to the same shape: single items unwrapped, ± written out, frames dropped."""

from __future__ import annotations

from scdpo.grading.comparing.names import wordy
from scdpo.grading.reading.parts import Equation, Items, Leaf, Named, Part, Reals
from scdpo.grading.reading.structure import read
from scdpo.grading.text.canonical import both_signs, has_both_signs


def plain(part: Part) -> Part:
    """A part with ± written out, and without a list around a single item."""
    while isinstance(part, Items) and part.kind in ("list", "set", "bracket", "parts"):
        if len(part.items) != 1 or part.items[0] == Reals(()):  # {∅} is not ∅
            break
        part = part.items[0]
    if isinstance(part, Leaf):
        return _signs(part)
    if isinstance(part, Equation) and has_both_signs(part.left + part.right):
        sides = zip(both_signs(part.left), both_signs(part.right), strict=True)
        return Items("list", tuple(Equation(left, right) for left, right in sides))
    if isinstance(part, Named) and isinstance(part.value, Leaf):
        both = _signs(part.value)
        if isinstance(both, Items):
            return Items("list", tuple(Named(part.name, leaf) for leaf in both.items))
    if isinstance(part, Items) and part.kind == "tuple":
        return _signed_tuple(part)
    if isinstance(part, Items) and part.kind in ("list", "set"):
        flat: list[Part] = []
        for item in part.items:
            shaped = plain(item)
            inner = isinstance(shaped, Items) and shaped.kind == "list"
            flat.extend(shaped.items if inner and isinstance(shaped, Items) else (shaped,))
        return Items(part.kind, tuple(flat))
    return part


def _signed_tuple(part: Items) -> Part:
    """`(\\pm 1, 0)` as its two tuples."""
    if not any(isinstance(item, Leaf) and has_both_signs(item.text) for item in part.items):
        return part
    pairs = [
        tuple(Leaf(text.lstrip("+ ")) for text in both_signs(item.text))
        if isinstance(item, Leaf)
        else (item, item)
        for item in part.items
    ]
    return Items("list", tuple(Items("tuple", items) for items in zip(*pairs, strict=True)))


def unframed(part: Part) -> Part:
    """A part without words that only introduce it, such as `the equation of the line is …`."""
    if isinstance(part, Named) and wordy(part.name) and not isinstance(part.value, Leaf):
        return plain(part.value)
    return part


def _signs(part: Part) -> Part:
    """`1 ± √2` as its two values."""
    if not isinstance(part, Leaf) or not has_both_signs(part.text):
        return part
    return Items("list", tuple(read(text.lstrip("+ ")) for text in both_signs(part.text)))


def flat_column(part: Items) -> Items:
    """`[[1], [2]]` as `[1, 2]`."""
    return Items(part.kind, tuple(plain(item) for item in part.items))
