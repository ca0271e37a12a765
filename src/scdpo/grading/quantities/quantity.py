"""Numbers as answers write them: with a variable, a currency, a percent sign or a unit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from scdpo.grading.quantities.number_words import named_part, number_in_words
from scdpo.grading.quantities.rationals import MAX_LENGTH, Number, rational
from scdpo.grading.quantities.units import COUNT, SYMBOLS, Unit, unit

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
        "base remainder over plus minus times divided by squared cubed i e is not than below",
    )
    for word in line.split()
)
"""Words after a number that belong to mathematics and are not a unit."""

_VARIABLE = re.compile(
    r"(\\?[A-Za-z]+(?:_\{?\w+\}?)?(?:\([A-Za-z\d]+\))?|[A-Za-z][A-Za-z' ]{0,60})=([^=]+)"
)
_CURRENCY = re.compile(r"(-?)(?:(US|RMB)?([¥€£$₹])|(Rs\.?|USD|RMB) ?)")
_NOTE = re.compile(r"(.*[\d}]) ?\(([A-Za-z\u4e00-\u9fff][A-Za-z\u4e00-\u9fff \-'/^\d]*)\)")
_MODULUS = re.compile(r"(?:mod|base|modulo|进制)(?![a-z])")
_PERCENT = re.compile(r"(-?[^-+%]+?) ?(?:\\?%|percent|per cent|percentage points?|个百分点)")
_NUMBER_END = re.compile(r"[\d)}!%](?= ?[^\d ])")
MAX_ENDS = 12
"""Most positions that are tried as the end of the number before a unit."""
_UNIT_LIKE = re.compile(
    r"(?:(?:square|cubic|sq\.?|cu\.?) )?[A-Za-zÀ-žμ°℃℉Ω$€£¥][A-Za-zÀ-žμ°℃℉Ω.'’ /*·\-]*"
    r"(?:(?:\^\{?-?\d\}?|[²³]|(?<=[a-z])[23])[A-Za-z /*·]*)*"
)
_CHINESE = re.compile(r"(.*?[\d)}!%]) ?([万亿]?)([\u4e00-\u9fff]{0,8}(?:/[\u4e00-\u9fff]{1,3})?)")
_NO_CLASSIFIER = re.compile(
    r"的|个?(?:约数|因数|因子|倍数|次方|次幂|整除|以上|以下|以内|以外|左右|分之)|.*的(?:倍数|数|约数|因数)|整除"
)
_CHINESE_NUMERALS = frozenset("零〇一二三四五六七八九十百几半分成折又")
_PIECE = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]+|[\u4e00-\u9fff]{1,3})(?: ?(?:and|,|零|又) ?| ?)")
_DEGREES = re.compile(r"(\d+) ?° ?(\d+) ?(?:'|\^\\prime|\\prime)(?: ?(\d+) ?(?:''|\"))?")
_CENTS = re.compile(r"(\d+) (?:dollars? )?and (\d+) cents?")
_FEET_INCHES = re.compile(r"(\d+)'(\d+)(?:\"|'')")
_BASED = re.compile(
    r"\(?(-?[0-9A-Fa-f]+)\)?_\{?\(?"
    r"(?:(\d{1,2})|(two|three|four|five|six|seven|eight|nine|ten|sixteen))\)?\}?"
)
_IN_BASE = re.compile(
    r"(-?[0-9A-Fa-f]+) ?(?:\(?(?:in )?base[ -]?(\d{1,2}|[a-z]{3,7})\)?"
    r"|\(?([二三四五六七八九]|十六?|\d{1,2})进制\)?)"
)
_PLAIN_BASED = re.compile(r"-?[0-9A-Fa-f]+")
_MIXED = re.compile(r"(?<=\d)又 ?\(?(\d+)(?:/|分之)(\d+)\)?")
_BASE_NAMES = "two three four five six seven eight nine ten sixteen".split()
_PER = re.compile(r"(?:/|per |每)")
_CURRENCY_UNITS = {"$": "dollar", "¥": "yuan", "€": "euro", "£": "£", "R": "Rs", "U": "USD"}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with the text around it; a percentage keeps the number before the sign."""

    number: Number
    percent: bool = False
    unit: Unit = COUNT
    """The unit of measure; counted things, such as apples, have none."""
    variable: str = ""

    @property
    def value(self) -> Fraction:
        """The number with a percent sign applied: 1/2 for 50 %."""
        return self.number.value / 100 if self.percent else self.number.value


