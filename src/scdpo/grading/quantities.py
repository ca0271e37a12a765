"""Numbers as answers write them: with a variable, a currency, a percent sign or a unit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from scdpo.grading.rationals import MAX_LENGTH, Number, rational

_MEASURES = {
    "mm": "mm millimeter millimeters millimetre millimetres 毫米",
    "cm": "cm centimeter centimeters centimetre centimetres 厘米",
    "dm": "dm decimeter decimeters 分米",
    "m": "m meter meters metre metres 米",
    "km": "km kilometer kilometers kilometre kilometres 千米 公里",
    "inch": "inch inches",
    "foot": "ft foot feet",
    "yard": "yard yards",
    "mile": "mile miles",
    "mg": "mg milligram milligrams",
    "g": "g gram grams 克",
    "kg": "kg kilogram kilograms 千克 公斤",
    "tonne": "ton tons tonne tonnes 吨",
    "lb": "lb lbs pound pounds",
    "oz": "oz ounce ounces",
    "ml": "ml milliliter milliliters 毫升",
    "l": "L liter liters litre litres 升",
    "second": "second seconds sec secs 秒",
    "minute": "minute minutes min mins 分钟",
    "hour": "hour hours hr hrs 小时",
    "day": "day days 天",
    "week": "week weeks 周",
    "month": "month months 月 个月",
    "year": "year years 年",
    "dollar": "dollar dollars USD 美元",
    "cent": "cent cents",
    "yuan": "yuan RMB 元",
    "jiao": "角",
    "am": "am AM a.m. A.M.",
    "pm": "pm PM p.m. P.M.",
}
_MEASURE_OF = {alias: name for name, aliases in _MEASURES.items() for alias in aliases.split()}
_MAGNITUDES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 1_000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "万": 10**4,
    "亿": 10**8,
}
_MATHEMATICS = frozenset(
    word
    for line in (
        "and or pi sqrt sin cos tan cot sec csc log ln exp mod if to infinity inf",
        "base remainder over plus minus times divided by squared cubed i e is not than",
    )
    for word in line.split()
)
"""Words after a number that are mathematics, not a unit."""

_VARIABLE = re.compile(
    r"(\\?[A-Za-z]+(?:_\{?\w+\}?)?(?:\([A-Za-z\d]+\))?|[A-Za-z][A-Za-z' ]{0,60})=([^=]+)"
)
_CURRENCY = re.compile(r"(-?)(?:US|RMB)?[¥€£$]|(-?)(?:Rs\.?|USD|RMB) ?")
_NOTE = re.compile(r"(.*[\d}]) ?\(([A-Za-z][A-Za-z \-'/]*)\)")
_PERCENT = re.compile(r"(-?[^-+%]+?) ?(?:\\?%|percent|per cent|percentage points?)")
_WORDS = re.compile(
    r"(.*[\d)}!]) ?((?:square|cubic|sq\.?|cu\.?) )?([A-Za-z][A-Za-z.'’ /\-]*)(?:\^\{?([23])\}?)?"
)
_CHINESE = re.compile(r"(.*[\d)}!%]) ?([万亿]?)([\u4e00-\u9fff]{0,6}(?:/[\u4e00-\u9fff]{1,3})?)")
_CHINESE_NUMERALS = frozenset("零〇一二三四五六七八九十百几半分成折又")
_BASED = re.compile(r"(-?[0-9A-Fa-f]+)_(?:\{(\d{1,2})\}|(\d{1,2}))")
_PLAIN_BASED = re.compile(r"-?[0-9A-Fa-f]+")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with what stood around it; a percentage keeps the number before the sign."""

    number: Number
    percent: bool = False
    unit: str = ""
    """Canonical name of a measure (`cm`, `hour`), or empty: words such as `apples` do not count."""
    variable: str = ""

    @property
    def value(self) -> Fraction:
        """The number with a percent sign applied: 1/2 for 50 %."""
        return self.number.value / 100 if self.percent else self.number.value


def quantity(text: str) -> Quantity | None:
    """The quantity written in a cleaned text, or None when it is not one plain number."""
    if not text or len(text) > MAX_LENGTH:
        return None
    named = _VARIABLE.fullmatch(text)
    variable, text = (named.group(1), named.group(2)) if named else ("", text)
    text = _unwrapped(_CURRENCY.sub(r"\1\2", text, count=1) if _CURRENCY.match(text) else text)
    percent = _PERCENT.fullmatch(text)
    if percent is not None and (number := rational(percent.group(1))) is not None:
        return Quantity(number, percent=True, variable=variable)
    number = rational(text)
    if number is not None:
        return Quantity(number, variable=variable)
    note = _NOTE.fullmatch(text)
    if note is not None and (number := rational(note.group(1))) is not None:
        return Quantity(number, unit=_MEASURE_OF.get(note.group(2), ""), variable=variable)
    found = _with_words(text) or _with_chinese(text)
    return None if found is None else Quantity(found[0], unit=found[1], variable=variable)


def _unwrapped(text: str) -> str:
    """`text` without a pair of brackets around all of it: `[5]`, `{5}`."""
    while len(text) > 2 and text[0] + text[-1] in ("[]", "{}"):
        text = text[1:-1]
    return text


def _with_words(text: str) -> tuple[Number, str] | None:
    match = _WORDS.fullmatch(text)
    if match is None or len(match.group(3)) > 40:
        return None
    head, kind, words, power = match.groups()
    names = words.split()
    if any(name.lower() in _MATHEMATICS for name in names):
        return None
    attached = text[len(head) : len(head) + 1] != " "
    if (attached or len(words) == 1) and names[0] not in _MEASURE_OF:
        return None
    if len(words) == 1 and attached:  # 5m may be five times a variable
        return None
    number = rational(head)
    if number is None:
        return None
    if names[0].lower() in _MAGNITUDES:
        number = Number(number.value * _MAGNITUDES[names[0].lower()])
        names = names[1:]
    unit = _MEASURE_OF.get(names[0], "") if names else ""
    if kind:
        power = "3" if kind.startswith("cu") else "2"
    return number, unit + (power or "" if unit else "")


def _with_chinese(text: str) -> tuple[Number, str] | None:
    match = _CHINESE.fullmatch(text)
    if match is None:
        return None
    head, magnitude, unit = match.groups()
    # 分钟 and 分米 are units although 分 alone may be a numeral's part (三分之一).
    if unit not in _MEASURE_OF and unit[:1] in _CHINESE_NUMERALS:
        return None
    number = rational(head)
    if number is None:
        return None
    if magnitude:
        number = Number(number.value * _MAGNITUDES[magnitude])
    area = {"平方": "2", "立方": "3"}.get(unit[:2], "")
    return number, _MEASURE_OF.get(unit[2:] if area else unit, "") + area


@dataclass(frozen=True, slots=True)
class Numeral:
    """Digits with the base they are read in; base None when none is written."""

    digits: str
    base: int | None

    @property
    def value(self) -> int | None:
        """The integer meant; None when a digit does not exist in the base."""
        try:
            return int(self.digits, self.base or 10)
        except ValueError:
            return None


def numeral(text: str) -> Numeral | None:
    """A numeral such as `1011_2`, `2F_{16}` or `1011`; None for anything else."""
    if len(text) > MAX_LENGTH:
        return None
    based = _BASED.fullmatch(text)
    if based is not None:
        base = int(based.group(2) or based.group(3))
        return Numeral(based.group(1).upper(), base) if 2 <= base <= 36 else None
    return Numeral(text.upper(), None) if _PLAIN_BASED.fullmatch(text) else None
