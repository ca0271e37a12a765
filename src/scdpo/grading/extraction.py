"""The final answer of a solution's text.

There are three ways to state an answer: a LaTeX box (`\\boxed{…}`, `\\fbox{…}`, `\\boxed 5`),
which takes precedence wherever it is; an announcement ("The answer is …", "Answer: …",
"答案是…"); and GSM8K's `#### …`. Of several of the same kind the last counts, since models correct
themselves; but boxes with nothing but a comma or "and" between them are a single answer, a list.
A box that is cut off does not count.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

NO_ANSWER = "no answer"
"""The reason of the verdict on a text that states no answer."""

_BRACE_OR_BOX = re.compile(r"(?<!\\)\\+(?:boxed|fbox)(?![A-Za-z])\s*(\{)?|\\.|[{}]", re.DOTALL)
_UNBRACED = re.compile(r"(?:\\[A-Za-z]+\{[^{}\s]*\}|[^\s${}\\])+")
_ANNOUNCED = re.compile(
    r"\banswers?\b(?:\s+(?:to|for)\s[^.:\n]{0,80}?)?\s*(?:\*\*\s*)?(?:is\b|are\b|:|=)\s*:?"
    r"|答案\s*(?:应该|应)?\s*(?:是|为|等于|[:：=])\s*[:：]?",
    re.IGNORECASE,
)
_FINAL = re.compile(r"\bfinal answer is\b", re.IGNORECASE)
_HASHES = re.compile(r"^[ \t]*####[ \t]*(.+)$", re.MULTILINE)
_LIST_SEPARATOR = re.compile(
    r"(?:[\s$,;、+.&]|\\[()\[\]]|\\q?quad|\\[,;! ])*"
    r"|(?:(?!\bor\b|\\boxed)[^\\]|\\(?:text|q?quad|[()\[\], ])){0,60}?(?:\band\b|和|以及)"
    r"(?:(?!\bor\b|\\boxed)[^\\]|\\(?:text|q?quad|[()\[\], ])){0,20}",
    re.DOTALL,
)
_ALTERNATIVE = re.compile(
    r"(?:[\s$,;]|\\[()\[\]]|\\q?quad)*(?:\\text\w*\s*\{\s*or\s*\}|\bor\b|或者?)(?:[\s$]|\\[()\[\]])*"
)
_HEADING = re.compile(r"[*\s]*(?:step|part|case)\b|.*:[*\s]*$", re.IGNORECASE)
_DELIMITED = (
    re.compile(r"\$\$(.+?)\$\$", re.DOTALL),
    re.compile(r"(?<!\\)\$((?:\\.|[^$\\\n])+)\$"),
    re.compile(r"\\\((.+?)\\\)", re.DOTALL),
    re.compile(r"\\\[(.+?)\\\]", re.DOTALL),
)
_NUMBER = re.compile(
    r"(?<![\d:])\d{1,2}:\d{2}(?![\d:])(?: ?[ap]\.?m\.?)?|"
    r"(?<![A-Za-z0-9_.])-?[$¥€£]? ?\d+(?:[,.]\d+)*(?:/\d+)?"
    r"(?: ?(?:\\?%|[$€£¥]|[\u4e00-\u9fff]{1,2}(?=[。.,，]|$)))?"
)
_TRAILER = re.compile(r"\s*I hope (?:it|this) is correct\.?(?:\s*<\|[^|]*\|>\w*)?\s*$")
_WRAPPED = re.compile(r"\\(?:text|mathrm|mbox)\w*\s*\{([^{}]*)\}")
_SENTENCES = re.compile(r"(?<=[.!?。])\$*\s+")
_VERB = re.compile(r"\b(?:is|are|equals?|be)\b|(?<=[A-Za-z])'s\b|为|是|等于", re.IGNORECASE)
_PREDICATE = re.compile(r"[ :]*([^.。]*(?:\.\d[^.。]*)*)")
"""What follows the last verb of a sentence."""
_QUALIFIED = re.compile(
    r"(?:\b(?:not|less|more|greater|fewer|least|most|than|over|under|about|negative|minus|between|from"
    r"|to|either|or|out of|in)|不|非|少于|多于|大于|小于|至少|至多|约)\W*$",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"\.(?=\s|$)|[。；]|;(?=\s)|\n")


def final_answer(text: str) -> str | None:
    """The final answer stated in `text`, or None when none is.

    In order of precedence: "the final answer is" after all boxes; the last complete box that is
    not empty; the last announcement or `####` line, whichever comes later. The answer is returned
    as written, without the marker, the math delimiters around an announced answer, and the full
    stop after it.
    """
    boxed = _boxed(text)
    if boxed:
        final = list(_FINAL.finditer(text))
        if not final or final[-1].start() < text.rfind("boxed"):
            return boxed
    stated = [found for found in (_announced(text), _after_hashes(text)) if found is not None]
    return max(stated)[1] if stated else None


@lru_cache(maxsize=8192)
def stated(text: str) -> str:
    """The answer that a text states if it says more than its answer, or else the text itself.

    A text with a box, a `####` line or an announcement ("the answer is 5") states an answer;
    `5 apples` is one. Cached, since the same gold answers and answers come again.
    """
    if "boxed" in text or "fbox" in text or _ANNOUNCED.search(text) or "####" in text:
        return final_answer(text) or text
    return text


def mentions(text: str) -> list[str]:
    """The texts that a sentence may give as its answer.

    They are what follows its last verb, and its only formula or number. A number does not count
    if it is part of a formula, or if words before it qualify it (less than 20, 1 out of 20).
    """
    text = _WRAPPED.sub(r" \1 ", _TRAILER.sub("", text)).replace("\\$", "$")
    formulas = list(dict.fromkeys(m.group(1).strip() for p in _DELIMITED for m in p.finditer(text)))
    found = formulas if len(formulas) == 1 else []
    verbs = list(_VERB.finditer(text))
    if verbs and (predicate := _PREDICATE.match(text, verbs[-1].end())) is not None:
        said = predicate.group(1).strip()
        found += [said, *(m.group(1).strip() for p in _DELIMITED for m in p.finditer(said))]
        found += _alone(said)
    elif not formulas:
        found += _alone(text)
    if len(sentences := _SENTENCES.split(text.strip())) > 1:
        found += _alone(sentences[-1])
    return [text for text in dict.fromkeys(found) if text]


def _alone(text: str) -> list[str]:
    """The number of a text, if it has only one and no words qualify it."""
    numbers = list(_NUMBER.finditer(text))
    if len({match.group().strip() for match in numbers}) != 1:
        return []
    match = numbers[-1]
    before, after = text[: match.start()], text[match.end() :]
    if _QUALIFIED.search(before) or re.search(r"[\\{}^_/*+=(]\s*$", before):
        return []
    return [] if re.match(r"\s*[}^_/*+=!]", after) else [match.group().strip()]


def numbers_in(text: str) -> int:
    """The count of different numbers in a sentence."""
    return len({match.group().strip() for match in _NUMBER.finditer(text)})


def _boxed(text: str) -> str | None:
    """The content of the last complete box, or of the last list of boxes."""
    found = boxes(text)
    if not found:
        return None
    answers = [found[-1].content]
    joint = ", "
    for box, following in zip(found[-2::-1], found[:0:-1], strict=False):
        if _ALTERNATIVE.fullmatch(text, box.end, following.start):
            joint = " or "
        elif not _LIST_SEPARATOR.fullmatch(text, box.end, following.start):
            break
        answers.insert(0, box.content)
    return joint.join(dict.fromkeys(answers))


class Box(NamedTuple):
    """A box at `text[start:end]`, and its content without surrounding space."""

    start: int
    end: int
    content: str


def boxes(text: str) -> list[Box]:
    """All outermost boxes that are complete and not empty, found in one pass over the braces."""
    open_braces: list[tuple[int, int] | None] = []  # start of a box and of its content
    complete: list[Box] = []
    for match in _BRACE_OR_BOX.finditer(text):
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


def _announced(text: str) -> tuple[int, str] | None:
    """The position of the last announcement, and what it announces."""
    for head in reversed(list(_ANNOUNCED.finditer(text))):
        tail = text[head.end() :].lstrip(" \t\r\n*:：")
        for delimiters in _DELIMITED:
            inside = delimiters.match(tail)
            if inside is not None:
                # A sign or a unit after the formula is kept, a sentence is not.
                rest = _SENTENCE_END.split(tail[inside.end() :], maxsplit=1)[0].strip(" *")
                unit = rest if re.fullmatch(r"%|\\%|[\w\u4e00-\u9fff]{1,8}", rest) else ""
                return head.start(), f"{inside.group(1).strip()} {unit}".strip()
        answer = _SENTENCE_END.split(tail, maxsplit=1)[0].strip().strip("*").strip()
        if answer and not answer.startswith("#"):
            return head.start(), answer
    return None


def _after_hashes(text: str) -> tuple[int, str] | None:
    """The position of the last `####` line that is not a Markdown heading, and what is on it."""
    lines = [line for line in _HASHES.finditer(text) if not _HEADING.match(line.group(1))]
    return (lines[-1].start(), lines[-1].group(1).strip()) if lines else None
