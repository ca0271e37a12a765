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
    if not first.dimensions or not second.dimensions or first == second:
        return _numbers(gold, answer)
    if first.dimensions == second.dimensions:
        scaled = Number(answer.number.value * second.scale / first.scale)
        return _numbers(gold, Quantity(scaled, answer.percent))
    same = _numbers(gold, answer).correct
    names, others = dict(first.dimensions), dict(second.dimensions)
    if names.items() <= others.items() or others.items() <= names.items():
        return _numbers(gold, answer)  # 60 km for 60 km/h: the rest is left out
    if names.keys() == others.keys():
        return undecided("the units differ")
    return WRONG if same else undecided("the units differ")


def _numbers(gold: Quantity, answer: Quantity) -> Verdict:
    if gold.percent == answer.percent:
        return equal_numbers(gold.number, answer.number)
    by_value = equal_numbers(_as_share(gold), _as_share(answer))
    if by_value.correct:
        if answer.percent and abs(gold.number.value) > 1:
            return undecided(TWO_WAYS)  # 1200 % for 12, which may itself be a percentage
        return by_value
    bare = equal_numbers(gold.number, answer.number)
    if bare.correct and abs(gold.number.value) <= 1:
        return undecided(TWO_WAYS)
    return bare if not bare.wrong else by_value


def _as_share(number: Quantity) -> Number:
    if not number.percent:
        return number.number
    decimals = number.number.decimals
    return Number(number.value, None if decimals is None else decimals + 2, number.number.digits)


def equal_numbers(gold: Number, answer: Number) -> Verdict:
    """Whether `answer` is the number `gold`, under the policy for decimals above."""
    if gold.value == answer.value:
        return CORRECT
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
    if gold.decimals is not None and (answer.decimals or 0) < 2:
        return WRONG
    long = answer.digits >= ROUNDED_DIGITS and (answer.decimals or 0) >= ROUNDED_DECIMALS
    return CORRECT if gold.decimals is None and long else undecided(ROUNDED)


def _float_fraction(number: Number) -> bool:
    """Whether a fraction is a float in disguise: `476571389139735/846830699163683`."""
    written = number.decimals is None and number.digits != APPROXIMATE
    return written and MAX_DENOMINATOR < number.value.denominator < MAX_DENOMINATOR**2 * 10**4


def rounds_to(exact: Fraction, written: Number) -> bool:
    """Whether `exact` rounds to the decimal `written`, which needs two digits or more."""
    if not written.decimals or written.digits < 2:
        return False
    return abs(exact - written.value) * 2 <= Fraction(1, 10**written.decimals)