@lru_cache(maxsize=8192)
def quantity(text: str) -> Quantity | None:
    """The quantity in a cleaned text, or None if it is not a single number.

    Cached, since the attempts on a problem are compared with the same gold answer.
    """
    if not text or len(text) > MAX_LENGTH:
        return None
    named = _VARIABLE.fullmatch(text)
    variable, text = (named.group(1), named.group(2)) if named else ("", text)
    currency = _CURRENCY.match(text)
    money = COUNT
    if currency is not None:
        text = currency.group(1) + text[currency.end() :].strip()
        sign = currency.group(3) or ("yuan" if currency.group(4) == "RMB" else currency.group(4)[0])
        money = unit(_CURRENCY_UNITS.get(sign, sign)) or COUNT
    text = _unwrapped(text)
    percent = _PERCENT.fullmatch(text)
    if percent is not None and not _divided(percent.group(1)):
        number = _number(percent.group(1))
        if number is not None:
            return Quantity(number, percent=True, variable=variable)
    number = _number(text)
    if number is not None:
        percent_words = text.startswith("百分之")
        if percent_words:
            number = Number(number.value * 100)
        return Quantity(number, percent=percent_words, unit=money, variable=variable)
    found = _noted(text) or _compound(text) or _with_words(text) or _with_chinese(text)
    if found is None:
        return None
    return Quantity(found[0], unit=found[1] if found[1] != COUNT else money, variable=variable)


def _divided(head: str) -> bool:
    """Whether a percentage divides: 336/48% is 700, while 1/2% is half a percent."""
    if "/" not in head or head.startswith("("):
        return False
    fraction = re.fullmatch(r"(\d+)/(\d+)", head)
    return fraction is None or int(fraction.group(1)) >= int(fraction.group(2))


def _number(text: str) -> Number | None:
    """A number in digits or in words."""
    if "又" in text:
        text = _MIXED.sub(
            lambda m: "({}/{})".format(*(m.groups() if "/" in m.group() else m.groups()[::-1])),
            text,
        )
    number = rational(text)
    if number is not None:
        return number
    words = number_in_words(text)
    return None if words is None else Number(words)


def _unwrapped(text: str) -> str:
    """`text` without a pair of brackets around all of it: `[5]`, `{5}`."""
    while len(text) > 2 and text[0] + text[-1] in ("[]", "{}"):
        text = text[1:-1]
    return text


def _noted(text: str) -> tuple[Number, Unit] | None:
    """`9 (apples)`."""
    note = _NOTE.fullmatch(text)
    if note is None or _MODULUS.match(note.group(2)) or (number := rational(note.group(1))) is None:
        return None
    return number, unit(note.group(2)) or COUNT


def _compound(text: str) -> tuple[Number, Unit] | None:
    """`5 feet 6 inches`, `3元5角`, `2小时30分`: the sum in the first unit."""
    match = _FEET_INCHES.fullmatch(text)
    if match is not None:
        text = f"{match.group(1)} feet {match.group(2)} inches"
    match = _CENTS.fullmatch(text)
    if match is not None:
        text = f"{match.group(1)} dollars {match.group(2)} cents"
    match = _DEGREES.fullmatch(text)
    if match is not None:
        degrees, minutes, seconds = (Fraction(group or 0) for group in match.groups())
        return Number(degrees + minutes / 60 + seconds / 3600), unit("°") or COUNT
    pieces, at = [], 0
    while at < len(text):
        piece = _PIECE.match(text, at)
        if piece is None:
            return None
        pieces.append((Fraction(piece.group(1)), piece.group(2)))
        at = piece.end()
    if len(pieces) < 2:
        return None
    total, first = Fraction(0), unit(pieces[0][1]) if pieces[0][1] != "时" else unit("小时")
    for value, name in pieces:
        part = unit({"分": "分钟", "时": "小时"}.get(name, name))
        if name == "分" and first is not None and first.dimensions == (("yuan", 1),):
            part = unit("分钱")
        if part is None or first is None or not part.dimensions:
            return None
        if part.dimensions != first.dimensions:
            return None
        total += value * part.scale
    assert first is not None
    return Number(total / first.scale), first


def _with_words(text: str) -> tuple[Number, Unit] | None:
    # The number may end after its first digits: 3 1/2 cups, 10^6 m.
    ends = [match.end() for match in _NUMBER_END.finditer(text)][:MAX_ENDS]
    for end in ends:
        found = _measured(text[:end], text[end] == " ", text[end:].lstrip(" "))
        if found is not None:
            return found
    words = text.rsplit(" ", 1)  # five apples
    if len(words) == 2 and words[0].replace("-", "").replace(" ", "").isalpha():
        number = number_in_words(words[0])
        if number is not None and words[1].lower() not in _MATHEMATICS:
            return Number(number), unit(words[1]) or COUNT
    return None


def _measured(head: str, space: bool, words: str) -> tuple[Number, Unit] | None:
    """A number and the words after it, if they can be its unit."""
    if not words or len(words) > 60:
        return None
    words = words.replace("\\cdot", "·")
    per = _PER.match(words)
    bare = words[per.end() :] if per is not None else words
    if not _UNIT_LIKE.fullmatch(bare):
        return None
    names = re.split(r"[ /]", bare)
    if any(name.lower() in _MATHEMATICS for name in names):
        return None
    attached = not space and per is None
    known = unit(words)
    if (attached or len(bare) == 1) and (known is None or not known.dimensions):
        return None
    if attached and names[0].isalpha() and len(names[0]) == 1:  # 5m may be five times a variable
        return None
    number = rational(head)
    if number is None:
        return None
    if (part := named_part(names[0], single=number.value == 1)) is not None:
        rest = names[3:] if names[1:2] == ["of"] and names[2:3] in (["a"], ["an"]) else names[1:]
        if "of" in rest:
            return None
        number = Number(number.value * part)
        words = " ".join(rest)
        known = unit(words)
    elif names[0].lower() in _MAGNITUDES:
        number = Number(number.value * _MAGNITUDES[names[0].lower()])
        words = words[len(names[0]) :].strip()
        known = unit(words)
    return number, known or COUNT


