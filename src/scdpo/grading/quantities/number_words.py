"""Numbers written out in words: English and Chinese cardinals, fractions and percentages."""

from __future__ import annotations

import re
from fractions import Fraction

MAX_LENGTH = 100
"""Longest text read as a number in words, in characters."""

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SMALL = {word: value for value, word in enumerate(_ONES)} | {
    word: 10 * value for value, word in enumerate(_TENS, start=2)
}
_LARGE = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {
    "half": 2,
    "halves": 2,
    "third": 3,
    "quarter": 4,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "seventh": 7,
    "eighth": 8,
    "ninth": 9,
    "tenth": 10,
    "eleventh": 11,
    "twelfth": 12,
    "thirteenth": 13,
    "fifteenth": 15,
    "sixteenth": 16,
    "twentieth": 20,
    "thirtieth": 30,
    "hundredth": 100,
    "thousandth": 1000,
}


def named_part(word: str, single: bool = False) -> Fraction | None:
    """The fraction that a plural behind digits names: 1/10 for `tenths` in `7 tenths`; with
    `single` also that of a singular, as in `1 third`."""
    word = word.lower()
    if word in ("tenth", "hundredth", "thousandth", "half"):
        return Fraction(1, _PARTS[word])
    singular = "half" if word == "halves" else word.removesuffix("s")
    if (singular == word and not single) or singular not in _PARTS:
        return None
    return Fraction(1, _PARTS[singular])


_ORDINAL = re.compile(r"(\d+) ?(?:\^ ?\{? ?)?(st|nd|rd|th)(?: ?\})?")
_CN_ORDINAL = re.compile(r"第 ?(.+)")

_CN_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {
    "〇": 0,
    "两": 2,
    "壹": 1,
    "贰": 2,
    "叁": 3,
    "肆": 4,
    "伍": 5,
    "陆": 6,
    "柒": 7,
    "捌": 8,
    "玖": 9,
}
_CN_UNITS = {"十": 10, "拾": 10, "百": 100, "佰": 100, "千": 1000, "仟": 1000}
_CN_SECTIONS = {"万": 10**4, "亿": 10**8}
_CN_ALL = frozenset("负点半又") | set(_CN_DIGITS) | set(_CN_UNITS) | set(_CN_SECTIONS)
_CN_PERCENT = re.compile(r"(负?)百分之(.+)")
_CN_PARTS = re.compile(r"(负?)(?:(.+)又)?(.+)分之(.+)")
_CN_TENTHS = re.compile(r"([一二三四五六七八九])成(?:([一二三四五六七八九半])|)")


def number_in_words(text: str) -> Fraction | None:
    """The number that a whole text spells out, or None.

    Reads `twenty-five`, `one hundred and two`, `two thirds`, `three and a half`, `minus four`,
    `3rd`; `十二`, `两万五千`, `二点五`, `三分之一`, `一又三分之二`, `百分之二十五`,
    `三成`, `一半`, `第7`.
    """
    text = text.strip()
    if not text or len(text) > MAX_LENGTH:
        return None
    if text.isascii():
        return _english(text.lower())
    return _chinese(text.replace(" ", ""))


def _english(text: str) -> Fraction | None:
    ordinal = _ORDINAL.fullmatch(text)
    if ordinal is not None:
        return Fraction(int(ordinal.group(1)))
    if not re.fullmatch(r"[a-z][a-z\- ]*", text):
        return None
    if text in ("half a dozen", "half dozen"):
        return Fraction(6)
    words = text.replace("-", " ").split()
    sign = 1
    if words[0] in ("minus", "negative"):
        sign, words = -1, words[1:]
    value = _english_value(words)
    return None if value is None else sign * value


def _english_value(words: list[str]) -> Fraction | None:
    if not words:
        return None
    part = words[-1].removesuffix("s") if words[-1] not in _PARTS else words[-1]
    if part not in _PARTS:
        whole = _cardinal(words)
        return None if whole is None else Fraction(whole)
    under = Fraction(1, _PARTS[part])
    if words[:-1] in (["a"], ["one"], []):
        # "third" alone is an ordinal; "half" alone is not.
        return under if words[:-1] or part == "half" else None
    if "and" in words:
        at = len(words) - 1 - words[::-1].index("and")
        whole, rest = _cardinal(words[:at]), _english_value(words[at + 1 :])
        return whole + rest if whole is not None and rest is not None and rest < 1 else None
    over = _cardinal(words[:-1])
    return None if over is None else over * under


