"""LaTeX boxes (`\\boxed{…}`, `\\fbox{…}`, `\\boxed 5`), and what stands beside them."""

from __future__ import annotations

import re
from typing import NamedTuple

from scdpo.grading.quantities.units import is_unit

_BRACE_OR_BOX = re.compile(r"(?<!\\)\\+(?:boxed|fbox)(?![A-Za-z])\s*(\{)?|\\.|[{}]", re.DOTALL)
_UNBRACED = re.compile(r"(?:\\[A-Za-z]+\{[^{}\s]*\}|[^\s${}\\])+")
_LIST_SEPARATOR = re.compile(
    r"(?:[\s$,;、+.&]|\\[()\[\]]|\\q?quad|\\[,;! ])*"
    r"|(?:(?!\bor\b|\\boxed)[^\\]|\\(?:text|q?quad|[()\[\], ])){0,60}?(?:\band\b|和|以及)"
    r"(?:(?!\bor\b|\\boxed)[^\\]|\\(?:text|q?quad|[()\[\], ])){0,20}",
    re.DOTALL,
)
_ALTERNATIVE = re.compile(
    r"(?:[\s$,;]|\\[()\[\]]|\\q?quad)*(?:\\text\w*\s*\{\s*or\s*\}|\bor\b|或者?)(?:[\s$]|\\[()\[\]])*"
)
_RATIO = re.compile(r"[\s$]*(?::|\\colon)[\s$]*")
MOST_BESIDE = 80
"""Characters before and after a box that are searched for what belongs to its content."""

MOST_JOINED = 500
"""Most boxes that are a list together."""


class Box(NamedTuple):
    """A box at `text[start:end]`, and its content without surrounding space."""

    start: int
    end: int
    content: str


def boxes(text: str) -> list[Box]:
    """All outermost boxes that are complete and not empty, found in one pass over the braces."""
    starts = [at for at in (text.find("boxed"), text.find("fbox")) if at >= 0]
    if not starts:
        return []
    # Braces before the first box change nothing: they are only counted within boxes.
    first = len(text[: min(starts)].rstrip("\\"))
    open_braces: list[tuple[int, int] | None] = []  # start of a box and of its content
    complete: list[Box] = []
    for match in _BRACE_OR_BOX.finditer(text, first):
        token, at = match.group(), match.end()
        found: Box | None = None
        if token == "{":
            open_braces.append(None)
        elif token == "}":
            box = open_braces.pop() if open_braces else None
            if box is not None:
                found = Box(box[0], at, text[box[1] : at - 1].strip())
        elif match.group(1):
            open_braces.append((match.start(), at))
        elif token.lstrip("\\").startswith(("boxed", "fbox")):
            bare = _UNBRACED.match(text, at)
            if bare is not None:
                found = Box(match.start(), bare.end(), bare.group().rstrip(".,;:"))
        if found is not None:
            while complete and complete[-1].start > found.start:  # boxes within this one
                complete.pop()
            complete.append(found)
    return [box for box in complete if box.content]


def boxed_answer(text: str, found: list[Box]) -> str | None:
    """The last box, or the last list of boxes, with what belongs to each box's content.

    None where what stands beside a box cannot be read.
    """
    found = found[-MOST_JOINED:]
    answers = [with_neighbours(text, found[-1])]
    joint = ", "
    for box, following in zip(found[-2::-1], found[:0:-1], strict=False):
        if _ALTERNATIVE.fullmatch(text, box.end, following.start):
            joint = " or "
        elif _RATIO.fullmatch(text, box.end, following.start):
            joint = ":"
        elif not _LIST_SEPARATOR.fullmatch(text, box.end, following.start):
            break
        answers.insert(0, with_neighbours(text, box))
    known = [answer for answer in answers if answer is not None]
    if joint == ":" and len(known) == len(answers):
        return ":".join(known)
    return joint.join(dict.fromkeys(known)) if len(known) == len(answers) else None


