"""The final answer of a solution's text.

There are four ways to state an answer: a LaTeX box (`\\boxed{…}`, `\\fbox{…}`, `\\boxed 5`),
which takes precedence wherever it is; an announcement ("The answer is …", "Answer: …",
"答案是…", a heading, `{"answer": 8}`); GSM8K's `#### …`; and, without any of these, a final
sentence that concludes ("So she has 8 apples."). Of several of the same kind the last counts,
since models correct themselves; but boxes with nothing but a comma or "and" between them are a
single answer, a list. A box that is cut off does not count, nor does what is written in a block
of thinking, in a program, or behind the end of the model's turn.
"""

from __future__ import annotations

import re
from functools import lru_cache

from scdpo.grading.finding.boxes import Box, boxed_answer, boxes, with_neighbours
from scdpo.grading.finding.sentences import DELIMITED, conclusion
from scdpo.grading.finding.visible import visible

NO_ANSWER = "no answer"
"""The reason of the verdict on a text that states no answer."""

_ANNOUNCED = re.compile(
    r"\b(?:answers?|(?:correct|right) (?:option|choice))\b"
    r"(?:\s+(?:to|for)\s[^.:\n]{0,80}?)?\s*(?:\*\*\s*)?"
    r"(?:(?:should|must|will|would) be\b|is\b|are\b|:|=)\s*:?"
    r"|(?:答案|正确选项)\s*(?:应该|应)?\s*(?:是|为|等于|[:：=])\s*[:：]?|(?<![\u4e00-\u9fff问])答\s*[:：]",
    re.IGNORECASE,
)
_FINAL = re.compile(r"\bfinal answer (?:is|should be)\b", re.IGNORECASE)
_HASHES = re.compile(r"^[ \t]*####[ \t]*(.+)$", re.MULTILINE)
_HEADING = re.compile(
    r"[*\s]*(?:(?:step|part|case)\b|(?:final )?answer[:*\s]*$)|.*:[*\s]*$", re.IGNORECASE
)
_TITLE = re.compile(
    r"^[ \t]*(?:#{1,6}[ \t]*\**|\*\*)[ \t]*(?:the )?(?:final )?"
    r"(?:answer|答案|最终答案)[ \t]*[:：]?[ \t]*"
    r"(?:\*\*)?[ \t]*[:：]?[ \t]*\n\s*(?=\S)",
    re.MULTILINE | re.IGNORECASE,
)
"""A heading over the answer."""
_KEYED = re.compile(
    r"[{,]\s*\\?[\"'](?:final_?)?answer\\?[\"']\s*:\s*(?:\\?\"((?:[^\"\\]|\\.)*?)\\?\"|'([^']*)'"
    r"|([^\s,}\"']+))"
    r"\s*[,}]",
    re.IGNORECASE,
)
_TAGGED = re.compile(
    r"<(?:final_?)?answer>((?:(?!<(?:final_?)?answer>).)*?)</(?:final_?)?answer>",
    re.DOTALL | re.IGNORECASE,
)
_CHOSEN = re.compile(
    r"(?:故|因此|所以|应|[,，。]|^)[ \t]*(?:本题)?(?:答案)?应?(?:该)?选择?(?:项)?"
    r"\s*[:：]?\s*([A-F]+)(?![A-Za-z])",
    re.M,
)
_REMARK = re.compile(
    r"(?:(?:indeed|also|therefore|thus|now|clearly|definitely|most likely) )?"
    r"(?:correct|right|verified"
    r"|confirmed|reasonable|clear|consistent|boxed|shown|given|stated|found|obtained|presented"
    r"|above"
    r"|below|in the box|as follows|as above|as shown|valid|plausible|sensible|unique|exact|complete"
    r"|simple|helpful|obvious|easy|useful|satisfactory|trivial|straightforward|what (?:we|you|i)\b"
    r"|final|good|fine|accurate|wrong|incorrect|not (?:correct|right)|simplified|already|the same"
    r"|(?:positive|negative|even|odd|prime|whole)(?=,? (?:as|since|because|so)\b)"
    r"|an? (?:[a-z-]+ ){0,3}(?:integer|number|fraction|decimal|value|percentage|quantity)\b"
    r"|in (?:[a-z]+ ){0,2}(?:units?|dollars|cents|meters|metres|feet|inches|cm|minutes|hours|days"
    r"|degrees)\b"
    r"|in (?:simplest|lowest|the (?:simplest|required|correct))|expressed|written|rounded|supported"
    r"|(?:正确|合理|对|错误|合适|唯一|准确|清楚|确定)的?)(?![\w])(?!\W*\d).{0,60}",
    re.IGNORECASE | re.DOTALL,
)
"""What is said about an answer, rather than the answer."""
_PROSE = re.compile(
    r"(?:not|less than|more than|greater than|close to|based on|between|near|consistent)\b"
    r"|(?!.*\b(?:cannot|none|no|not|impossible|undefined|infinite\w*|unknown|determined?)\b)"
    r"[a-z]+(?: [a-z,]+){3,}$"
)
"""What is said about an answer that was announced before; by itself it may be the answer."""
_FACTORIALS = re.compile(
    r"[\w)}]!|factorial|permut|arrang|combination|ways|order|choose|binom", re.IGNORECASE
)
"""What shows that an exclamation mark behind a number may be a factorial."""
_SENTENCE_END = re.compile(r"\.(?=\s|$)|[。；]|;(?=\s)|\n")


