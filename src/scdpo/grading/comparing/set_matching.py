"""Sets of real numbers compared, interval by interval."""

from __future__ import annotations

import re
from fractions import Fraction

from scdpo.grading.comparing.names import key
from scdpo.grading.comparing.verdicts import (
    Found,
    Leaves,
    conjunction,
    perfectly_matched,
)
from scdpo.grading.reading.parts import Interval, Items, Leaf, Named, Part, Reals
from scdpo.records import CORRECT, WRONG


def compare_sets(gold: Part, answer: Part, leaves: Leaves) -> Found:
    """Compare two parts of which at least one is a set of real numbers."""
    if Reals(()) in (gold, answer):
        if any(
            isinstance(part, Leaf) and leaves.value(part.text) is None for part in (gold, answer)
        ):
            return (
                WRONG
                if gold == Reals(()) and isinstance(answer, Leaf) and _wordless(answer.text)
                else leaves.same(_empty(gold), _empty(answer))
            )
        return CORRECT if gold == answer else WRONG
    first, second = _as_set(gold, other=answer), _as_set(answer, other=gold)
    if first is None or second is None:
        if isinstance(gold, Reals) and isinstance(answer, Reals | Leaf):
            leaf = answer.text if isinstance(answer, Leaf) else ""
            return WRONG if leaves.readable(leaf) else None
        return None if isinstance(answer, Leaf) or isinstance(gold, Leaf) else WRONG
    if first.name and second.name and key(first.name) != key(second.name):
        return WRONG
    ours, theirs = _normal(first, leaves), _normal(second, leaves)
    if len(ours) != len(theirs):
        return WRONG
    if all(_sortable(interval, leaves) for interval in (*ours, *theirs)):
        return conjunction(
            [_same_interval(g, a, leaves) for g, a in zip(ours, theirs, strict=True)]
        )
    table = [[_same_interval(g, a, leaves) == CORRECT for a in theirs] for g in ours]
    if perfectly_matched(table):
        return CORRECT
    unknown = [[_same_interval(g, a, leaves) for a in theirs] for g in ours]
    return None if any(v is None for row in unknown for v in row) else WRONG


def _empty(part: Part) -> str:
    return part.text if isinstance(part, Leaf) else "∅"


def _wordless(text: str) -> bool:
    return re.search(r"[A-Za-z]{3}|[\u4e00-\u9fff]", text) is None


def _as_set(part: Part, other: Part) -> Reals | None:
    """A part as a set of reals, where the other side shows that it is a set of reals."""
    if isinstance(part, Reals):
        return part
    if isinstance(part, Named):
        return _as_set(part.value, other)
    if part == Leaf("R"):
        return Reals((Interval(None, None),))
    if isinstance(part, Items) and part.kind in ("tuple", "bracket") and len(part.items) == 2:
        low, high = part.items
        if isinstance(low, Leaf) and isinstance(high, Leaf) and isinstance(other, Reals):
            closed = part.kind == "bracket"
            return Reals((Interval(low.text, high.text, closed, closed),))
    return None


def _sortable(interval: Interval, leaves: Leaves) -> bool:
    return all(e is None or leaves.value(e) is not None for e in (interval.low, interval.high))


def _normal(reals: Reals, leaves: Leaves) -> list[Interval]:
    """Intervals in order, joined where they meet, with the excluded points cut out."""
    intervals = list(reals.intervals)
    if not all(_sortable(interval, leaves) for interval in intervals):
        return intervals
    low_of = {id(i): leaves.value(i.low) if i.low is not None else None for i in intervals}
    intervals.sort(key=lambda i: (low_of[id(i)] is not None, low_of[id(i)] or Fraction(0)))
    joined: list[Interval] = []
    for interval in intervals:
        if joined and _meet(joined[-1], interval, leaves):
            joined[-1] = _join(joined[-1], interval, leaves)
        else:
            joined.append(interval)
    points = sorted(
        (value, text) for text in reals.without if (value := leaves.value(text)) is not None
    )
    for value, text in points:
        joined = [piece for interval in joined for piece in _cut(interval, value, text, leaves)]
    return joined


def _meet(before: Interval, after: Interval, leaves: Leaves) -> bool:
    if before.high is None or after.low is None:
        return True
    high, low = leaves.value(before.high), leaves.value(after.low)
    assert high is not None and low is not None
    return low < high or (low == high and (before.high_closed or after.low_closed))


def _join(before: Interval, after: Interval, leaves: Leaves) -> Interval:
    further = after
    if before.high is None:
        further = before
    elif after.high is not None:
        high, other = leaves.value(before.high), leaves.value(after.high)
        assert high is not None and other is not None
        further = before if high > other or (high == other and before.high_closed) else after
    return Interval(before.low, further.high, before.low_closed, further.high_closed)


def _cut(interval: Interval, value: Fraction, text: str, leaves: Leaves) -> list[Interval]:
    low = leaves.value(interval.low) if interval.low is not None else None
    high = leaves.value(interval.high) if interval.high is not None else None
    if (low is not None and value < low) or (high is not None and value > high):
        return [interval]
    if value == low:
        return [Interval(interval.low, interval.high, False, interval.high_closed)]
    if value == high:
        return [Interval(interval.low, interval.high, interval.low_closed, False)]
    return [
        Interval(interval.low, text, interval.low_closed, False),
        Interval(text, interval.high, False, interval.high_closed),
    ]


def _same_interval(gold: Interval, answer: Interval, leaves: Leaves) -> Found:
    if (gold.low is None, gold.high is None) != (answer.low is None, answer.high is None):
        return WRONG
    if (gold.low_closed, gold.high_closed) != (answer.low_closed, answer.high_closed):
        return WRONG
    ends = [(gold.low, answer.low), (gold.high, answer.high)]
    return conjunction([leaves.same(g, a) for g, a in ends if g is not None and a is not None])
