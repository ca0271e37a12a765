"""Words that turn an answer into its opposite: profit and loss, north and south, BC and AD."""

from __future__ import annotations

import re

from scdpo.grading.quantities.units import is_unit

_ENGLISH = """
profit profits gain gains surplus earned / loss losses lost deficit
north northward northwards northern / south southward southwards southern
east eastward eastwards eastern / west westward westwards western
northeast / southwest
northwest / southeast
refund refunded / charge charged fee
clockwise / counterclockwise anticlockwise
more / fewer less
bc bce b.c. b.c.e. / ad ce a.d. c.e.
left leftward leftwards / right rightward rightwards
early earlier / late later
above / below
up upward upwards upstairs / down downward downwards downstairs
ahead / behind
before / after
increase increased increases rise rises rose / decrease decreased decreases fall falls fell drops
older / younger
taller / shorter
faster quicker / slower
higher / lower
cheaper / expensive dearer costlier
gains gained / loses lose lost
longer / shorter
larger bigger greater / smaller
heavier / lighter
hotter warmer / colder cooler
inside / outside
forward forwards / backward backwards
overpaid overpayment / underpaid underpayment
deposit deposited / withdrawal withdrawn withdrew
credit / debit
win wins / lose loses
uphill / downhill
ascending / descending
wider / narrower
thicker / thinner
deeper / shallower
nearer closer / farther further
stronger / weaker
imports import imported / exports export exported
discount discounted markdown / surcharge markup premium
maximum max most / minimum min least
odd / even
convex / concave
upstream / downstream
boys boy / girls girl
men man / women woman
wins won / losses lost
heads / tails
acute / obtuse
positive / negative
morning / afternoon evening
"""
_CHINESE = (
    "东/西 南/北 左/右 上/下 前/后 多/少 大/小 长/短 高/低 重/轻 快/慢 早/晚"
    " 男/女 奇/偶 进/退 涨/跌 盈/亏 顺/逆 内/外 增/减 升/降 宽/窄 厚/薄 远/近 深/浅 买/卖"
)
_CHINESE_WORDS = """
盈利 赚 盈 赢利 / 亏损 亏 赔 亏本
公元后 / 公元前
顺时针 / 逆时针
增加 上升 提高 上涨 增长 / 减少 下降 降低 下跌
收入 存入 / 支出 取出
零上 / 零下
最大 / 最小
向东 / 向西
向南 / 向北
提前 / 推迟 延后
"""


def _pairs(table: str) -> list[tuple[frozenset[str], frozenset[str]]]:
    sides = [line.split("/") for line in table.strip().splitlines()]
    return [(frozenset(a.split()), frozenset(b.split())) for a, b in sides]


_OPPOSITES = _pairs(_ENGLISH)
_WORDS = _pairs(_CHINESE_WORDS)
_CHARACTERS = [tuple(pair.split("/")) for pair in _CHINESE.split()]
_KNOWN = frozenset(word for pair in _OPPOSITES for side in pair for word in side)
_WORD = re.compile(
    r"(?<![A-Za-z\\])(?:[bB]\.[cC]\.(?:[eE]\.)?|[aA]\.[dD]\.|[cC]\.[eE]\.|counter-?clockwise"
    r"|anti-?clockwise|[A-Za-z]+)"
)
_COLOURS = re.compile(r"in the (red|black)\b")
_HAN = re.compile(r"[\u4e00-\u9fff]")
_LETTERS = re.compile(r"(?<!\\)\b[A-Za-z]{2}|[bB]\.[cC]|[aA]\.[dD]|[\u4e00-\u9fff]")
MAX_LENGTH = 400
"""Longest answer whose words are compared, in characters."""


