"""Formulas evaluated at a point, with fifty digits and every size bounded."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from scdpo.grading.formulas.tree import Node, variables

DIGITS = 50
CONSTANT_DIGITS = 160
"""Digits for formulas without variables, where small differences matter."""
MAX_MAGNITUDE = 20_000
"""Largest binary exponent of an intermediate value; beyond it a formula has no value."""
Value = Any  # an mpmath number


class NoValueError(ValueError):
    """The formula has no finite value at the point."""


_contexts = threading.local()


def precise(digits: int = DIGITS) -> Any:
    """This thread's mpmath context with that many digits; contexts are not thread-safe."""
    context = getattr(_contexts, f"of_{digits}", None)
    if context is None:
        from mpmath import MPContext

        context = MPContext()
        context.dps = digits
        setattr(_contexts, f"of_{digits}", context)
    return context


def evaluate(
    node: Node,
    point: Mapping[str, Value],
    *,
    degree: Value | None = None,
    base_ten: bool = False,
    digits: int = DIGITS,
) -> Value:
    """The value of a formula, as an mpmath number of `digits` digits.

    `point` gives the variables' values, `degree` what a degree sign multiplies by (None: π/180);
    `base_ten` reads `log` without a base as the decimal logarithm. Raises NoValueError.
    """
    mp = precise(digits)
    turn = mp.pi / 180 if degree is None else degree
    try:
        return _value(node, point, turn, base_ten, mp)
    except (ValueError, ArithmeticError, KeyError, TypeError, NotImplementedError) as error:
        raise NoValueError(str(error)) from error


def _bounded(value: Value, mp: Any) -> Value:
    if mp.isnan(value) or mp.isinf(value):
        raise NoValueError("not finite")
    for part in (value.real, value.imag):
        if part and abs(mp.frexp(part)[1]) > MAX_MAGNITUDE:
            raise NoValueError("too large")
    return value


def _value(node: Node, point: Mapping[str, Value], turn: Value, ten: bool, mp: Any) -> Value:
    def of(inner: Node) -> Value:
        return _value(inner, point, turn, ten, mp)

    match node.op:
        case "number":
            value = mp.mpf(node.value.numerator) / node.value.denominator
        case "variable":
            value = point[node.name]
        case "degree":
            value = turn
        case "constant":
            constants = {"pi": +mp.pi, "e": +mp.e, "i": mp.mpc(0, 1)}
            value = constants[node.name]
        case "add":
            value = of(node.args[0]) + of(node.args[1])
        case "negate":
            value = -of(node.args[0])
        case "multiply":
            value = of(node.args[0]) * of(node.args[1])
        case "divide":
            value = of(node.args[0]) / of(node.args[1])
        case "power":
            value = _power(of(node.args[0]), of(node.args[1]), node.args[1], mp)
        case _:
            value = _call(node.name, [of(argument) for argument in node.args], ten, mp)
    return _bounded(mp.mpmathify(value), mp)


def _power(base: Value, exponent: Value, written: Node, mp: Any) -> Value:
    if abs(exponent) > MAX_MAGNITUDE:
        raise NoValueError("too large")
    if base and abs(mp.log(abs(base)) * abs(exponent)) > MAX_MAGNITUDE:
        raise NoValueError("too large")
    odd = written.op == "divide" and written.args[1].op == "number" and _odd(written)
    if odd and not base.imag and base.real < 0:  # the real cube root, as taught in schools
        return -((-base) ** exponent) if written.args[0].value % 2 else (-base) ** exponent
    return base**exponent


def _odd(fraction: Node) -> bool:
    over, under = fraction.args
    if over.op != "number" or over.value.denominator != 1 or under.value.denominator != 1:
        return False
    return under.value.numerator % 2 == 1


