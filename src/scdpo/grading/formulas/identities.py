"""Formulas that are the same function, the same equation, the same inequality.

Two formulas that agree in thirty digits at several random points are the same function; constants
are compared once, in more digits. This decides in microseconds what a computer algebra system
proves by rewriting, and it always returns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from scdpo.grading.formulas.evaluation import (
    CONSTANT_DIGITS,
    NoValueError,
    Value,
    evaluate,
    exact,
    precise,
    real_constant,
    real_throughout,
    substituted,
)
from scdpo.grading.formulas.tree import FLOAT, Node, uses, variables

AGREE = 30
"""Digits in which two values must agree."""
AGREE_CONSTANTS = 120
AGREE_FLOATS = 6
"""Digits for formulas with decimals that are the output of a floating-point computation."""
INTEGER_NAMES = frozenset("n k m N K M j".split())
"""Letters that stand for integers if a formula makes sense only for integers."""


def same_value(first: Value, second: Value, digits: int = AGREE) -> bool:
    """Whether two values agree in `digits` digits, relative to the larger.

    Near zero the scale is 1: rounding leaves sin π at 1e-160, but 1e-600 is a different number.
    """
    mp = precise(CONSTANT_DIGITS)
    larger = max(abs(first), abs(second))
    smaller = min(abs(first), abs(second))
    noise = mp.mpf(10) ** -(digits + 5)
    if not smaller and larger < noise:
        return bool(larger >= noise**2) or not larger
    size = max(larger, noise) if smaller and smaller > noise else larger
    return bool(abs(first - second) <= size * mp.mpf(10) ** -digits) or (
        larger < noise and larger > noise**2
    )


def _draw(names: Iterable[str], trial: int, low: Fraction, high: Fraction) -> dict[str, Value]:
    """Values for variables, the same for the same name and trial on every machine."""
    mp = precise()
    point = {}
    for name in names:
        digest = hashlib.sha256(f"{name}/{trial}".encode()).digest()
        share = Fraction(int.from_bytes(digest[:16], "big"), 1 << 128)
        value = low + (high - low) * share
        point[name] = mp.mpf(value.numerator) / value.denominator
    return point


_RANGES = (
    *((Fraction(1, 5), Fraction(3)),) * 2,
    *((Fraction(1, 20), Fraction(19, 20)),) * 2,
    *((Fraction(3), Fraction(9)),) * 1,
    *((Fraction(-5, 2), Fraction(5, 2)),) * 3,
    *((Fraction(-60), Fraction(-7)), (Fraction(-200), Fraction(-70)), (Fraction(40), Fraction(90))),
)


def points(names: Iterable[str]) -> list[dict[str, Value]]:
    """The points at which functions of these variables are compared."""
    names = sorted(names)
    if not names:
        return [{}]
    return [_draw(names, trial, *limits) for trial, limits in enumerate(_RANGES)]


def readings(*nodes: Node) -> list[dict[str, Any]]:
    """The ways to read degree signs, and logarithms without a base, in some formulas."""
    options: list[dict[str, Any]] = [{}]
    if any(uses(node, "degree") for node in nodes):
        options = [{}, {"degree": precise().mpf(1)}]
    if any(uses(node, "log") for node in nodes):
        options = [{**option, "base_ten": ten} for option in options for ten in (False, True)]
    return options


def equal(first: Node, second: Node) -> bool | None:
    """Whether two formulas are the same function; None if they have no values to compare."""
    verdicts = [_equal_read(first, second, how) for how in readings(first, second)]
    return True if True in verdicts else False if False in verdicts else None


def _equal_read(first: Node, second: Node, how: Mapping[str, Any]) -> bool | None:
    names = variables(first) | variables(second)
    if not names:
        return _same_constant(first, second, how)
    digits = AGREE_FLOATS if uses(first, FLOAT) or uses(second, FLOAT) else AGREE
    found = _agree(first, second, points(names), how, digits)
    if found is not False and any(uses(node, *_WITH_CORNERS) for node in (first, second)):
        corners = [*around_corners(first, names), *around_corners(second, names)]
        if corners and _agree(first, second, corners, how, digits) is False:
            return False
    if found is not False or not names <= INTEGER_NAMES:
        return found
    if not any(_alternates(node) for node in (first, second)):
        return found
    mp = precise()
    whole = [
        {name: mp.mpf(value + 3 * at) for at, name in enumerate(sorted(names))}
        for value in (1, 2, 3, 4, 5, 6, 9, 14, 37, 64, 101)
    ]
    return _agree(first, second, whole, how, digits, whole=True)


def _same_constant(first: Node, second: Node, how: Mapping[str, Any]) -> bool | None:
    ours, theirs = exact(first), exact(second)
    if ours is not None and theirs is not None and not how:
        return ours == theirs
    values = []
    for node in (first, second):
        try:
            values.append(evaluate(node, {}, digits=CONSTANT_DIGITS, **how))
        except NoValueError:
            continue
    if len(values) < 2:
        return False if values else None
    floats = uses(first, FLOAT) or uses(second, FLOAT)
    return same_value(values[0], values[1], AGREE_FLOATS if floats else AGREE_CONSTANTS)


def _alternates(node: Node) -> bool:
    """Whether a formula may make sense for integers only: (−1)^n, cos nπ, floors."""
    if node.op == "power" and node.args[0].op in ("negate",) and variables(node.args[1]):
        return True
    if node.op == "call" and node.name in (
        "floor",
        "ceil",
        "sin",
        "cos",
        "tan",
        "double factorial",
    ):
        return bool(variables(node))
    return any(_alternates(inner) for inner in node.args)


def _agree(
    first: Node,
    second: Node,
    at: Sequence[Mapping[str, Value]],
    how: Mapping[str, Any],
    digits: int,
    whole: bool = False,
) -> bool | None:
    """Whether values agree wherever both are real, or everywhere if they never are."""
    real: list[bool] = []
    other: list[bool] = []
    for point in at:
        try:
            values = [evaluate(node, point, **how) for node in (first, second)]
        except NoValueError:
            continue
        if whole:  # sin nπ is zero only up to rounding
            values = [value if abs(value) > 1e-40 else value * 0 for value in values]
        same = same_value(values[0], values[1], digits)
        is_real = not any(abs(value.imag) > 1e-30 for value in values)
        if is_real and not same:  # roots of negative numbers within a formula prove nothing
            is_real = real_throughout(first, point) and real_throughout(second, point)
        (real if is_real else other).append(same)
        if is_real and not same:
            return False
    if len(real) < 2:
        real += other
    return None if len(real) < 2 else all(real)


_WITH_CORNERS = ("abs", "max", "min", "sgn", "sqrt", "power")
_STARTS = ("0.7", "-20", "90", "-700", "4000")


def around_corners(node: Node, names: Iterable[str]) -> list[dict[str, Value]]:
    """Points on both sides of where the formula's absolute values and even roots have corners.

    The corner of |180 − x| is at 180, which no fixed choice of points would surround.
    """
    mp = precise()
    found: list[dict[str, Value]] = []
    for inner in _cornered(node)[:6]:
        for name in sorted(variables(inner) & frozenset(names)):
            point = dict(points(names)[1])
            roots = [_linear_root(inner, point, name)]
            if roots[0] is None:
                roots = [_root(inner, point, name, mp.mpf(start)) for start in _STARTS]
            for root in roots:
                if root is None or abs(root.imag) > 1e-9:
                    continue
                width = max(abs(root.real) / 8, mp.mpf(1))
                found += [{**point, name: root.real + side * width} for side in (-1, 1)]
                found += [{**point, name: root.real + side * width / 40} for side in (-1, 1)]
    return found


def _cornered(node: Node) -> list[Node]:
    """The formulas within a formula at whose zeros it may have a corner."""
    found: list[Node] = []
    if node.op == "call" and node.name in ("abs", "sgn"):
        found.append(node.args[0])
    elif node.op == "call" and node.name in ("max", "min"):
        pairs = zip(node.args, node.args[1:], strict=False)
        found += [Node("add", (a, Node("negate", (b,)))) for a, b in pairs]
    elif node.op == "power" or (node.op == "call" and node.name == "sqrt"):
        base = node.args[0]
        root = node.op == "call" or node.args[1].op == "divide"
        if root and base.op == "power":
            found.append(base.args[0])
        elif root:
            found.append(base)
    for inner in node.args:
        found += _cornered(inner)
    return found


def _linear_root(node: Node, point: Mapping[str, Value], name: str) -> Value | None:
    """Where a formula that is linear in a variable vanishes; None if it is not linear."""
    mp = precise()
    try:
        at = [evaluate(node, {**point, name: mp.mpf(value)}) for value in (0, 1, 2)]
    except NoValueError:
        return None
    slope = at[1] - at[0]
    if not slope or abs(at[2] - at[1] - slope) > abs(slope) * mp.mpf(10) ** -25:
        return None
    return -at[0] / slope


def differ_by_constant(first: Node, second: Node, constants: Iterable[str]) -> bool:
    """Whether f − g is the same at all points when the named constants are zero."""
    mp = precise()
    zero = {name: mp.mpf(0) for name in constants}
    names = (variables(first) | variables(second)) - set(constants)
    if not names:
        return False
    found = []
    for point in points(names)[:5]:
        try:
            at = {**point, **zero}
            found.append(evaluate(first, at) - evaluate(second, at))
        except NoValueError:
            continue
    return len(found) >= 2 and all(
        abs(difference - found[0]) < mp.mpf(10) ** -25 for difference in found
    )


def same_equation(first: Node, second: Node) -> bool | None:
    """Whether f = 0 and g = 0 have the same solutions; None if that cannot be decided.

    Proportional formulas give the same equation. Otherwise each is solved numerically for each of
    its variables at random points, and the other has to vanish there too.
    """
    names = variables(first) | variables(second)
    if not names or variables(first) != variables(second):
        return False
    ratios = []
    for point in points(names)[:5]:
        try:
            over, under = evaluate(first, point), evaluate(second, point)
            if abs(under) > 1e-25 and abs(over) > 1e-25:
                ratios.append(over / under)
        except NoValueError:
            continue
    if len(ratios) >= 3 and all(same_value(ratio, ratios[0], 20) for ratio in ratios):
        return True
    found = [_vanishes_too(first, second, names), _vanishes_too(second, first, names)]
    return None if None in found else all(found)


def _vanishes_too(solved: Node, other: Node, names: Iterable[str]) -> bool | None:
    mp = precise()
    tried = 0
    for trial, name in enumerate(sorted(names)):
        point = dict(points(names)[trial % 3])
        for start in (mp.mpf("0.7"), mp.mpf("-1.3"), mp.mpc("0.5", "1.1"), mp.mpc(-2, "0.7")):
            root = _root(solved, point, name, start)
            if root is None:
                continue
            tried += 1
            try:
                rest = evaluate(other, {**point, name: root})
            except NoValueError:
                return False
            if abs(rest) > 1e-12:
                return False
    return True if tried else None


def _root(node: Node, point: Mapping[str, Value], name: str, start: Value) -> Value | None:
    """A solution for a variable, found by the secant method, or None."""
    mp = precise()
    before, here = start, start + mp.mpf("0.01")
    try:
        f_before = evaluate(node, {**point, name: before})
        for _ in range(60):
            f_here = evaluate(node, {**point, name: here})
            if abs(f_here) < mp.mpf(10) ** -35:
                return here
            if f_here == f_before:
                return None
            before, f_before, here = (
                here,
                f_here,
                here - f_here * (here - before) / (f_here - f_before),
            )
    except NoValueError:
        return None
    return None


def positive_ratio(first: Node, second: Node) -> bool | None:
    """Whether f = c g with a constant c > 0, so that f > 0 and g > 0 are equivalent."""
    names = variables(first) | variables(second)
    ratios = []
    for point in points(names)[:5]:
        try:
            ratios.append(evaluate(first, point) / evaluate(second, point))
        except (NoValueError, ZeroDivisionError):
            continue
    if len(ratios) < min(2, len(points(names))):
        return None
    if not all(same_value(ratio, ratios[0], 20) for ratio in ratios):
        return False
    return bool(ratios[0].real > 0 and abs(ratios[0].imag) < 1e-20)


def line(node: Node) -> tuple[str, Fraction, Fraction] | None:
    """The variable, slope and root of a formula that is linear in its only variable, or None."""
    names = variables(node)
    if len(names) != 1:
        return None
    (name,) = names
    values = [real_constant(substituted(node, name, at)) for at in range(4)]
    if any(value is None for value in values):
        return None
    a, b, c, d = (value for value in values if value is not None)
    slope = b - a
    if abs(slope) < Fraction(1, 10**20) or max(abs(c - b - slope), abs(d - c - slope)) > Fraction(
        1, 10**25
    ):
        return None
    return name, slope, -a / slope


def parabola(node: Node) -> tuple[str, bool, str, str] | None:
    """The variable, whether it opens upward, and the two roots of a formula that is quadratic in
    its only variable. The roots are decimals of thirty digits; None without two real roots."""
    names = variables(node)
    if len(names) != 1:
        return None
    (name,) = names
    values = [real_constant(substituted(node, name, at)) for at in range(5)]
    known = [value for value in values if value is not None]
    if len(known) < 5:
        return None
    a = (known[2] - 2 * known[1] + known[0]) / 2
    b = known[1] - known[0] - a
    small = Fraction(1, 10**20)
    if abs(a) < small or any(
        abs(a * at * at + b * at + known[0] - known[at]) > small for at in (3, 4)
    ):
        return None
    mp = precise()
    square = b * b - 4 * a * known[0]
    if square <= small:
        return None
    root = mp.sqrt(mp.mpf(square.numerator) / square.denominator)
    ends = sorted((-_float(b) + sign * root) / (2 * _float(a)) for sign in (-1, 1))
    low, high = (mp.nstr(end, 30, min_fixed=-40, max_fixed=40) for end in ends)
    return name, a > 0, low, high


def _float(value: Fraction) -> Value:
    return precise().mpf(value.numerator) / value.denominator
