"""Sets of real numbers: intervals, unions, inequalities, set-builders."""

from __future__ import annotations

import re
from collections.abc import Sequence

from scdpo.grading.quantities.rationals import rational
from scdpo.grading.reading.naming import NAME
from scdpo.grading.reading.parts import Interval, Items, Leaf, Named, Part, Read, Reals, Relation
from scdpo.grading.text.brackets import outside, split

MAX_PARTS = 40
"""Most items of a list; longer lists are compared as text only."""


def union(sets: Sequence[Reals]) -> Reals:
    """The union of sets; its name is the variable that they share."""
    names = {part.name for part in sets if part.name}
    points = tuple(point for part in sets for point in part.without)
    intervals = tuple(interval for part in sets for interval in part.intervals)
    return Reals(intervals, points, names.pop() if len(names) == 1 else "")


def as_reals(part: Part) -> Part:
    """`(a, b)` and `[a, b]` as an interval, where nothing else can be meant."""
    if not isinstance(part, Items) or part.kind not in ("tuple", "bracket"):
        return part
    ends = [item.text for item in part.items if isinstance(item, Leaf)]
    if len(ends) != 2 or len(part.items) != 2:
        return part
    closed = part.kind == "bracket"
    return Reals((interval(ends[0], ends[1], closed, closed),))


def interval(low: str, high: str, low_closed: bool, high_closed: bool) -> Interval:
    """An interval between two canonical texts, which may be infinite."""
    low, high = low.strip(), high.strip()
    no_low = re.fullmatch(r"-\s*\\infty", low) is not None
    no_high = re.fullmatch(r"\+?\s*\\infty", high) is not None
    return Interval(
        None if no_low else low,
        None if no_high else high,
        low_closed and not no_low,
        high_closed and not no_high,
    )


def _outside(hole: Reals) -> Part | None:
    """All reals without an interval."""
    if len(hole.intervals) != 1 or hole.without:
        return None
    removed = hole.intervals[0]
    below = [Interval(None, removed.low, False, not removed.low_closed)] if removed.low else []
    above = [Interval(removed.high, None, not removed.high_closed)] if removed.high else []
    return Reals((*below, *above))


def points_in(part: Part) -> list[str] | None:
    """The texts of a part that consists of leaves alone."""
    items = part.items if isinstance(part, Items) else (part,)
    texts = [item.text for item in items if isinstance(item, Leaf)]
    return texts if len(texts) == len(items) else None


_IN = re.compile(r"∈")


def membership(text: str, read: Read) -> Part | None:
    """`x ∈ (0, 1]` as a set of reals with a name, `x ∈ {1, 2}` as named values."""
    pieces = split(text, _IN)
    if len(pieces) != 2 or not NAME.fullmatch(pieces[0].strip()):
        return None
    inner = as_reals(read(pieces[1]))
    if isinstance(inner, Reals):
        return Reals(inner.intervals, inner.without, pieces[0].strip())
    if isinstance(inner, Items):
        return Items("list", tuple(Named(pieces[0].strip(), item) for item in inner.items))
    return None


_JOINS = re.compile(r"∪|(?<=[\])]) ?U ?(?=[\[(])|(?<=[\])]) ?∪ ?(?=[\[(])")
_LESS = re.compile(r"∖|\\(?=\s*⦃)")


def reals(text: str, read: Read) -> Part | None:
    """⟦R⟧, unions of intervals and differences with single points."""
    if text in ("⟦R⟧", "R"):
        return Reals((Interval(None, None),)) if text != "R" else None
    pieces = split(text, _LESS)
    if len(pieces) == 2:
        base = as_reals(read(pieces[0]))
        taken = read(pieces[1])
        points = None if isinstance(as_reals(taken), Reals) else points_in(taken)
        if isinstance(base, Reals) and points is not None:
            return Reals(base.intervals, (*base.without, *points), base.name)
        hole = as_reals(taken)
        everything = Reals((Interval(None, None),))
        return _outside(hole) if base == everything and isinstance(hole, Reals) else None
    pieces = split(text, _JOINS)
    if not 2 <= len(pieces) <= MAX_PARTS:
        return None
    parts = [as_reals(read(piece)) for piece in pieces]
    if not any(isinstance(part, Reals) for part in parts):
        return _finite_union(parts)
    sets: list[Reals] = []
    for part in parts:
        if isinstance(part, Reals):
            sets.append(part)
        elif (points := points_in(part)) is not None:
            sets.append(Reals(tuple(Interval(p, p, True, True) for p in points)))
        else:
            return None
    return union(sets)


def _finite_union(parts: Sequence[Part]) -> Part | None:
    """`{1, 2} ∪ {3}` as one set; None unless all parts are sets of values."""
    values: list[Part] = []
    for part in parts:
        if not isinstance(part, Items) or part.kind != "set":
            return None
        values += part.items
    return Items("set", tuple(dict.fromkeys(values)))


_EXCEPT = re.compile(
    r"(?:all )?(?:real numbers?|reals|real values)(?: \w| of \w)? "
    r"(?:except|other than|not equal to|but)(?: for)? (.+)"
    r"|(?:全体|任意|所有|一切)?(?:不等于|不为)(.+?)的(?:全体|任意|所有|一切)?实数"
)


def excepted(text: str, read: Read) -> Part | None:
    """All real numbers except −1 and 3."""
    match = _EXCEPT.fullmatch(re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text).strip())
    if match is None:
        return None
    points = points_in(read(match.group(1) or match.group(2)))
    return None if points is None else Reals((Interval(None, None),), tuple(points))