def _cardinal(words: list[str]) -> int | None:
    """`three hundred and five thousand two` as 305002."""
    total = section = 0
    last = 10**15
    seen = False
    for at, word in enumerate(words):
        if word == "and" and seen and at + 1 < len(words):
            continue
        if word == "a" and at + 1 < len(words) and words[at + 1] in ("hundred", *_LARGE):
            section += 1
        elif word in _SMALL:
            value = _SMALL[word]
            if seen and section % 100 and not (section % 10 == 0 and section % 100 >= 20 > value):
                return None
            if value >= 10 and section % 100:
                return None
            section += value
        elif word == "hundred" and 0 < section < 100:
            section *= 100
        elif word in _LARGE and section and _LARGE[word] < last:
            last = _LARGE[word]
            total, section = total + section * last, 0
        elif word == "dozen" and at == len(words) - 1:
            section = max(section, 1) * 12
        else:
            return None
        seen = True
    return total + section if seen else None


def _chinese(text: str) -> Fraction | None:
    if (ordinal := _CN_ORDINAL.fullmatch(text)) is not None:
        text = ordinal.group(1)
        return Fraction(int(text)) if text.isdecimal() else _chinese(text)
    if text in ("一半", "半"):
        return Fraction(1, 2)
    if (percent := _CN_PERCENT.fullmatch(text)) is not None:
        value = _chinese_number(percent.group(2))
        return None if value is None else (-value if percent.group(1) else value) / 100
    if (tenths := _CN_TENTHS.fullmatch(text)) is not None:
        second = tenths.group(2)
        value = Fraction(_CN_DIGITS[tenths.group(1)], 10)
        return value + (
            Fraction(1, 20) if second == "半" else Fraction(_CN_DIGITS.get(second, 0), 100)
        )
    if (parts := _CN_PARTS.fullmatch(text)) is not None:
        sign, whole, under, over = parts.groups()
        values = [_chinese_number(p) for p in (whole or "零", under, over)]
        if None in values or not values[1]:
            return None
        value = (values[0] or 0) + (values[2] or 0) / values[1]
        return -value if sign else Fraction(value)
    return _chinese_number(text)


def _chinese_number(text: str) -> Fraction | None:
    """`三千零五`, `二点五`, `两万五`; digits may be Arabic ones."""
    if re.fullmatch(r"\d+(?:\.\d+)?", text):
        return Fraction(text)
    if not text or not set(text) <= _CN_ALL:
        return None
    if text.startswith("负"):
        value = _chinese_number(text[1:])
        return None if value is None else -value
    whole, point, decimals = text.partition("点")
    if point:
        digits = [_CN_DIGITS.get(character) for character in decimals]
        head = _chinese_integer(whole)
        if head is None or not digits or None in digits:
            return None
        return head + Fraction(int("".join(map(str, digits))), 10 ** len(digits))
    integer = _chinese_integer(text)
    return None if integer is None else Fraction(integer)


def _chinese_integer(text: str) -> int | None:
    if not text:
        return None
    if len(text) > 1 and all(character in _CN_DIGITS for character in text):
        return int("".join(str(_CN_DIGITS[character]) for character in text))  # 二〇二四
    total = section = 0
    digit: int | None = None
    last = 1
    for character in text:
        if character in _CN_DIGITS:
            if digit:
                return None
            digit = _CN_DIGITS[character]
            last = 10 if digit == 0 else last
        elif character in _CN_UNITS:
            section += (1 if digit is None else digit) * _CN_UNITS[character]
            last, digit = _CN_UNITS[character], None
        elif character in _CN_SECTIONS:
            value = section + (digit or 0)
            if not value and not total:
                return None
            # 一万亿 multiplies all before it; in 一亿三千万 the 万 counts what follows 亿.
            size = _CN_SECTIONS[character]
            total = (total + value) * size if total < size else total + value * size
            last, section, digit = _CN_SECTIONS[character], 0, None
        else:
            return None
    # 两万五 is 25000, 三百五 is 350: a final digit after a unit counts tenths of that unit.
    return total + section + (digit or 0) * (last // 10 if last >= 100 else 1)