def opposed(gold: str, answer: str) -> bool:
    """Whether an answer has the opposite of a word of the gold answer, and the word not itself.

    Sentences that compare two things (`than`) can say the same with opposite words; they are
    opposed if they differ in nothing else.
    """
    if max(len(gold), len(answer)) > MAX_LENGTH:
        return False
    if not (_LETTERS.search(gold) and _LETTERS.search(answer)):
        return False
    ours, theirs = _words(gold), _words(answer)
    if "than" in ours or "than" in theirs:
        return _differ_in_one_word(gold, answer)
    pairs = _OPPOSITES if ours and theirs else ()
    for first, second in pairs:
        for a, b in ((first, second), (second, first)):
            if ours & a and theirs & b and not ours & b and not theirs & a:
                return True
    return bool(_HAN.search(gold) and _HAN.search(answer)) and _opposed_chinese(gold, answer)


def _differ_in_one_word(gold: str, answer: str) -> bool:
    """Whether two texts are the same but for one word and its opposite."""
    ours, theirs = (text.lower().rstrip(". ").split() for text in (gold, answer))
    if len(ours) != len(theirs):
        return False
    different = [{a, b} for a, b in zip(ours, theirs, strict=True) if a != b]
    return len(different) == 1 and any(
        different[0] & first and different[0] & second for first, second in _OPPOSITES
    )


_NUMBERED = re.compile(r"[$€£¥₹]\s*\d[\d.,]*|\d[\d.,]*\s*\\?%|\d[\d.,]* ?(?P<unit>[A-Za-z]+)")
_PLAIN_WORDS = frozenset(
    "total totally altogether each per all about approximately roughly exactly only just and the"
    " for from with was were are has have had will that this they there answer overall".split()
)


def otherwise_qualified(gold: str, answer: str) -> bool:
    """Whether other words are beside the same measure: `80 km inland` and `80 km offshore`.

    Behind a unit, words say what the measure is, while a counted thing may be called differently.
    """
    if max(len(gold), len(answer)) > MAX_SHORT or not (
        _LETTERS.search(gold) and _LETTERS.search(answer)
    ):
        return False
    ours, theirs = _beside_measure(gold), _beside_measure(answer)
    return bool(ours and theirs) and not ours & theirs


MAX_SHORT = 60
"""Longest answer whose words beside a measure are compared, in characters."""


def _beside_measure(text: str) -> set[str]:
    """The first letters of the words beside a measure, without those that say nothing of it."""
    found = [m for m in _NUMBERED.finditer(text) if not m["unit"] or is_unit(m["unit"])]
    if len(found) != 1 or "\\" in text.replace("\\$", "").replace("\\%", ""):
        return set()
    rest = text[: found[0].start()] + " " + text[found[0].end() :]
    words = {word.lower() for word in re.findall(r"[A-Za-z]{3,}", rest)}
    kept = {word for word in words - _PLAIN_WORDS if not is_unit(word)}
    sides = (side for pair in _OPPOSITES for side in pair)
    return {word[:4] for word in kept} | {min(side) for side in sides if side & kept}


def _words(text: str) -> set[str]:
    text = _COLOURS.sub(lambda found: "loss" if found.group(1) == "red" else "profit", text)
    words = {word.lower().replace("-", "") for word in _WORD.findall(text)}
    return words & _KNOWN | words & {"than"}


def _opposed_chinese(gold: str, answer: str) -> bool:
    for first, second in _WORDS:
        for a, b in ((first, second), (second, first)):
            if _has(gold, a) and _has(answer, b) and not _has(gold, b) and not _has(answer, a):
                return True
    if any(
        "公元前" in a and "公元" in b and "前" not in b for a, b in ((gold, answer), (answer, gold))
    ):
        return True
    plain = [re.sub(r"\s", "", text) for text in (gold, answer)]
    return plain[0] != plain[1] and any(
        plain[0].replace(a, b) == plain[1] or plain[0].replace(b, a) == plain[1]
        for a, b in _CHARACTERS
    )


def _has(text: str, words: frozenset[str]) -> bool:
    return any(word in text for word in words)
