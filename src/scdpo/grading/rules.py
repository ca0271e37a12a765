"""What can be decided about two answers without a computer algebra system.

`decide` returns None where it does not know; a symbolic comparison takes over then. Policies:

*Numbers* are compared exactly, as rationals. Two kinds of inexact decimals are known:
(1) an answer with six or more decimals is the output of a floating-point computation; it equals
every number within 1e-6 of it, relative for numbers below 1 and absolute above, so that
3.0000000000000004 is 3 and 0.333333 is 1/3, while 0.333 is not 1/3.
(2) a gold answer written as a decimal may be rounded: an answer with more decimals (or a
fraction) that rounds to it is correct if the gold has three significant digits or more and the
answer is a fraction or has six or more decimals, otherwise undecided. An answer of two or more
decimals that the exact gold answer rounds to (0.33 for 1/3) is undecided as well: it is not
equal, but it is not what a wrong solution ends in either.

*Percentages*: 50 % equals its value 1/2. It also equals the bare number 50 where only one side
has the sign, since a question for a percentage is answered either way, but only above 1 %,
where the bare number cannot be meant as a share; below, the pair is undecided.

*Units*: words that count things (apples, 个) are dropped. Measures are compared where both sides
have one: the same number of another measure is wrong, another number of another measure is
undecided, because it may be a conversion.

*Numeral bases*: same base, same digits. Equal digits with only one base written are undecided.
"""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction

from scdpo.grading.normalise import clean
from scdpo.grading.quantities import Numeral, Quantity, numeral, quantity
from scdpo.grading.rationals import Number
from scdpo.records import Verdict

CORRECT = Verdict(name="correct")
WRONG = Verdict(name="wrong")
ROUNDED = "equal only after rounding"
FLOAT_DECIMALS = 6
FLOAT_TOLERANCE = Fraction(1, 10**6)
ZERO_TOLERANCE = Fraction(1, 10**9)

_CHOICE = re.compile(r"\(?([A-J])\)?(?:[.:)] ?.*)?")
_WORDY = re.compile(r"[A-Za-z][A-Za-z'’\- ]*[A-Za-z]")
_NO_NUMBER = re.compile(
    r"no|none|yes|true|false|undefined|infinity|infinite|infinitely many|impossible|dne"
    r"|does not exist|no (?:real )?solutions?",
    re.IGNORECASE,
)
_RATIO = re.compile(r"([^:]+):([^:]+)")
_SEQUENCE = re.compile(r"(\\?[{(\[])(.*?)(\\?[})\]])", re.DOTALL)
_SPACED = re.compile(r"-?\d+(?: -?\d+)+")
_TUPLES = re.compile(r"\(([^()=]+)\)=\(([^()=]+)\)")
_COMMA_DECIMAL = re.compile(r"-?\d+,\d+")
_PROSE = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,}(?![A-Za-z(}])")
_FUNCTIONS = re.compile("and|not|sin|cos|tan|cot|sec|csc|log|exp|sqrt|mod|pmod|pmatrix")
_KINDS = {"(": "tuple", "[": "bracket", "{": "set"}
_CLOSERS = {"(": ")", "[": "]", "{": "}"}


def undecided(reason: str) -> Verdict:
    """The verdict for a pair that cannot be judged, with its reason."""
    return Verdict(name="undecided", reason=reason)


def decide(gold: str, answer: str) -> Verdict | None:
    """Compare two answers by their text and as exact numbers; None when neither can tell."""
    gold, answer = clean(gold), clean(answer)
    if gold and gold == answer:
        return CORRECT
    for rule in (
        *(_bases, _quantities, _decimal_comma, _ratios, _sequences),
        *(_assignments, _choices, _words, _prose),
    ):
        verdict = rule(gold, answer)
        if verdict is not None:
            return verdict
    return None


def _bases(gold: str, answer: str) -> Verdict | None:
    if "_" not in gold and "_" not in answer:
        return None
    first, second = numeral(gold), numeral(answer)
    if first is None or second is None:
        return None
    if first.base == second.base:
        return CORRECT if _stripped(first) == _stripped(second) else WRONG
    if None in (first.base, second.base) and _stripped(first) == _stripped(second):
        return undecided("only one of the numerals has a base")
    if first.value == second.value:
        return undecided("the same number in another base")
    return WRONG


def _stripped(number: Numeral) -> str:
    return number.digits.lstrip("0") or "0"


def _quantities(gold: str, answer: str) -> Verdict | None:
    first, second = quantity(gold), quantity(answer)
    if first is None or second is None:
        return None
    if first.variable and second.variable and first.variable != second.variable:
        return None
    verdict = _numbers(first, second)
    if first.unit and second.unit and first.unit != second.unit:
        return WRONG if verdict.name == "correct" else undecided("the units differ")
    return verdict


def _numbers(gold: Quantity, answer: Quantity) -> Verdict:
    if gold.percent == answer.percent:
        return equal_numbers(gold.number, answer.number)
    by_value = equal_numbers(_as_share(gold), _as_share(answer))
    if by_value.name == "correct":
        return by_value
    bare = equal_numbers(gold.number, answer.number)
    if bare.name == "correct" and abs(gold.number.value) <= 1:
        return undecided("the percentage can be read two ways")
    return bare if bare.name != "wrong" else by_value