def final_answer(text: str) -> str | None:
    """The final answer stated in `text`, or None when none is.

    In order of precedence: an `<answer>` tag behind all boxes; "the final answer is" after all
    boxes; the last complete box that is not empty; the last announcement or `####` line,
    whichever comes later; a last sentence that states a result. The answer is returned as
    written, without the marker, the math delimiters around an announced answer, and the full stop
    after it, but with a sign, factor or unit that stands beside its box.
    """
    return _final_answer(visible(text))


def _final_answer(text: str) -> str | None:
    found = boxes(text)
    words = text.lower()  # a search that ignores case is slow, so that its word is looked for first
    tags = list(_TAGGED.finditer(text)) if "answer>" in words else []
    tag = tags[-1] if tags else None
    if tag is not None and tag.group(1).strip() and (not found or found[-1].end <= tag.end()):
        inside = tag.group(1).strip()
        return _final_answer(inside) or _undelimited(inside)
    if found:
        heads = _FINAL.finditer(text, found[-1].start) if "final answer" in words else ()
        if all(_remarked(text, head.end()) for head in heads):
            return boxed_answer(text, found)
    readers = [_after_hashes] if "####" in text else []
    if _names_answer(words):
        readers += [_announced, _headed] if "#" in text or "**" in text else [_announced]
    if 'answer"' in words or "answer'" in words or "answer\\" in words:
        readers.append(_keyed)
    stated = [said for read in readers if (said := read(text)) is not None]
    if stated:
        return max(stated)[1]
    return _chosen(text) or conclusion(text)


def _names_answer(words: str) -> bool:
    """Whether a text in lower case has a word that every announcement has."""
    return (
        "answer" in words
        or "答" in words
        or "option" in words
        or "choice" in words
        or "选项" in words
    )


@lru_cache(maxsize=8192)
def stated(text: str) -> str:
    """The answer that a text states if it says more than its answer, or else the text itself.

    A text with a box, a `####` line or an announcement ("the answer is 5") states an answer;
    `5 apples` is one. Cached, since the same gold answers and answers come again.
    """
    if "boxed" in text or "fbox" in text or "####" in text or "<answer>" in text:
        return final_answer(text) or text
    announced = _names_answer(text.lower()) and (_ANNOUNCED.search(text) or _KEYED.search(text))
    if announced or ("选" in text and _CHOSEN.search(text)):
        return final_answer(text) or text
    return text


def last_boxes(text: str, count: int) -> str | None:
    """The contents of the last boxes of a text as a list; None if it has not that many.

    The parts of an answer may be in boxes of their own, with sentences between them.
    """
    text = visible(text)
    found = boxes(text)
    if not 2 <= count <= len(found):
        return None
    parts = [with_neighbours(text, box) for box in found[-count:]]
    known = [part for part in parts if part is not None]
    return ", ".join(known) if len(known) == count else None