def _with_chinese(text: str) -> tuple[Number, Unit] | None:
    match = _CHINESE.fullmatch(text)
    if match is None:
        return _chinese_words(text)
    head, magnitude, name = match.groups()
    if _NO_CLASSIFIER.match(name):
        return None
    known = unit(name)
    # 分钟 and 分米 are units although 分 alone may be a numeral's part (三分之一).
    if (known is None or not known.dimensions) and name[:1] in _CHINESE_NUMERALS and name != "分":
        return None
    number = rational(head)
    if number is None:
        return None
    if magnitude:
        number = Number(number.value * _MAGNITUDES[magnitude])
    return number, known or COUNT


_CHINESE_UNIT = re.compile(
    r"(.+?)((?:平方|立方)?(?:厘米|分米|毫米|千米|公里|米|元|小时|分钟|天|年|千克|克|吨|升|个|只|人|本|支|页|次|辆|岁|棵|块|倍|颗|名|件|条|张"
    r"|枝|朵|台|箱|盒|套|双|把|头|匹|袋|瓶|杯|段|种|排|组|层|度))"
)


def _chinese_words(text: str) -> tuple[Number, Unit] | None:
    """`十二个`, `三分之一米`: a number in words with a unit."""
    match = _CHINESE_UNIT.fullmatch(text)
    if match is None or (value := number_in_words(match.group(1))) is None:
        return None
    return Number(value), unit(match.group(2)) or COUNT


def split_unit(text: str) -> tuple[str, Unit] | None:
    """A formula and the unit after it: `2\\sqrt{3}\\text{ cm}`. None if no unit is named.

    The text is canonical: `\\text` still marks what is not a variable.
    """
    match = re.fullmatch(
        r"(.*[\w}\])!])\s*\\(?:text(?:rm|bf|it|normal)?|mathrm|mbox|operatorname)\s*"
        r"\{[\s~]*([^{}]*)\}(?:\s*\^\s*\{?(-?\d)\}?)?\s*",
        text,
        re.DOTALL,
    )
    if match is not None:
        head, words, power = match.groups()
        known = unit(words.strip(" ~") + (f"^{power}" if power else ""))
        return None if known is None or words.strip().lower() in _MATHEMATICS else (head, known)
    match = re.fullmatch(
        r"(.*(?:[\d}\])π]|\\pi)) +([A-Za-z]{2,}(?: [A-Za-z]{2,})*(?:\^\d)?)", text, re.DOTALL
    )
    if match is None or any(w.lower() in _MATHEMATICS for w in match.group(2).split()):
        match = re.fullmatch(
            r"(.*[A-Za-z0-9}\])π]) ?((?:平方|立方)?[\u4e00-\u9fff]{1,6})", text, re.DOTALL
        )
    if match is None:
        return None
    known = None if _NO_CLASSIFIER.match(match.group(2)) else unit(match.group(2))
    if known is None or (
        not known.dimensions and len(match.group(2)) <= 3 and match.group(2).isascii()
    ):
        return None
    return match.group(1), known


@dataclass(frozen=True, slots=True)
class Numeral:
    """Digits with their base, which is None if it is not stated."""

    digits: str
    base: int | None

    @property
    def value(self) -> int | None:
        """The value of the numeral; None if a digit does not exist in the base."""
        try:
            return int(self.digits, self.base or 10)
        except ValueError:
            return None


def numeral(text: str) -> Numeral | None:
    """A numeral such as `1011_2`, `(2F)_{16}`, `101_{two}` or `1011`; None for anything else."""
    if len(text) > MAX_LENGTH:
        return None
    based = _BASED.fullmatch(text.replace(" _", "_"))
    if based is not None:
        words = based.group(3)
        base = (
            int(based.group(2)) if words is None else [*range(2, 11), 16][_BASE_NAMES.index(words)]
        )
        return Numeral(based.group(1).upper(), base) if 2 <= base <= 36 else None
    named = _IN_BASE.fullmatch(text)
    if named is not None:
        written = named.group(2) or named.group(3)
        base = int(written) if written.isdecimal() else int(number_in_words(written) or 0)
        return Numeral(named.group(1).upper(), base) if 2 <= base <= 36 else None
    prefixed = re.fullmatch(r"0([xob])([0-9A-Fa-f]+)", text)
    if prefixed is not None:
        base = {"x": 16, "o": 8, "b": 2}[prefixed.group(1)]
        return Numeral(prefixed.group(2).upper(), base)
    return Numeral(text.upper(), None) if _PLAIN_BASED.fullmatch(text) else None


__all__ = ["SYMBOLS", "Numeral", "Quantity", "numeral", "quantity", "split_unit"]
