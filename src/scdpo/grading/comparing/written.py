"""Whole texts compared as a single number, numeral, ratio, time, date or choice."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

from scdpo.grading.comparing import words
from scdpo.grading.formulas.evaluation import real_constant
from scdpo.grading.formulas.parser import formula
from scdpo.grading.formulas.tree import Node, NotAFormulaError
from scdpo.grading.quantities.clock import clock, date
from scdpo.grading.quantities.equality import ROUNDED, equal_quantities
from scdpo.grading.quantities.quantity import Numeral, Quantity, numeral, quantity
from scdpo.grading.text.normalise import clean
from scdpo.records import CORRECT, WRONG, Verdict, undecided

_COLON = re.compile(r"[:∶比]|\\colon| to ")
_RATIO = re.compile(rf"[^:∶比]+(?:(?:{_COLON.pattern})[^:∶比]+)+")
_COMMA_DECIMAL = re.compile(r"-?\d+,\d+")


def same_numbers(gold: str, answer: str) -> Verdict | None:
    """Compare two whole answers as a single number, numeral, ratio, time, date or choice."""
    first, second = clean(gold), clean(answer)
    for rule in _TEXT_RULES:
        verdict = rule(first, second)
        if verdict is not None:
            return verdict
    return None


def _bases(gold: str, answer: str) -> Verdict | None:
    """Numerals need the same base and digits; undecided where only one of them states a base."""
    if not any("_" in text or "base" in text or "0x" in text for text in (gold, answer)):
        return None
    first, second = numeral(gold), numeral(answer)
    if (first is None or second is None) and (pair := _subscripts(gold, answer)) is not None:
        return pair
    if first is None or second is None:
        based, other = (first, answer) if first is not None else (second, gold)
        number = quantity(other)
        if based is None or based.base is None or number is None:
            return None
        same = based.value == number.value
        return undecided("the same number in another base") if same else WRONG
    if first.base == second.base:
        return CORRECT if _stripped(first) == _stripped(second) else WRONG
    if None in (first.base, second.base) and _stripped(first) == _stripped(second):
        return undecided("only one of the numerals has a base")
    if first.value == second.value:
        return undecided("the same number in another base")
    return WRONG


_SUBSCRIPTED = re.compile(r"\(?(-?[0-9A-Fa-f.]+)\)? ?_\{?(\d+)\}?")


def _subscripts(gold: str, answer: str) -> Verdict | None:
    """Numerals with a point, or in a base that does not exist, are compared as written."""
    first, second = _SUBSCRIPTED.fullmatch(gold), _SUBSCRIPTED.fullmatch(answer)
    if first is None or second is None:
        return None
    return CORRECT if first.groups() == second.groups() else WRONG


def _stripped(number: Numeral) -> str:
    return number.digits.lstrip("0") or "0"


_LETTER_UNIT = re.compile(r"(?<=[\d}])(?=[A-Za-z]$)")
_LETTERS = {"current": ("A", "amp"), "voltage": ("V", "volt")}
"""Letters that name a unit beside another unit of the same kind, and are variables elsewhere."""


def _lettered(text: str, beside: Quantity) -> str:
    """`5m` as `5 m`, and `0.004 A` as `0.004 amp` beside milliamperes."""
    letter, name = _LETTERS.get(beside.unit.dimensions[0][0], ("", ""))
    if letter and re.search(rf"[\d}}] ?{letter}$", text):
        return f"{text[:-1].rstrip()} {name}"
    return _LETTER_UNIT.sub(" ", text)


def _quantities(gold: str, answer: str) -> Verdict | None:
    first, second = quantity(gold), quantity(answer)
    if first is not None and second is None and first.unit.dimensions:
        second = quantity(_lettered(answer, first))  # 5kg, and 5000g
    if second is not None and first is None and second.unit.dimensions:
        first = quantity(_lettered(gold, second))
    if first is None or second is None:
        return None
    if first.variable and second.variable and first.variable != second.variable:
        return None
    if first.percent != second.percent:
        things = _THINGS.search(answer if first.percent else gold)
        if things is not None and first.number.value == second.number.value:
            if things.group(1) in ("points", "point", "marks", "分"):
                return undecided("a percentage or points")
            return WRONG  # 30 % and 30 students
    return equal_quantities(first, second)


_THINGS = re.compile(r"\d ?(?!per ?cent|pct)([A-Za-z]{3,}|[\u4e00-\u9fff]+)$")


def _clocks(gold: str, answer: str) -> Verdict | None:
    first, second = clock(gold), clock(answer)
    if first is None or second is None:
        return None
    if first.same(second):
        return CORRECT
    if first.perhaps(second):
        return undecided("perhaps not on 24 hours")
    ratios = ":" in gold and ":" in answer and (gold + answer).replace(":", "").isdigit()
    return None if ratios else WRONG


_MINUTES = re.compile(r"(?:1?\d|2[0-4]):[0-5]\d")


def _dates(gold: str, answer: str) -> Verdict | None:
    first, second = date(gold), date(answer)
    if first is None or second is None:
        return None
    return CORRECT if first.same(second) else WRONG


_SCIENTIFIC = re.compile(
    r"(-?\d+\.(\d+))(?:[eE]([-+]?\d{1,3})|(?:\*|×|\\times|\\cdot) ?10\^\{?\(?([-+]?\d{1,3})\)?\}?)"
)


def _scientific(gold: str, answer: str) -> Verdict | None:
    """A number in scientific notation to which the other number rounds."""
    if not ("10^" in gold + answer or re.search(r"\d[eE]", gold + answer)):
        return None
    for short, full in ((gold, answer), (answer, gold)):
        found = _SCIENTIFIC.fullmatch(re.sub(r" ?(\\times|\\cdot|×) ?", r"\1", short))
        rounded, exact = quantity(short), quantity(full)
        if found is None or rounded is None or exact is None or rounded.value == exact.value:
            continue
        unit = Fraction(10) ** (int(found.group(3) or found.group(4)) - len(found.group(2)))
        if abs(rounded.value - exact.value) * 2 <= unit:
            return undecided(ROUNDED)
    return None


def _decimal_comma(gold: str, answer: str) -> Verdict | None:
    """`1000,99` for a gold answer 1000.99, and the reverse."""
    for number, comma in ((gold, answer), (answer, gold)):
        if _COMMA_DECIMAL.fullmatch(comma) and comma.replace(",", ".") == number:
            return CORRECT
    return None


def _ratios(gold: str, answer: str) -> Verdict | None:
    """`3:4` and `6:8`, or a ratio of two terms and its value."""
    first, second = _terms(gold), _terms(answer)
    if first is not None and second is not None:
        if not _proportional(first, second):
            return WRONG
        return undecided("a time or a ratio") if _MINUTES.fullmatch(gold) else CORRECT
    terms, other = (first, answer) if first is not None else (second, gold)
    number = value(other) if terms is not None else None
    if terms is None or number is None or len(terms) != 2 or not terms[1]:
        return None
    return CORRECT if terms[0] / terms[1] == number else WRONG


def _proportional(first: tuple[Fraction, ...], second: tuple[Fraction, ...]) -> bool:
    if len(first) != len(second):
        return False
    if not all((*first, *second)):
        return first == second
    return len({a / b for a, b in zip(first, second, strict=True)}) == 1


@lru_cache(maxsize=4096)
def _terms(text: str) -> tuple[Fraction, ...] | None:
    """The terms of a ratio `a:b:c` of constants."""
    if not _RATIO.fullmatch(text):
        return None
    values = [_scaled(part.strip()) for part in _COLON.split(text)]
    known = tuple(term for term in values if term is not None)
    return known if len(known) == len(values) else None


def _scaled(text: str) -> Fraction | None:
    """A term of a ratio, in base units."""
    known = quantity(clean(text))
    return known.value * known.unit.scale if known is not None else value(text)


_REMAINDER = re.compile(
    r"(?:quotient|商)? ?(?:is|of|=|是|为|:)? ?(\d+)(?:,|;)? ?(?:and )?"
    r"(?:(?:a |with )?remainder|R|r|余数?|…+|\.{3,6}|\\cdots ?\\cdots)"
    r" ?(?:is|of|=|是|为|:)? ?(\d+)"
)


_MODULO = re.compile(
    r"(?:[A-Za-z] ?(?:\\equiv|≡|=) ?)?(-?\d+)(?: ?\(? ?\\?(?:p|b)?mod(?:ulo)? ?\{?(\d+)\}? ?\)?)?"
)


def _residues(gold: str, answer: str) -> Verdict | None:
    """`n \\equiv 4 \\pmod{11}` for a gold answer 4: the question asks for the residue."""
    found = [_MODULO.fullmatch(text.replace("\\mathrm", "")) for text in (gold, answer)]
    if found[0] is None or found[1] is None:
        return None
    (first, modulus), (second, other) = found[0].groups(), found[1].groups()
    if modulus is None and other is None:
        return None
    if modulus and other and modulus != other:
        return WRONG
    if first == second:
        return CORRECT
    if (int(first) - int(second)) % max(1, int(modulus or other)) != 0:
        return WRONG
    both = modulus is not None and other is not None
    return CORRECT if both else undecided("the same residue, written differently")


def _remainders(gold: str, answer: str) -> Verdict | None:
    """`7 R 3`, `quotient 7, remainder 3`, `商7余3`, `7……3`."""
    first, second = _REMAINDER.fullmatch(gold), _REMAINDER.fullmatch(answer)
    if first is None or second is None:
        return None
    return CORRECT if first.groups() == second.groups() else WRONG


_UP = re.compile(
    r"(?:it |an? )?(?:increased?|rise|rose|rises|up)(?: (?:of|by))?|增加了?|上涨了?|提高了?|增长了?"
)
_DOWN = re.compile(
    r"(?:it |an? )?(?:decreased?s?|reduction|fell|falls|down|reduced|drop(?:ped)?)(?: (?:of|by))?"
    r"|减少了?|下降了?|降低了?"
)


def _changes(gold: str, answer: str) -> Verdict | None:
    """`20% decrease` and `decreases by 20%`."""
    found = []
    for text in (gold, answer):
        up, down = _UP.search(text), _DOWN.search(text)
        change = up or down
        if change is None or (up and down):
            return None
        rest = re.sub(r"^s by |^s ", "", (text[: change.start()] + text[change.end() :]).strip())
        number = quantity(rest.removeprefix("s by").removeprefix("by").strip())
        if number is None:
            return None
        found.append((number, up is not None))
    if found[0][1] != found[1][1]:
        return WRONG
    return equal_quantities(found[0][0], found[1][0])


_NOTHING = re.compile(r"none|no|nothing|没有|无", re.IGNORECASE)


def _nothing(gold: str, answer: str) -> Verdict | None:
    """`none` for a gold answer 0."""
    for number, word in ((gold, answer), (answer, gold)):
        if _NOTHING.fullmatch(word) and value(number) == 0:
            return undecided("none may be meant as 0")
    return None


_TEXT_RULES: tuple[Callable[[str, str], Verdict | None], ...] = (
    _nothing,
    words.choices,
    words.ordinals,
    _dates,
    _bases,
    _clocks,
    _changes,
    _scientific,
    _quantities,
    _decimal_comma,
    _residues,
    _remainders,
    _ratios,
)


@lru_cache(maxsize=8192)
def parsed(text: str) -> Node | None:
    """The tree of a leaf's formula; None if it is not a formula."""
    try:
        return formula(text)
    except (NotAFormulaError, RecursionError):
        return None


@lru_cache(maxsize=8192)
def value(text: str) -> Fraction | None:
    """The value of a leaf that is a constant: exact if rational, otherwise to some forty digits."""
    number = quantity(clean(text))
    if number is not None:
        return number.value
    node = parsed(text)
    return None if node is None else real_constant(node)