def _call(name: str, a: Sequence[Value], ten: bool, mp: Any) -> Value:
    real = not any(value.imag for value in a)
    match name:
        case "ln":
            return mp.log(a[0])
        case "lg":
            return mp.log(a[0]) / mp.log(10)
        case "log":
            base = a[1] if len(a) > 1 else mp.mpf(10) if ten else mp.e
            return mp.log(a[0]) / mp.log(base)
        case "factorial":
            if abs(a[0]) > 2_000 or not real:
                raise NoValueError("too large")
            return mp.factorial(a[0])
        case "Gamma" | "zeta":
            if abs(a[0]) > 2_000 or not real:
                raise NoValueError("too large")
            return mp.gamma(a[0]) if name == "Gamma" else mp.zeta(a[0])
        case "double factorial":
            if abs(a[0]) > 2_000 or not real:
                raise NoValueError("too large")
            return mp.fac2(a[0])
        case "binomial":
            if max(abs(a[0]), abs(a[1])) > 10_000 or not real:
                raise NoValueError("too large")
            return mp.binomial(a[0], a[1])
        case "sqrt" | "cbrt":
            return _power(a[0], mp.mpf(1) / (2 if name == "sqrt" else 3), _CUBE[name], mp)
        case "abs":
            return abs(a[0])
        case "arg":
            return mp.arg(a[0])
        case "Re" | "Im":
            return a[0].real if name == "Re" else a[0].imag
        case "cis":
            return mp.expj(a[0])
        case "floor" | "ceil" | "max" | "min" | "sgn" | "gcd" | "lcm" if not real:
            raise NoValueError("not real")
        case "floor" | "ceil" | "sgn":
            function = {"floor": mp.floor, "ceil": mp.ceil, "sgn": mp.sign}[name]
            return function(a[0].real)
        case "max" | "min":
            values = [value.real for value in a]
            return max(values) if name == "max" else min(values)
        case "gcd" | "lcm":
            return _divisors(name, a, mp)
        case "arccot":
            return mp.acot(a[0])
    names = {"arcsin": "asin", "arccos": "acos", "arctan": "atan"}
    return getattr(mp, names.get(name, name))(a[0])


def _divisors(name: str, values: Sequence[Value], mp: Any) -> Value:
    if any(value != mp.nint(value) for value in values):
        raise NoValueError("not whole")
    whole = [int(value.real) for value in values]
    return mp.mpf(math.gcd(*whole) if name == "gcd" else math.lcm(*whole))


_CUBE = {
    "sqrt": Node("number"),
    "cbrt": Node("divide", (Node("number", value=Fraction(1)), Node("number", value=Fraction(3)))),
}


def real_constant(node: Node, **how: Any) -> Fraction | None:
    """The value of a formula without variables, to some forty digits; None if it is not real."""
    if variables(node):
        return None
    try:
        value = evaluate(node, {}, digits=CONSTANT_DIGITS, **how)
    except NoValueError:
        return None
    if abs(value.imag) > 1e-30:
        return None
    sign, mantissa, exponent, _ = value.real._mpf_
    whole = -int(mantissa) if sign else int(mantissa)
    return Fraction(whole) * Fraction(2) ** int(exponent)


def substituted(node: Node, name: str, value: int) -> Node:
    """A tree with a number in place of a variable."""
    if node.op == "variable":
        return Node("number", value=Fraction(value)) if node.name == name else node
    arguments = tuple(substituted(argument, name, value) for argument in node.args)
    return Node(node.op, arguments, node.value, node.name)


def real_throughout(node: Node, point: Mapping[str, Value]) -> bool:
    """Whether the roots and logarithms within a formula are real, so that √a·√b is √(ab)."""
    for inner in node.args:
        if not real_throughout(inner, point):
            return False
    if node.op not in ("power", "call"):
        return True
    try:
        return not evaluate(node, point).imag
    except NoValueError:
        return True


MAX_EXACT_BITS = 60_000


def exact(node: Node) -> Fraction | None:
    """The rational value of a constant formula of integer powers, factorials and binomials.

    None if it has roots, functions or variables, or if an intermediate number is too large.
    """
    try:
        return _exact(node)
    except (_InexactError, ZeroDivisionError, OverflowError):
        return None


class _InexactError(ValueError):
    """The formula has no exact rational value, or its value is too large."""


def _exact(node: Node) -> Fraction:
    if node.op == "number":
        return node.value
    if node.op not in ("add", "negate", "multiply", "divide", "power", "call"):
        raise _InexactError
    a = [_exact(inner) for inner in node.args]
    match node.op:
        case "add":
            value = a[0] + a[1]
        case "negate":
            value = -a[0]
        case "multiply":
            value = a[0] * a[1]
        case "divide":
            value = a[0] / a[1]
        case "power":
            value = _whole_power(a[0], a[1])
        case _:
            value = _whole_function(node.name, a)
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_EXACT_BITS:
        raise _InexactError
    return value


def _whole_power(base: Fraction, exponent: Fraction) -> Fraction:
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if exponent.denominator != 1 or abs(exponent) * bits > MAX_EXACT_BITS:
        raise _InexactError
    return base ** int(exponent)


def _whole_function(name: str, a: Sequence[Fraction]) -> Fraction:
    if any(argument.denominator != 1 or not 0 <= argument <= 5_000 for argument in a):
        raise _InexactError
    if name == "factorial":
        return Fraction(math.factorial(int(a[0])))
    if name == "binomial":
        return Fraction(math.comb(int(a[0]), int(a[1])))
    raise _InexactError
