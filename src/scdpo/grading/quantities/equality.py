"""When two numbers are equal: exact, rounded, as percentages or with units.

*Exact numbers* are compared exactly, as rationals. Decimals may be inexact in three ways:
(1) a number with six or more decimals is the output of a floating-point computation; it equals
every number within 1e-6 of it, relative for numbers below 1 and absolute above, so that
3.0000000000000004 is 3 and 0.333333 is 1/3. So does, within 1e-9, a fraction whose denominator
has nine digits or more.
(2) A decimal of five or more significant digits, four or more of them decimals, that an exact
number rounds to is that number: 2.6667 is 8/3. With fewer digits (0.33 for 1/3) the pair is
undecided: it is not equal, but a wrong solution would not end in it either. A single digit (0.3
for 1/3) is wrong.
(3) A gold answer written as a decimal may be rounded: an answer with more decimals (or a
fraction) that rounds to it is correct if the gold has three significant digits or more and the
answer is a fraction or has six or more decimals, otherwise undecided.

*Percentages*: 50 % equals its value 1/2. If only one side has the sign, it also equals the bare
number 50, since a question for a percentage is answered either way. This holds only above 1 %,
where the bare number cannot be a fraction of 1; below, the pair is undecided. So is 1200 % for a
gold answer 12, which may itself be a percentage.

*Units*: words for counted things (apples, 个) do not matter, nor does a unit that only one side
has. Two measures of the same kind are converted exactly: 100 cm is 1 m, and 5 cm is not 5 m.
"""

from __future__ import annotations

from fractions import Fraction

from scdpo.grading.quantities.quantity import Quantity
from scdpo.grading.quantities.rationals import APPROXIMATE, FLOAT_DECIMALS, Number
from scdpo.records import CORRECT, WRONG, Verdict, undecided

TWO_WAYS = "the percentage can be read two ways"
ROUNDED = "equal only after rounding"
FLOAT_TOLERANCE = Fraction(1, 10**6)
ZERO_TOLERANCE = Fraction(1, 10**9)
CLOSE = Fraction(1, 10**100)
"""Roots and π are computed to 150 digits; values that agree in 100 of them are equal."""
MAX_DENOMINATOR = 10**8
"""A larger denominator is taken as that of a floating-point number written as a fraction."""
ROUNDED_DIGITS = 5
ROUNDED_DECIMALS = 4
"""Significant digits and decimals from which a rounded number equals the exact number."""


def equal_quantities(gold: Quantity, answer: Quantity) -> Verdict:
    """Compare two quantities under the policy above; the caller compares their variables."""
    first, second = gold.unit, answer.unit
    if gold.percent != answer.percent and (first.dimensions or second.dimensions):
        return WRONG  # 5 % and 5 dollars
    if not first.dimensions or not second.dimensions or first == second:
        return _numbers(gold, answer)
    if first.dimensions == second.dimensions:
        return _converted(gold, answer)
    names = {first.dimensions[0][0], second.dimensions[0][0]}
    if "angle" in names and names <= _DEGREES:
        return _numbers(gold, answer)  # degrees may be those of a temperature
    same = _numbers(gold, answer).correct
    ours, theirs = dict(first.dimensions), dict(second.dimensions)
    if ours.items() <= theirs.items() or theirs.items() <= ours.items():
        return _numbers(gold, answer)  # 60 km for 60 km/h: the rest is left out
    if ours.keys() == theirs.keys():
        return undecided("the units differ")
    return WRONG if same else undecided("the units differ")


_DEGREES = frozenset(("angle", "temperature", "fahrenheit"))


def _converted(gold: Quantity, answer: Quantity) -> Verdict:
    """Compare two measures in different units; undecided if they are equal after rounding."""
    ratio = answer.unit.scale / gold.unit.scale
    scaled = Number(answer.number.value * ratio)
    found = _numbers(gold, Quantity(scaled, answer.percent))
    if not found.wrong:
        return found
    if _rounds_about(gold.number.value / ratio, answer.number):
        return undecided(ROUNDED)
    return undecided(ROUNDED) if _rounds_about(scaled.value, gold.number) else WRONG


def _rounds_about(exact: Fraction, written: Number) -> bool:
    """Whether `exact` rounds to a number of two digits with decimals, or of three digits."""
    decimals = written.decimals
    if decimals is None or written.digits < (2 if decimals else 3):
        return False
    return abs(exact - written.value) * 2 <= Fraction(1, 10**decimals)


def _numbers(gold: Quantity, answer: Quantity) -> Verdict:
    if gold.percent == answer.percent:
        found = equal_numbers(gold.number, answer.number)
        if found.wrong and gold.percent and _rounded_percentage(gold.number, answer.number):
            return undecided(ROUNDED)
        return found
    by_value = equal_numbers(_as_share(gold), _as_share(answer))
    if by_value.correct:
        if answer.percent and abs(gold.number.value) > 1:
            return undecided(TWO_WAYS)  # 1200 % for 12, which may itself be a percentage
        return by_value
    bare = equal_numbers(gold.number, answer.number)
    if bare.correct and abs(gold.number.value) <= 1:
        return undecided(TWO_WAYS)
    return bare if not bare.wrong else by_value


def _rounded_percentage(gold: Number, answer: Number) -> bool:
    """Whether 67 % is 66.67 % rounded: a percentage needs no decimals."""
    if not gold.decimals or answer.decimals is None or answer.digits < 2:
        return False
    return abs(gold.value - answer.value) * 2 <= Fraction(1, 10**answer.decimals)


def _as_share(number: Quantity) -> Number:
    if not number.percent:
        return number.number
    decimals = number.number.decimals
    return Number(number.value, None if decimals is None else decimals + 2, number.number.digits)


