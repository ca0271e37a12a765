"""Answers that are words: names, yes and no, `no solution`, letters of choices, sentences."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from scdpo.grading.formulas.notation import FUNCTIONS
from scdpo.grading.quantities.number_words import number_in_words
from scdpo.grading.quantities.quantity import quantity
from scdpo.grading.quantities.units import is_unit
from scdpo.grading.text.normalise import clean
from scdpo.grading.text.vocabulary import TRANSLATED, word_class
from scdpo.records import CORRECT, WRONG, Verdict, undecided

_CHOICE = re.compile(
    r"(?i:option |choice |选项?|answer )?(?:\(([A-J])\)(?: ?[^A-Za-z].*| .*)?"
    r"|([A-J])(?:[.:)、] ?.*| [^A-Za-z].*| ?[\u4e00-\u9fff].*)?|\(([a-j])\))"
)
_CHOICES = re.compile(r"\(?[A-J]\)?(?:(?:,? ?and |,|、|和| )?\(?[A-J]\)?)+")
_LETTER = re.compile(r"\(?([A-Ja-j])\)?")
_WITH_CONTENT = re.compile(r"(?:\([A-Ja-j]\)[.: ]? ?|[A-J]\) ?|[A-J]\. )(?![,;)])(.+)", re.DOTALL)
_WORDY = re.compile(r"[A-Za-z](?:[A-Za-z'’\-, ]|\. )*[A-Za-z]")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_FUNCTIONS = re.compile("and|sin|cos|tan|cot|sec|csc|log|exp|sqrt|mod|pmod|pmatrix|lim|max|min")
_ARTICLES = re.compile(r"\b(?:a|an|the|is|are|it|they|of|in|on|at|was|only|triangle|number)\b")

_SUFFIXES = frozenset(
    "同学 队 班 车 方案 店 商店 家 组 厂 更 数 函数 方 公司 们 人 先生 老师 号".split()
)
_FRAME = re.compile(r"^(?:答案?[::]?|所以|因此|即|是|为)+|[。.!,,]+$")


def choices(gold: str, answer: str) -> Verdict | None:
    """Answers of multiple-choice questions: `(B)`, `B`, `B. 12`, `A, C` and `AC`."""
    if any(re.fullmatch("[①-⑩,、和 ]+", text) for text in (gold, answer)):
        numbers = [_numbered(text) for text in (gold, answer)]
        if all(numbers):
            return CORRECT if numbers[0] == numbers[1] else WRONG
    if _CHOICES.fullmatch(gold) and _CHOICES.fullmatch(answer):
        letters = [set(re.findall("[A-J]", text)) for text in (gold, answer)]
        # AB may be a product: only a list, or letters in alphabetical order, are choices.
        listed = [re.search(r"[,、和( ]|and", text) for text in (gold, answer)]
        spelt = [text == "".join(sorted(set(text))) for text in (gold, answer)]
        if all(found or sorted_ for found, sorted_ in zip(listed, spelt, strict=True)):
            return CORRECT if letters[0] == letters[1] else WRONG
    ours, theirs = _choice(gold), _choice(answer)
    lone = [_LETTER.fullmatch(text) for text in (gold, answer)]
    if ours and theirs and "(" in gold + answer and None in lone and lone != [None, None]:
        return CORRECT if ours == theirs else WRONG
    if lone[1] is not None and quantity(gold) is not None:
        return undecided("the letter of a choice for its value")
    if lone[0] is not None and gold.strip("()") in "ABCDE" and quantity(answer) is not None:
        return undecided("the value of a choice for its letter")
    if not ours or not theirs or re.search(r"\([b-jB-J]\)", gold[2:] + answer[2:]):
        return None
    if lone[0] is None and lone[1] is None:
        if "(" not in (gold[0], answer[0]):
            return None
        return CORRECT if ours == theirs else WRONG
    both_alone = lone[0] is not None and lone[1] is not None
    if both_alone and "(" not in gold + answer and not (gold + answer).isupper():
        return None  # variables
    return CORRECT if ours == theirs else WRONG


def _numbered(text: str) -> set[str]:
    """The numbers of statements: ①③, (1), (3) or 1, 3; empty for anything else."""
    plain = unicodedata.normalize("NFKC", re.sub("([①-⑩])", r" \1 ", text))
    if not re.fullmatch(r"(?:[\d,、和() ]|and)+", plain):
        return set()
    return set(re.findall(r"\d+", plain))


def _choice(text: str) -> str:
    """The letter of a choice, with or without the text of the choice after it."""
    match = _CHOICE.fullmatch(text)
    return "" if match is None else next(filter(None, match.groups())).upper()


def content(text: str) -> str | None:
    """The text after the letter of a choice: 12 for `(C) 12`; None without a letter."""
    match = _WITH_CONTENT.fullmatch(text)
    if match is not None and re.search(r"\([b-jB-J]\)", match.group(1)):
        return None  # several parts: (a) 3; (b) 5
    return match.group(1).strip() if match is not None else None


_DOUBTS = re.compile(
    r"\b(?:not|never|neither|nor|or|and|but|before|after|than|unless|if|cannot|no|false|either"
    r"|possibly|perhaps|both|except|assum\w*|suppos\w*|would|could|might|may)\b|n't",
    re.IGNORECASE,
)


def _concluded(gold: str, answer: str) -> bool:
    """Whether a sentence ends by stating the gold word: `The graph is an ellipse.`"""
    if not re.fullmatch(r"[A-Za-z]{4,}", gold) or _DOUBTS.search(answer):
        return False
    said = rf"[^.;?!]+ (?:is|was|are|on|in)(?: an?| the)? {gold}(?: (?:function|number|curve))?"
    return re.fullmatch(said, answer, re.IGNORECASE) is not None


def words(gold: str, answer: str) -> Verdict | None:
    """Names, weekdays, yes and no, in English and Chinese."""
    first, second = word_class(gold), word_class(answer)
    if second == "unknown" and first != "unknown":
        return undecided("the answer says that it cannot be known")
    if first and second:
        if {first, second} in ({"many", "infinity"}, {"no", "none"}):
            return undecided("one answer may mean the other")
        return CORRECT if first == second else WRONG
    if _CHINESE.search(gold) or _CHINESE.search(answer):
        return _chinese(gold, answer, first, second)
    if _concluded(gold, answer):
        return CORRECT
    if not _WORDY.fullmatch(answer) or len(answer) < 2:
        return None
    if (number := quantity(gold)) is not None:
        if second in ("none", "no") and not number.value:
            return undecided("one answer may mean the other")
        return WRONG if second else undecided("cannot parse the answer")
    if not _WORDY.fullmatch(gold):
        return WRONG if second and not _WORDY.fullmatch(gold) and second != "all" else None
    if first or second:
        return undecided("words differ")
    return _english(gold, answer)


_ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
    "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
).split()


def ordinals(gold: str, answer: str) -> Verdict | None:
    """`7th` and `seventh`."""
    found = [_ordinal(text) for text in (gold, answer)]
    if None in found or not any(re.match(r"\d", text) for text in (gold, answer)):
        return None
    return CORRECT if found[0] == found[1] else WRONG


def _ordinal(text: str) -> int | None:
    match = re.fullmatch(r"(\d+) ?(?:\^? ?\{? ?(?:st|nd|rd|th) ?\}?)", text)
    if match is not None:
        return int(match.group(1))
    return _ORDINALS.index(text.lower()) + 1 if text.lower() in _ORDINALS else None


_NAME = re.compile(
    r"(?:(?:Mrs?|Ms|Dr)\.? )?(?!(?:It|There|This|That|The|He|She|They|We|You|An|In|On|At|No|Yes)\b)"
    r"[A-Z]\w+"
)
_SUBJECT = re.compile(
    rf"({_NAME.pattern}) (?:has|have|had|wins?|won|is|was|will|can|got|did)\b(?!.*\bnot\b).*"
)


def _english(gold: str, answer: str) -> Verdict | None:
    first, second = (_key_words(text) for text in (gold, answer))
    if first == second:
        return CORRECT
    for whole, name in ((gold, answer), (answer, gold)):
        subject = _SUBJECT.fullmatch(whole)
        if subject is not None and _NAME.fullmatch(name):
            return CORRECT if subject.group(1) == name else WRONG  # Alice has a winning strategy
    if len(gold) <= 2 or len(answer) <= 2:
        return None if len(first) == len(second) == 1 else WRONG
    if ("not" in first) != ("not" in second):
        return WRONG if set(first) ^ set(second) == {"not"} else undecided("words differ")
    if set(first) <= set(second) or set(second) <= set(first):
        return undecided("one answer's words are part of the other's")
    stems = [{word[:5] for word in text if len(word) > 4} for text in (first, second)]
    # A word or two name a thing; longer phrases may say the same in other words.
    if stems[0] & stems[1] or len(first) != len(second) or len(first) > 2:
        return undecided("words differ")
    return WRONG


def _key_words(text: str) -> list[str]:
    text = re.sub(r"^\w(?:\(\w\))? is ", "", text)
    found = _ARTICLES.sub(" ", text.lower().replace("-", " ").replace(",", " "))
    return found.split() or text.lower().split()


def _chinese(gold: str, answer: str, first: str, second: str) -> Verdict | None:
    pair = (gold.lower(), answer.lower())
    if pair in TRANSLATED or pair[::-1] in TRANSLATED:
        return CORRECT
    ours, theirs = (
        re.sub("[而的地了]", "", _FRAME.sub("", text.replace(" ", ""))) for text in (gold, answer)
    )
    if ours == theirs:
        return CORRECT
    if (ours.lower(), theirs) in TRANSLATED or (theirs.lower(), ours) in TRANSLATED:
        return CORRECT
    if quantity(gold) is not None:
        return WRONG if second else None
    if second or first:
        return (
            WRONG
            if not (_CHINESE.search(gold) and _CHINESE.search(answer)) or (first and second)
            else undecided("words differ")
        )
    for long, short in ((ours, theirs), (theirs, ours)):
        rest = long.removeprefix(short)
        if rest != long:
            return CORRECT if rest in _SUFFIXES else undecided("one answer is part of the other")
    if not (_CHINESE.search(gold) and _CHINESE.search(answer)):
        english = {a for a, b in TRANSLATED for text in (ours, theirs) if text == b}
        plain = {ours.lower(), theirs.lower()} & {a for a, _ in TRANSLATED}
        if english and plain:
            return WRONG
        return None
    return WRONG if _contrast(ours, theirs) else undecided("words differ")


_CONTRASTING = frozenset(
    "一二三四五六七八九十甲乙丙丁戊大小多少东南西北左右上下前后奇偶增减正负长短高低快慢早晚男女"
    "真假是否红黄蓝绿黑白紫春夏秋冬充必要分"
)


def _contrast(first: str, second: str) -> bool:
    """Whether two Chinese words name different things: 甲 and 乙, 星期一 and 星期二."""
    if first in ("不" + second, "没" + second) or second in ("不" + first, "没" + first):
        return True
    if len(first) == len(second) <= 8:
        different = [(a, b) for a, b in zip(first, second, strict=True) if a != b]
        if all(a in _CONTRASTING and b in _CONTRASTING for a, b in different):
            return True
    return max(len(first), len(second)) <= 4 and not set(first) & set(second)


def only_words(text: str) -> bool:
    """Whether a text has neither digits nor formulas."""
    return re.search(r"[\d\\=<>^_{}()\[\]]", re.sub(r"\\text\w*\{([^{}]*)\}", r"\1", text)) is None


_CONNECTIVES = frozenset("and for all every any integer integers real the are has have".split())
_LEFT_OUT = re.compile(
    r"\\(?:begin|end)\{[a-z*]+\}|\\(?:text|mathrm|mbox|operatorname|textbf)\w*|\\[A-Za-z]+"
)
_IN_TEXT = re.compile(
    r"\\(?:text(?:rm|bf|it|normal)?|mathrm|mbox|operatorname)\s*\{[\s~]*([^{}]*)\}"
)
_CHINESE_RUN = re.compile(r"[\u4e00-\u9fff]{3,}")


@lru_cache(maxsize=8192)
def has_words(text: str) -> bool:
    """Whether a canonical text has words other than functions, units, numbers and connectives.

    Such a text is more than a formula: parsed as a formula it would be a product of its letters.
    """
    if word_class(clean(text)) or quantity(clean(text)) is not None:
        return False
    plain = _IN_TEXT.sub(
        lambda match: " " if is_unit(match.group(1)) else f" {match.group(1)} ", text
    )
    plain = _LEFT_OUT.sub(" ", plain)
    for word in re.findall(r"[A-Za-z]{3,}", plain):
        points = word.isupper() and len(word) <= 4  # ABC
        known = (
            points
            or word in FUNCTIONS
            or _FUNCTIONS.fullmatch(word)
            or word.lower() in _CONNECTIVES
        )
        if not known and not is_unit(word) and number_in_words(word) is None:
            return True
    return any(
        not is_unit(run) and number_in_words(run) is None for run in _CHINESE_RUN.findall(plain)
    )
