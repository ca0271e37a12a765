r"""Answers to questions that ask for several values, where the gold answer is one of them.

Simuleq asks "How many novelists are there? How many poets?" and gives 15. A solution that ends in
`\boxed{15}` novelists and `\boxed{9}` poets, in `(15, 9)` or in `x = 15, y = 9` is right; one that
ends in 9 alone may be right as well. `stated_values` finds the values, the grader compares each
with the gold answer, and `verdict_on_values` combines the verdicts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from scdpo.grading.extraction import NO_ANSWER, final_answer, stated
from scdpo.grading.finding.boxes import boxes
from scdpo.grading.finding.visible import visible
from scdpo.records import CORRECT, WRONG, Verdict, undecided

ASKED = 2
"""Values that such a question asks for; a solution must not be right by listing many."""
MOST_BETWEEN = 200
"""Most characters between two boxes of the same answer; boxes farther apart belong to different
steps of the reasoning."""
MOST_SEARCHED_FOR_BOXES = 20_000
"""Characters at the end of a text in which boxes are searched for."""
MOST_CANDIDATES = 40
"""Most values and numbers of a solution that are compared; with more it is undecided."""
ONLY_ONE = "it may be another of the values asked for"
TOO_MANY = "it states more values than are asked for"
AMONG_NUMBERS = "the gold answer is among its numbers"

_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|sf)?|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_SEPARATOR = re.compile(
    r"(?<!\d),|,(?!\d{3}(?!\d))|[;、，；&]|\\\\|\\q?quad\b|(?<![A-Za-z])and(?![A-Za-z])|和"
)
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[a-z]*\*?\}|\\(?:left|right)(?![A-Za-z])")
_BRACKETS = re.compile(r"\s*\\?[({\[](.*)\\?[)}\]]\s*", re.DOTALL)
_TUPLES = re.compile(r"\s*\([^()=]*\)\s*=\s*(\(.*\))\s*", re.DOTALL)
_LABEL = re.compile(r"[A-Za-z][\w' -]*[:=]\s*")
_WITH_WORDS = re.compile(r"((?:\\?\$\s*)?-?\d[\d,]*(?:\.\d+)?)\s+[A-Za-z].*", re.DOTALL)
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_NOTHING = re.compile(r"[\s$.:]*")


@dataclass(frozen=True, slots=True)
class StatedValues:
    """The values that a solution states at its end, and the numbers in them, without repetitions
    and in the order of the text."""

    values: tuple[str, ...]
    numbers: tuple[str, ...]

    @property
    def candidates(self) -> tuple[str, ...]:
        """Everything that is compared with the gold answer; empty where it is too much."""
        found = tuple(dict.fromkeys((*self.values, *self.numbers)))
        return found if len(found) <= MOST_CANDIDATES else ()

    @property
    def answer(self) -> str | None:
        """The values as one answer, for a row: `15, 9`."""
        return ", ".join(self.values) or None


def stated_values(text: str, *, is_answer: bool = False) -> StatedValues:
    """The values in which a solution's text ends, or those of an answer as it stands.

    They are in the last boxes that are close to each other. Without a box they are in the answer
    that `final_answer` finds, or in the whole text with `is_answer`. Lists, sets, tuples and
    assignments are taken apart; names and words around a number are left out.
    """
    contents = _last_boxes(text)
    if not contents:
        answer = stated(text) if is_answer else final_answer(text)
        contents = [] if answer is None else [answer]
    values = dict.fromkeys(value for content in contents for value in _values(content))
    numbers = dict.fromkeys(n for content in contents for n in _NUMBER.findall(content))
    return StatedValues(tuple(values), tuple(numbers))


def verdict_on_values(found: StatedValues, verdicts: Mapping[str, Verdict]) -> Verdict:
    """The verdict on a solution, given the verdict on each of its candidates.

    Correct if one of the last two values equals the gold answer. Wrong only if there are at
    least two values, none of them equals it, and neither does a number within them: a single
    other value may be the other value that the question asks for.
    """
    if not found.values:
        return undecided(NO_ANSWER)
    if not found.candidates:
        return undecided(TOO_MANY)
    given = [verdicts[value] for value in found.values]
    if CORRECT in given[-ASKED:]:
        return CORRECT
    if CORRECT in given:
        return undecided(TOO_MANY)
    if any(verdicts[number].correct for number in found.numbers):
        return undecided(AMONG_NUMBERS)
    doubt = next((verdict for verdict in given if verdict.undecided), None)
    if doubt is not None:
        return doubt
    return WRONG if len(given) >= ASKED else undecided(ONLY_ONE)


def _last_boxes(text: str) -> list[str]:
    """The contents of the last boxes, as long as each is close to the one before it."""
    found: list[str] = []
    start = None
    for box in boxes(visible(text)[-MOST_SEARCHED_FOR_BOXES:])[: -MOST_CANDIDATES - 2 : -1]:
        if start is not None and start - box.end >= MOST_BETWEEN:
            break
        start = box.start
        found.append(box.content)
    return found[::-1]


def _values(content: str) -> list[str]:
    """`x = 15, y = 9` as `15` and `9`, `(15, 9)` as `15` and `9`, `1,500 kg` as `1,500`."""
    content = _TEXT.sub(r" \1 ", _ENVIRONMENT.sub(" ", content)).replace("\\,", "")
    tuples = _TUPLES.fullmatch(content)
    content = content if tuples is None else tuples.group(1)
    brackets = _BRACKETS.fullmatch(content)
    if brackets is not None and _SEPARATOR.search(brackets.group(1)):
        content = brackets.group(1).removesuffix("\\")
    parts = (_value(part) for part in _SEPARATOR.split(content))
    return [part for part in parts if not _NOTHING.fullmatch(part)]


def _value(part: str) -> str:
    """A part without the name before its number and the words after it."""
    part = part.strip()
    label = _LABEL.match(part)
    part = part if label is None else part[label.end() :]
    number = _WITH_WORDS.fullmatch(part)
    return part.strip() if number is None else number.group(1)