def equal_numbers(gold: Number, answer: Number) -> Verdict:
    """Whether `answer` is the number `gold`, under the policy for decimals above."""
    found = _equal_numbers(gold, answer)
    if not found.wrong or abs(gold.value - answer.value) * 50 > abs(gold.value):
        return found
    return undecided(OTHER_PI) if _other_pi(gold, answer) else found


def _equal_numbers(gold: Number, answer: Number) -> Verdict:
    if gold.value == answer.value:
        return CORRECT
    if gold.decimals == answer.decimals == 0:
        return WRONG  # whole numbers have nothing to round
    distance = abs(gold.value - answer.value)
    if APPROXIMATE in (gold.digits, answer.digits) and distance < abs(gold.value) * CLOSE:
        return CORRECT
    long_answer = answer.decimals is None or answer.decimals >= FLOAT_DECIMALS
    long_gold = gold.decimals is not None and gold.decimals >= FLOAT_DECIMALS
    if long_gold or (answer.decimals is not None and long_answer):
        size = abs(gold.value)
        allowed = FLOAT_TOLERANCE * min(Fraction(1), size) if size else ZERO_TOLERANCE
        if distance <= allowed:
            return CORRECT
    if _float_fraction(answer) and distance <= FLOAT_TOLERANCE * abs(gold.value) / 1000:
        return CORRECT
    if gold.decimals and (answer.decimals is None or answer.decimals > gold.decimals):
        if distance * 2 > Fraction(1, 10**gold.decimals):
            return WRONG
        if gold.digits >= 3 and long_answer:
            return CORRECT
        return undecided(ROUNDED)
    if not rounds_to(gold.value, answer):
        return WRONG
    long = answer.digits >= ROUNDED_DIGITS and (answer.decimals or 0) >= ROUNDED_DECIMALS
    return CORRECT if gold.decimals is None and long else undecided(ROUNDED)


OTHER_PI = "equal only with another value of π"
_PI = Fraction("3.14159265358979323846264338327950288")
_OTHER_PIS = (Fraction("3.14"), Fraction(22, 7), Fraction("3.1416"), Fraction("3.142"))
"""Values that questions prescribe for π."""
LEAST_WHOLE = 1000
"""Least whole number that may be a rounded multiple of π; below, the two values of π differ by less
than a half."""
MOST_ROUNDED = 100
"""Largest denominator of what an exact number computed with 3.14 is a multiple of π by."""


def _other_pi(gold: Number, answer: Number) -> bool:
    """Whether one number is the other computed with another value of π: 12.56 and 4π."""
    for short, full in ((gold, answer), (answer, gold)):
        if not short.value or not full.value or abs(full.value / short.value - 1) * 100 > 1:
            continue  # no two values of π differ by more
        if _long(full) and not _long(short) and _computed_with_short_pi(short.value, full.value):
            return True
        if _long(full) and _of_short_pi(short) and abs(full.value / short.value - 1) * 500 <= 1:
            return True
        if short.decimals is None or abs(full.value / short.value - 1) * 500 > 1:
            continue
        if full.decimals == 0 and full.value < LEAST_WHOLE:
            continue
        for pi in _OTHER_PIS:
            factor = short.value / pi
            if not short.decimals and factor.denominator > MOST_ROUNDED:
                continue
            if pi != _OTHER_PIS[0] and (not full.decimals or factor.denominator > 2):
                continue
            if _within(factor * _PI, full, Fraction(short.decimals and 1, 10**short.decimals)):
                return True
    return False


def _long(number: Number) -> bool:
    """Whether a number is a root, a multiple of π or the output of a computation."""
    if number.digits == APPROXIMATE:
        return True
    return number.decimals is not None and number.decimals >= FLOAT_DECIMALS


def _of_short_pi(number: Number) -> bool:
    """Whether a decimal is a whole or decimal multiple of 3.14; so are few other numbers."""
    if number.decimals is None or _long(number):
        return False
    return 10**4 % (number.value / _OTHER_PIS[0]).denominator == 0


def _computed_with_short_pi(short: Fraction, full: Fraction) -> bool:
    """Whether numbers are a + 3.14 b and a + πb with a short b, or differ by a power of π/3.14."""
    ratio = _PI / _OTHER_PIS[0]
    if any(
        abs(short * ratio**power / full - 1) < FLOAT_TOLERANCE / 1000 for power in (-2, -1, 1, 2)
    ):
        return True
    factor = (full - short) / (_PI - _OTHER_PIS[0]) * MOST_ROUNDED
    return factor.limit_denominator(1) != 0 and abs(factor - round(factor)) < Fraction(1, 1000)


def _within(exact: Fraction, written: Number, unit: Fraction) -> bool:
    """Whether a number is `exact`, up to its own rounding and half a `unit` of the other's."""
    own = Fraction(0)
    if written.decimals is not None and written.decimals < FLOAT_DECIMALS:
        own = Fraction(1, 10**written.decimals)
    return abs(exact - written.value) <= (unit + own) / 2 + abs(exact) * FLOAT_TOLERANCE


def _float_fraction(number: Number) -> bool:
    """Whether a fraction is a float in disguise: `476571389139735/846830699163683`."""
    written = number.decimals is None and number.digits != APPROXIMATE
    return written and MAX_DENOMINATOR < number.value.denominator < MAX_DENOMINATOR**2 * 10**4


def rounds_to(exact: Fraction, written: Number) -> bool:
    """Whether `exact` rounds to the decimal `written`, which needs two digits or more."""
    if not written.decimals or written.digits < 2:
        return False
    return abs(exact - written.value) * 2 <= Fraction(1, 10**written.decimals)