def built(condition: str, read: Read, whole: bool) -> Part | None:
    """The set that a set-builder's condition describes: reals, values or a family."""
    part = read(condition)
    named = part.items if isinstance(part, Items) else ()
    if len({item.name for item in named if isinstance(item, Named)}) > 1:
        return None  # {x : x = 2n, n ∈ {1, 2}}
    if whole and isinstance(part, Reals):
        return integers(part)
    return part if not isinstance(part, Leaf) else None


def integers(reals: Reals) -> Part | None:
    """The integers of a short interval as a set."""
    if len(reals.intervals) != 1 or reals.without:
        return None
    bounds = reals.intervals[0]
    ends = [re.sub(r"[() ]", "", end or "") for end in (bounds.low, bounds.high)]
    if not all(re.fullmatch(r"-?\d{1,6}", end) for end in ends):
        return None
    low = int(ends[0]) + (not bounds.low_closed)
    high = int(ends[1]) - (not bounds.high_closed)
    if high - low >= MAX_PARTS:
        return None
    return Items("set", tuple(Leaf(str(value)) for value in range(low, high + 1)))


def _empty(low: Interval, high: Interval) -> bool:
    """Whether nothing is above `low` and below `high`, as far as their ends are plain numbers."""
    ends = [rational(end or "") for end in (low.low, high.high)]
    return ends[0] is not None and ends[1] is not None and ends[0].value > ends[1].value


def intersection(parts: Sequence[Reals]) -> Part:
    """`x > 1, x < 3`: half-lines that meet are an interval; excluded points are merged."""
    without = tuple(point for part in parts for point in part.without)
    lows = [i for part in parts for i in part.intervals if i.low is not None]
    highs = [i for part in parts for i in part.intervals if i.high is not None]
    simple = all(len(part.intervals) == 1 for part in parts)
    if not simple or len(lows) > 1 or len(highs) > 1:
        return Items("list", tuple(parts))
    if lows and highs and _empty(lows[0], highs[0]):
        return union(parts)  # x < 2, x > 3: either
    low = lows[0] if lows else Interval(None, None)
    high = highs[0] if highs else Interval(None, None)
    both = Interval(low.low, high.high, low.low_closed, high.high_closed)
    return Reals((both,), without, parts[0].name)


_SIGNS = re.compile(r"[<>≤≥≠]")
_ABSOLUTE = re.compile(r"\|\s*([A-Za-z])\s*\|")


def related(text: str, read: Read) -> Part | None:
    """Inequalities: a set of reals if a side is a variable alone, otherwise a relation."""
    sides = [side.strip() for side in split(text, _SIGNS)]
    if len(sides) < 2 or not all(sides):
        return None
    signs = _SIGNS.findall(outside(text))
    if len(signs) > 1 and all(sign in ">≥" for sign in signs):
        sides, signs = sides[::-1], [{">": "<", "≥": "≤"}[sign] for sign in signs[::-1]]
    names = [at for at, side in enumerate(sides) if _is_variable(side)]
    if len(sides) == 2:
        found = _half_line(sides, signs[0], names)
        if found is not None:
            return found
        left, right = sides if signs[0] in "<≤≠" else sides[::-1]
        return Relation(left, {">": "<", "≥": "≤"}.get(signs[0], signs[0]), right)
    if len(sides) == 3 and (modulus := _ABSOLUTE.fullmatch(sides[1])) and set(signs) <= {"<", "≤"}:
        low, high = sides[0], sides[2]
        closed = [sign == "≤" for sign in signs]
        above = Interval(low, high, *closed)
        below = Interval(f"-({high})", f"-({low})", *closed[::-1])
        return Reals((below, above), name=modulus.group(1))
    if len(sides) == 3 and _is_variable(sides[1]) and "≠" not in signs:
        up = all(sign in "<≤" for sign in signs)
        down = all(sign in ">≥" for sign in signs)
        if up or down:
            low, high = (sides[0], sides[2]) if up else (sides[2], sides[0])
            first, second = signs if up else signs[::-1]
            between = interval(low, high, first in "≤≥", second in "≤≥")
            return Reals((between,), name=sides[1])
    parts = [related(f"{sides[at]}{signs[at]}{sides[at + 1]}", read) for at in range(len(signs))]
    return Items("tuple", tuple(part for part in parts if part is not None))


def _is_variable(text: str) -> bool:
    if text in ("e", "i", "\\pi", "\\infty", "pi"):
        return False
    return (
        re.fullmatch(r"(?:[A-Za-z]|\\[a-z]+)(?:_\{?\w+\}?)?(?:\([a-z](?: ?, ?[a-z])*\))?", text)
        is not None
    )


def _half_line(sides: list[str], sign: str, names: list[int]) -> Part | None:
    between = len(names) == 2 and (len(sides[1]) == 1 or "(" in "".join(sides))  # f(a) > f(b)
    if not names or (between and sign != "≠"):
        if not names and (absolute := _ABSOLUTE.fullmatch(sides[0])) is not None:
            return _absolute(absolute.group(1), sign, sides[1])
        return None
    name, bound = sides[names[0]], sides[1 - names[0]]
    if re.search(rf"(?<![A-Za-z\\]){re.escape(name)}(?![A-Za-z])", bound):
        return None
    if sign == "≠":
        return Reals((Interval(None, None),), (bound,), name)
    upper = (sign in "<≤") == (names[0] == 0)
    closed = sign in "≤≥"
    if upper:
        return Reals((interval("-\\infty", bound, False, closed),), name=name)
    return Reals((interval(bound, "\\infty", closed, False),), name=name)


def _absolute(name: str, sign: str, bound: str) -> Part | None:
    closed = sign in "≤≥"
    if sign in "<≤":
        return Reals((Interval(f"-({bound})", bound, closed, closed),), name=name)
    if sign in ">≥":
        below, above = Interval(None, f"-({bound})", False, closed), Interval(bound, None, closed)
        return Reals((below, above), name=name)
    return None
