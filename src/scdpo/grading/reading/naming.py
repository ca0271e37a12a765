"""Named values: `x = 3`, `(a, b) = (1, 2)`, `f(x) = x + 1`, `Tom has 12`, `最大值为3`."""

from __future__ import annotations

import re

from scdpo.grading.formulas.notation import FUNCTIONS
from scdpo.grading.quantities.units import is_unit
from scdpo.grading.reading.parts import Equation, Items, Leaf, Named, Part, Read
from scdpo.grading.text.brackets import enclosed, split
from scdpo.grading.text.canonical import has_both_signs

_RATIO_NAME = re.compile(r"[A-Za-z](?:_\{?\w+\}?)?(?::[A-Za-z](?:_\{?\w+\}?)?)+")
NAME = re.compile(
    r"(?:m?\\(?:angle|triangle|overrightarrow|overline|vec|mathbf) ?\{? ?)?\\?[A-Za-z]+\}?"
    r"(?:_(?:\{[\w+\-\\ ,]+\}|\w+))?'*(?:\^\{?-1\}?|(?<=[A-Z])\^\{?[nk]\}?)?"
    r"(?:\(\s*(?:\\?[A-Za-z\d]+|[-+]?\d+(?:\.\d+)?)(?:\s*,\s*(?:[A-Za-z\d]+"
    r"|[-+]?\d+(?:\.\d+)?))*\s*\))?"
)
_VARIABLE = r"(?:\\[a-z]+|[A-Za-z])(?:_\{?\w+\}?)?"
_TUPLE_NAME = re.compile(rf"\(\s*{_VARIABLE}(?:\s*,\s*{_VARIABLE})+\s*\)")
_WORD_NAME = re.compile(
    r"\\(?:text|mathrm|mathbf|operatorname)\s*\{[^{}]*\}|[A-Za-z][A-Za-z' ]{3,60}"
    r"|[\u4e00-\u9fff]{1,12}"
)
_LABEL = re.compile(
    r"((?:\\angle ?)?[A-Z]|[A-Z][a-z]{2,}"
    r"|(?!max|min|(?:twice|half|double|triple|thrice|about|over|under|nearly|almost|least|most"
    r"|except"
    r"|until|before|after|minus|negative|below|above|around|square|cube|divisible|multiple|not)\b)"
    r"[a-z]{4,12}|(?![最极]|.{0,3}(?:不|除|非|被|至|约|超|零|第|倍|以))[\u4e00-\u9fff]{1,4})"
    r"(?:'s \w+)?\s*(?::|(?<=[a-z])(?: (?:has|have|is|gets|got|of))?(?=\s)"
    r"|(?<=[\u4e00-\u9fff])(?:为|有|得|是)?)\s*(?!\d+:)(-?[\d\\(].*)",
    re.DOTALL,
)
"""A label and its value: `A: 15`, `Tom has 12`, `width 5`, `甲60个`."""
_EXTREME = re.compile(
    r"(?:the )?(?:\\text\w*\s*\{\s*)?(?:\\?(max|min)(?:imum)?|(最大|最小|极大|极小)值?)"
    r"(?: value)?\s*\}?\s*(?:is|=|为|是|:)?\s*(?![({⦃][^()]*,)(?=[-\d\\(])",
    re.IGNORECASE,
)
_EXTREMES = {"最大": "max", "最小": "min", "极大": "max", "极小": "min"}
MAX_SIDES = 12
_EQUALS = re.compile(r"(?<![:<>!])=")
_IS = re.compile(r"(?<=[\u4e00-\u9fffA-Za-z})])(?:为|是)|等于")


def equated(text: str, read: Read) -> Part | None:
    """`x = 3`, `(a, b) = (1, 2)`, `f(x) = …`; other equations; `最大值为3`."""
    label = _LABEL.fullmatch(text)
    if label is not None and not is_unit(label.group(1)) and label.group(1) not in FUNCTIONS:
        return Named(label.group(1), read(label.group(2)))
    extreme = _EXTREME.match(text)
    if extreme is not None and extreme.end() < len(text):
        name = (extreme.group(1) or _EXTREMES[extreme.group(2)]).lower()
        return Named(name, read(text[extreme.end() :]))
    sides = [side.strip() for side in split(text, _EQUALS)]
    if len(sides) < 2 and re.search(r"[\u4e00-\u9fff]", text):
        sides = [side.strip() for side in _IS.split(text, maxsplit=1)]
    if not 2 <= len(sides) <= MAX_SIDES or not all(sides):
        return None
    *heads, last = sides
    if _TUPLE_NAME.fullmatch(heads[0]) and len(heads) == 1:
        return _assigned(heads[0], read(last))
    if enclosed(last) and "," in last and enclosed(heads[-1]):
        return read(last)  # (6 + 4, 3) = (10, 3)
    if all(NAME.fullmatch(head) and not _known(head) for head in heads):
        value = read(last)
        named = [Named(head, value) for head in heads]
        return named[0] if len(named) == 1 else Items("list", tuple(named))
    if any(p.fullmatch(heads[0]) for p in (NAME, _RATIO_NAME)) or _WORD_NAME.fullmatch(heads[0]):
        return Named(heads[0], read(last))
    if len(heads) == 1:
        if NAME.fullmatch(last) and not _known(last) and not re.search(r"[A-Za-z]", heads[0]):
            return Named(last, read(heads[0]))  # 3 = x
        return Equation(heads[0], last)
    constant = not re.search(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", last))
    return read(last) if constant else Leaf(text)


def _known(name: str) -> bool:
    return re.fullmatch(r"\\?(?:pi|sin|cos|tan|log|ln|e|sqrt|frac)", name) is not None


def _assigned(names: str, value: Part) -> Part:
    """`(a, b) = (1, 2)` as two named values; several tuples stay as they are."""
    keys = [key.strip() for key in names.strip("() ").split(",")]
    if (
        isinstance(value, Items)
        and value.kind in ("tuple", "bracket")
        and len(value.items) == len(keys)
        and not any(isinstance(item, Leaf) and has_both_signs(item.text) for item in value.items)
    ):
        pairs = zip(keys, value.items, strict=True)
        return Items("list", tuple(Named(key, item) for key, item in pairs))
    return value