_END = (
    r"\$|\\[()\[\]]|\n|\\\\|&|[,;。，；]|\.(?=\s|$)|\\q?quad(?![A-Za-z])|\\end\{"
    r"|\\(?:text\w*|mbox)\{"
)
_RELATION = (
    r"[=<>≈≤≥⇒→:]|\\(?:approx|leq?|geq?|neq?|Rightarrow|implies|to|rightarrow|Longrightarrow|iff"
    r"|Leftrightarrow|equiv|sim|in|therefore|because|colon)(?![A-Za-z])"
)
_BEFORE = re.compile(rf".*(?:{_END}|{_RELATION})", re.DOTALL)
_AFTER = re.compile(rf"(.*?)(?:(?P<relation>{_RELATION})|{_END}|\Z)", re.DOTALL)
_WRAPPER = re.compile(
    r"(?:\\(?:mathbf|boldsymbol|bm|textbf|text|mathrm|underline|color\{\w+\}|textcolor\{\w+\}"
    r"|displaystyle|large|Large|huge|Huge|left|ans)\s*\{?|\{|\*\*|\\[,;:! ])\s*$"
)
_THIN = re.compile(r"\\[,;:! ]|~")
_SIGN = re.compile(r"(?:^|(?<=[\s({}]))(-|−|\\pm\s*)(\s*)$")
_OPERATOR = re.compile(
    r"(?:[-+*/×÷^_]|\\(?:cdot|times|div|pm|mp|[dtc]?frac|d?binom)|\\sqrt(?:\[\w+\])?\{?|\^\{)\s*$"
)
_TOUCHING = re.compile(r"(?:\d|[)}\]]|\\pi)$")
_FACTOR = re.compile(
    r"\s*(?:\\pi(?![A-Za-z])|π|\\sqrt|√|\^|!|\\?%|°|\\%|\\circ|\\degree|i(?![A-Za-z])|e(?![A-Za-z])"
    r"|(?:\\times|\\cdot|×)\s*10\s*\^|\\(?:d|t)?frac\{\\pi)"
)
_MONOMIAL = re.compile(r"\s*[a-z](?:\s*\^\s*(?:\d|\{\d+\}))\s*[.,]?\s*")
_OPERATION = re.compile(
    r"\s*(?:[-+*/×÷](?=\s*[\w\\({])|\\(?:cdot|times|div|pm)(?![A-Za-z])|\d|\\frac"
    r"|[a-z](?![A-Za-z'])"
    r"|\\(?:alpha|theta|lambda|ln|log|sin|cos|tan)(?![A-Za-z]))"
)
_UNIT = re.compile(
    r"(?:\s|\\[,;:! ]|~|\$|\\\)|\}|\*)*(?:\\(?:text\w*|mathrm|mbox|operatorname)\s*\{)?[\s~]*"
    r"(?P<unit>\\?%|°[CF]?|(?:percent|(?:square|cubic|sq\.?|cu\.?) )?[A-Za-zμ°€£]+"
    r"(?:(?:/| per )[A-Za-z]+)?|(?:平方|立方)?[\u4e00-\u9fff]{1,2}(?:/[\u4e00-\u9fff]{1,2})?)"
    r"\s*\}?(?P<power>\s*\^\s*\{?[23]\}?|[²³])?(?:\s|\\[,;:! ]|[$*}]|\\[\])])*(?:[.,;。，；]|\n|\Z)"
)
_MAGNITUDE = re.compile(
    r"(?:\s|\\[,;:! )\]]|[$*}~])*(?:\\text\s*\{\s*)?(?:hundred|thousand|million|billion|dozen)\b"
)
_NO_UNITS = frozenset(("in", "a", "am", "pm", "号", "日", "时"))
"""Names of units that, behind a box, are more likely a word or the end of something else."""