def _decimal_comma(gold: str, answer: str) -> Verdict | None:
    """`1000,99` for a gold 1000.99, and the other way round."""
    for number, comma in ((gold, answer), (answer, gold)):
        if _COMMA_DECIMAL.fullmatch(comma) and comma.replace(",", ".") == number:
            return CORRECT
    return None


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
    long_answer = answer.decimals is None or answer.decimals >= FLOAT_DECIMALS
    long_gold = gold.decimals is not None and gold.decimals >= FLOAT_DECIMALS
    if long_gold or (answer.decimals is not None and long_answer):
        size = abs(gold.value)
        allowed = FLOAT_TOLERANCE * min(Fraction(1), size) if size else ZERO_TOLERANCE
        if distance <= allowed:
            return CORRECT
    if gold.decimals and (answer.decimals is None or answer.decimals > gold.decimals):
        if distance * 2 > Fraction(1, 10**gold.decimals):
            return WRONG
        if gold.digits >= 3 and long_answer:
            return CORRECT
        return undecided(ROUNDED)
    return undecided(ROUNDED) if rounds_to(gold.value, answer) else WRONG


def rounds_to(exact: Fraction, written: Number) -> bool:
    """Whether `exact` rounds to the decimal `written`, if that has two decimals and digits."""
    if not written.decimals or written.decimals < 2 or written.digits < 2:
        return False
    return abs(exact - written.value) * 2 <= Fraction(1, 10**written.decimals)


def _ratios(gold: str, answer: str) -> Verdict | None:
    sides = [_RATIO.fullmatch(text) for text in (gold, answer)]
    if sides[0] is None or sides[1] is None:
        one = quantity(gold) or quantity(answer)
        if (sides[0] is None) == (sides[1] is None) or one is None:
            return None
        return undecided("a ratio for a number")
    parts = [quantity(part) for side in sides if side is not None for part in side.groups()]
    if any(part is None for part in parts):
        return None
    a, b, c, d = (part.value for part in parts if part is not None)
    return CORRECT if a * d == b * c and b != 0 and d != 0 else WRONG


def _sequence(text: str) -> tuple[str, list[str]] | None:
    """Kind of a list of plain items and the items: `(1,2)`, `[1,2]`, `{1,2}`, `1,2`, `6 4 0`."""
    match = _SEQUENCE.fullmatch(text)
    kind = "bare"
    if match is not None:
        opening, text, closing = match.groups()
        if _CLOSERS[opening[-1]] != closing[-1]:
            return None
        kind = _KINDS[opening[-1]]
    elif _SPACED.fullmatch(text):
        return kind, text.split()
    items = re.split(r",| and | or ", text.replace(", and ", ",").replace(", or ", ","))
    items = [item.strip() for item in items]
    if (len(items) < 2 and match is None) or not all(items):
        return None
    return kind, items


def _sequences(gold: str, answer: str) -> Verdict | None:
    first, second = _sequence(gold), _sequence(answer)
    if first is None or second is None:
        return None
    kinds = {first[0], second[0]}
    if kinds == {"tuple", "bracket"} or kinds == {"tuple", "set"}:
        return None
    golds, answers = ([quantity(item) for item in side[1]] for side in (first, second))
    if None in golds or None in answers:
        return None
    if len(golds) != len(answers):
        return WRONG
    pairs = [(g, a) for g, a in zip(golds, answers, strict=True) if g and a]
    if any(g.variable or a.variable for g, a in pairs):
        return None
    verdicts = Counter(_numbers(g, a).name for g, a in pairs)
    if verdicts["correct"] == len(golds):
        return CORRECT
    if "tuple" in kinds or kinds == {"bracket"}:
        return WRONG if verdicts["wrong"] else undecided("an item is undecided")
    same = Counter(g.value for g, _ in pairs) == Counter(a.value for _, a in pairs)
    return CORRECT if same else None


def _assignments(gold: str, answer: str) -> Verdict | None:
    """`a=4,r=0` or `(a,r)=(4,0)` for a gold 4: the values of several unknowns, one asked for."""
    wanted = quantity(gold)
    parts = _TUPLES.fullmatch(answer)
    texts = answer.split(",") if parts is None else parts.group(2).split(",")
    if wanted is None or len(texts) < 2:
        return None
    values = [quantity(text.strip()) for text in texts]
    if parts is None and not all(value is not None and value.variable for value in values):
        return None
    if any(value is not None and _numbers(wanted, value).name == "correct" for value in values):
        return undecided("values of several unknowns")
    return None


def _choices(gold: str, answer: str) -> Verdict | None:
    """Answers of multiple-choice questions: `(B)`, `B`, `B. 12`."""
    first, second = _CHOICE.fullmatch(gold), _CHOICE.fullmatch(answer)
    if re.fullmatch(r"\(?[A-Ja-j]\)?", answer) and quantity(gold) is not None:
        return undecided("the letter of a choice for its value")
    if first is None or second is None or len(gold) > 3:
        return None
    return CORRECT if first.group(1) == second.group(1) else WRONG


def _words(gold: str, answer: str) -> Verdict | None:
    """Answers that are words: names, weekdays, yes and no."""
    if not _WORDY.fullmatch(answer) or len(answer) < 2:
        return None
    if quantity(gold) is not None:
        # A number word ("five") may be right; only words that name no number are wrong.
        return WRONG if _NO_NUMBER.fullmatch(answer) else undecided("cannot parse the answer")
    if not _WORDY.fullmatch(gold):
        return None
    first, second = gold.lower().split(), answer.lower().split()
    if first == second:
        return CORRECT
    if len(gold) <= 3 or len(answer) <= 3:
        return None if len(first) == len(second) == 1 else WRONG
    if set(first) <= set(second) or set(second) <= set(first):
        return undecided("one answer's words are part of the other's")
    return WRONG


def _prose(_gold: str, answer: str) -> Verdict | None:
    """A sentence would be parsed as a product of its letters, and then be wrong."""
    words = [word for word in _PROSE.findall(answer) if not _FUNCTIONS.fullmatch(word)]
    return undecided("the answer is a sentence") if len(words) >= 2 else None