def _remarked(text: str, at: int) -> bool:
    """Whether a remark about an answer, rather than the answer, follows in a text."""
    tail = re.match(r"[\s*:：]*([^\n]{0,120})", text[at : at + 200])
    return (
        tail is not None
        and _REMARK.match(_SENTENCE_END.split(tail.group(1), maxsplit=1)[0]) is not None
    )


MOST_ANNOUNCEMENTS = 50
"""Last announcements that are looked at, where all those behind one are remarks."""
_FIRST_WORDS = re.compile("answer|correct|right|答|正确选项")


def _announcements(text: str) -> list[re.Match[str]]:
    """All matches of `_ANNOUNCED`, tried only where one of its first words is: ignoring case, it
    would be tried in full at every character."""
    words = text.lower()
    if len(words) != len(text):
        return list(_ANNOUNCED.finditer(text))
    found: list[re.Match[str]] = []
    for word in _FIRST_WORDS.finditer(words):
        head = _ANNOUNCED.match(text, word.start())
        if head is not None and (not found or found[-1].end() <= head.start()):
            found.append(head)
    return found


def _announced(text: str) -> tuple[int, str] | None:
    """The position of the last announcement, and what it announces."""
    remark: tuple[int, str] | None = None
    for head in reversed(_announcements(text)[-MOST_ANNOUNCEMENTS:]):
        tail = text[head.end() :].lstrip(" \t\r\n*:：")
        for delimiters in DELIMITED:
            inside = delimiters.match(tail)
            if inside is not None:
                # A sign or a unit after the formula is kept, a sentence is not.
                rest = _SENTENCE_END.split(tail[inside.end() :], maxsplit=1)[0].strip(" *")
                unit = rest if re.fullmatch(r"%|\\%|[\w\u4e00-\u9fff]{1,8}", rest) else ""
                return head.start(), f"{inside.group(1).strip()} {unit}".strip()
        answer = _SENTENCE_END.split(tail, maxsplit=1)[0].strip().strip("*").strip()
        exclaimed = remark is None and re.search(r"\d!+$", answer) is not None
        if exclaimed and _FACTORIALS.search(text.replace(answer, "")) is None:
            answer = answer.rstrip("! ")
        if answer and (_remarked(text, head.end()) or _PROSE.match(answer)):
            remark = remark or (head.start(), answer)
        elif answer and not answer.startswith("#"):
            return head.start(), answer
    return remark if remark is None or _HASHES.search(text) is None else None


def _after_hashes(text: str) -> tuple[int, str] | None:
    """The position of the last `####` line that is not a Markdown heading, and what is on it."""
    lines = [line for line in _HASHES.finditer(text) if not _HEADING.match(line.group(1))]
    return (lines[-1].start(), lines[-1].group(1).strip()) if lines else None


def _headed(text: str) -> tuple[int, str] | None:
    """The position of the last heading "Final Answer", and the line or the sentence below it."""
    heads = list(_TITLE.finditer(text))
    if not heads:
        return None
    below = text[heads[-1].end() :].split("\n\n", 1)[0].strip()
    answer = conclusion(below) if re.search(r"[a-z]{3,} |[\u4e00-\u9fff]{4}", below) else None
    line = below.split("\n", 1)[0].strip()
    return heads[-1].start(), answer or _undelimited(line.strip("*").strip())


def _keyed(text: str) -> tuple[int, str] | None:
    """The position and the value of the last `"answer": …` of a JSON object."""
    keyed = list(_KEYED.finditer(text))
    if not keyed:
        return None
    value = next((group for group in keyed[-1].groups() if group), "").strip()
    return (keyed[-1].start(), value.replace("\\\\", "\\")) if value else None


def _chosen(text: str) -> str | None:
    """The choice of `故选B` in the last lines."""
    if "选" not in text:
        return None
    chosen = list(_CHOSEN.finditer(text, max(0, len(text) - 200)))
    return chosen[-1].group(1) if chosen else None


def _undelimited(text: str) -> str:
    """A text without the math delimiters around all of it and without its full stop."""
    for delimiters in DELIMITED:
        if (inside := delimiters.fullmatch(text.rstrip(". "))) is not None:
            return inside.group(1).strip()
    return text.rstrip(".。 ")


__all__ = ["NO_ANSWER", "Box", "boxes", "final_answer", "last_boxes", "stated"]