def with_neighbours(text: str, box: Box) -> str | None:
    """The content of a box with a sign, factor, power or unit that stands beside it.

    `-\\boxed{5}` is −5, `\\boxed{2}\\pi` is 2π, `\\boxed{5}$ cm` is 5 cm. A box in an equation that
    goes on behind it (`3 + \\boxed{5} = 8`) fills a blank. None for other operations, such as
    `3 + \\boxed{5}`.
    """
    before = text[max(0, box.start - MOST_BESIDE) : box.start]
    after = text[box.end : box.end + MOST_BESIDE]
    before, after = (_THIN.sub(" ", piece) for piece in (before, after))
    right = _AFTER.match(after)
    assert right is not None
    if (left := _BEFORE.match(before)) is not None:
        before = before[left.end() :]
    sign = ""
    while (wrapper := _WRAPPER.search(before)) is not None:
        before = before[: wrapper.start()]
    found = _SIGN.search(before)
    if found is not None:
        inside_math = _in_math(text, box.start)
        alone = not before[: found.start()].strip()
        if (not found.group(2) or inside_math) and (alone or not inside_math):
            sign = found.group(1).strip().replace("−", "-")
            before = before[: found.start()]
        elif not inside_math:
            before = ""
    blank = right.group("relation") is not None
    operated = not sign and (_OPERATOR.search(before) or _TOUCHING.search(before))
    if operated and not blank:
        return None
    if operated:
        return box.content
    suffix = _suffix(after, right.group(1), blank, _in_math(text, box.start))
    if suffix is None:
        return None
    return _combined(sign, box.content, suffix)


def _in_math(text: str, at: int) -> bool:
    """Whether a position is between math delimiters, as far as its paragraph shows."""
    start = max(text.rfind("\n\n", max(0, at - 400), at), at - 400, 0)
    before = text[start:at].replace("\\$", "")
    opened = [before.rfind(mark) for mark in ("\\(", "\\[", "\\begin{")]
    closed = [before.rfind(mark) for mark in ("\\)", "\\]", "\\end{")]
    return before.replace("$$", "$").count("$") % 2 == 1 or max(opened) > max(closed)


def _suffix(after: str, piece: str, blank: bool, in_math: bool) -> str | None:
    """What belongs to the content of a box: a factor, a power, a unit; None if it is unclear."""
    if percent := re.match(r"\s*(\\?%|°)", piece):
        return percent.group(1)
    if _MAGNITUDE.match(after):
        return None  # 25 thousand dollars, where the question may ask for thousands
    if not in_math and re.match(r"\s*[!a-z]", piece):
        piece = ""  # prose goes on
    if _FACTOR.match(piece) or (in_math and not blank and _MONOMIAL.fullmatch(piece)):
        piece = piece.strip(" *")
        return piece[:-1] if piece.count("}") > piece.count("{") else piece
    if not blank and piece and _OPERATION.match(piece) and not _UNIT.match(after):
        prose = re.match(r"\s+[a-z]\s|\s+-\s|\s*-+\s*$", piece) or re.match(r"\s+\d", piece)
        if prose is None:
            return None
    unit = _UNIT.match(after)
    if unit is None or unit.group("unit") in _NO_UNITS:
        return ""
    name = unit.group("unit")
    power = (unit.group("power") or "").strip()
    return f" {name}{power}" if "%" in name or "percent" in name or is_unit(name) else ""


def _combined(sign: str, content: str, suffix: str) -> str:
    if not sign and not suffix:
        return content
    bare = re.fullmatch(r"[\d.,]+|[A-Za-z]|\\\w+|\\[dt]?frac\s*\{[^{}]*\}\s*\{[^{}]*\}", content)
    if suffix[:1] == " " and not sign:
        return content if is_measured(content) else f"{content}{suffix}"
    inner = content if bare else f"({content})"
    return f"{sign}{inner}{suffix}"


_PLAIN = re.compile(r"(?:[\d.,{}/+\-*^() ]|\\(?:[dt]?frac|sqrt|pi|cdot|times)(?![A-Za-z]))*")


def is_measured(content: str) -> bool:
    """Whether a box holds more than a number: a unit, a word, a variable."""
    return _PLAIN.fullmatch(content) is None
