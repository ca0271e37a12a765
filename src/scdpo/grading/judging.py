"""From a text and gold answers to an answer and a verdict, the one way for every caller.

Sampling, evaluation, the import of recorded solutions and `scdpo grade` all call `judge`; `grade`
is the same for a single text.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scdpo.grading.extraction import last_boxes, stated
from scdpo.grading.grader import Grader, GradingConfig
from scdpo.grading.reading.parts import Items
from scdpo.grading.reading.structure import read
from scdpo.grading.several import StatedValues, stated_values, verdict_on_values
from scdpo.records import CORRECT, WRONG, Verdict, undecided

MOST_SEARCHED = 200_000
"""Characters of a solution's end in which its answer is searched for."""
MOST_COMPARED = 100_000
"""Longest answer that is compared, in characters."""
MOST_IN_PARTS = 400
"""Longest gold answer whose parts may be in boxes of their own, in characters."""
TOO_LONG = undecided(f"longer than {MOST_COMPARED:,} characters")
_BACKSLASHES = re.compile(r"\\{9,}")

GoldAnswer = str | int | float


@dataclass(frozen=True, slots=True)
class Claim:
    """What is to be judged: a solution or an answer, and the gold answers that it may equal.

    Attributes:
        text: A solution's text or, with `is_answer`, the answer itself. None states nothing,
            as a solution that was cut off or a missing prediction does.
        golds: The gold answers; equality with any one of them is correct.
        several: Whether the question asks for several values of which the gold answer is one
            (see `grading.several`).
        last: The last step of the solution that has text. The rule of the released code
            (`compat: paper`) looks at nothing else; where it is empty, at `text`.
        is_answer: Whether `text` is the answer as it stands (a prediction), rather than a
            solution in which the answer has to be found.
    """

    text: str | None
    golds: tuple[str, ...]
    several: bool = False
    last: str = ""
    is_answer: bool = False


class Judgement(NamedTuple):
    """The answer that was found, and the verdict on it.

    `answer` is None where the text states none; several values are joined by commas (`15, 9`);
    a prediction is returned as it stands.
    """

    answer: str | None
    verdict: Verdict


def judge(claims: Sequence[Claim], grader: Grader) -> list[Judgement]:
    """Find the answer of each claim and compare it with the gold answers.

    Returns one judgement per claim, in their order. What would take too long is bounded: an
    answer is searched for in the last MOST_SEARCHED characters, and one longer than
    MOST_COMPARED is undecided. Raises GradingError when the grading workers cannot start.
    """
    answers = [_find(claim, grader) for claim in claims]
    compared = iter(
        grader.grade_many(
            [
                (claim.golds, candidate)
                for claim, found in zip(claims, answers, strict=True)
                for candidate in found.candidates
            ]
        )
    )
    judgements = []
    for found in answers:
        verdicts = {candidate: next(compared) for candidate in found.candidates}
        verdict = _combine(found, verdicts, grader.config)
        answer = found.answer
        if found.values is None and found.parts is not None and not verdict.correct and verdicts:
            answer, verdict = _in_parts(found, verdict, verdicts[found.parts])
        judgements.append(Judgement(answer, verdict))
    return judgements


@dataclass(frozen=True, slots=True)
class _Found:
    """A claim's answer and the different texts that are compared with the gold answers.

    `values` are those of a claim that may state several. `parts` are the contents of the last
    boxes, as many as the gold answer has parts. `candidates` is empty where there is nothing to
    compare or too much.
    """

    answer: str | None
    candidates: tuple[str | None, ...]
    values: StatedValues | None = None
    parts: str | None = None


def _find(claim: Claim, grader: Grader) -> _Found:
    if claim.text is None:
        return _Found(None, (None,))
    values = None
    if claim.several:
        values = stated_values(_searched(claim, grader.config), is_answer=claim.is_answer)
        answer = claim.text if claim.is_answer else values.answer
    elif claim.is_answer:
        answer = claim.text
    else:
        answer = grader.answer_in(_searched(claim, grader.config))
    parts = None
    if values is None and not claim.is_answer and grader.config.compat == "none":
        parts = _boxed_parts(claim)
    candidates = (answer,) if values is None else values.candidates
    if parts is not None and parts != answer:
        candidates = (*candidates, parts)
    stated = [candidate for candidate in candidates if candidate is not None]
    if stated and max(map(len, (*stated, *claim.golds))) > MOST_COMPARED:
        return _Found(answer, ())
    return _Found(answer, candidates, values, parts if len(candidates) > 1 else None)


def _boxed_parts(claim: Claim) -> str | None:
    """The contents of the last boxes of a claim's text, if a gold answer has several parts."""
    text = claim.text or ""
    if text.count("boxed") < 2:
        return None
    for gold in claim.golds:
        part = read(stated(gold)) if len(gold) <= MOST_IN_PARTS else None
        if isinstance(part, Items) and (
            found := last_boxes(text[-MOST_SEARCHED:], len(part.items))
        ):
            return found
    return None


def _in_parts(found: _Found, last: Verdict, parts: Verdict) -> tuple[str | None, Verdict]:
    """The answer and the verdict where the gold answer's parts may be in boxes of their own."""
    if parts.correct or (parts.undecided and last.wrong):
        return found.parts, parts
    return found.answer, last


def _searched(claim: Claim, config: GradingConfig) -> str:
    """The part of a claim's text in which the answer is searched for."""
    text = claim.last if config.compat == "paper" and claim.last else claim.text or ""
    # The search takes quadratic time in a run of backslashes, of which two mean as much as nine.
    return _BACKSLASHES.sub(r"\\\\", text[-MOST_SEARCHED:])


def _combine(
    found: _Found, verdicts: Mapping[str | None, Verdict], config: GradingConfig
) -> Verdict:
    """The verdict on a claim, given the verdicts on its candidates."""
    if found.values is None:
        return verdicts[found.answer] if verdicts else TOO_LONG
    if config.compat == "paper":
        # The released code accepts any number in the box, and leaves nothing undecided.
        return CORRECT if CORRECT in verdicts.values() else WRONG
    return verdict_on_values(
        found.values, {text: verdict for text, verdict in verdicts.items() if text is not None}
    )


def grade(
    text: str | float | None,
    answer: GoldAnswer | Iterable[GoldAnswer],
    *,
    is_answer: bool = False,
    several: bool = False,
    config: GradingConfig | None = None,
) -> Judgement:
    """Find the answer that a solution states, and compare it with the gold answer.

    Args:
        text: The text of a solution or, with `is_answer=True`, an answer as it stands. A number
            is always an answer; None states nothing and is undecided.
        answer: The gold answer, or several of which any one is correct.
        is_answer: Take `text` as the answer instead of searching for the answer in it.
        several: The question asks for several values, and `answer` is one of them.
        config: How answers are compared.

    Returns the answer (None where the text states none) and the verdict. It can be called from
    a coroutine, but blocks the event loop: `grade_async` does not. The graders of a process are
    shared between calls, one for each `config`.

    Raises GradingError when the grading workers cannot start, and TypeError for a text or a gold
    answer of another type.

    ```python
    answer, verdict = grade("Each pays \\boxed{\\frac{1}{2}} dollar.", 0.5)
    verdict.correct                                # True; answer is "\\frac{1}{2}"
    grade("x = 2", "2", is_answer=True).verdict    # Verdict(name='correct', reason='')
    grade("\\boxed{15} and \\boxed{9}", 15, several=True).answer    # "15, 9"
    ```
    """
    golds = [answer] if isinstance(answer, str | int | float) else answer
    claim = Claim(
        None if text is None else _written(text),
        tuple(map(_written, golds)),
        several,
        is_answer=is_answer or not isinstance(text, str),
    )
    return judge([claim], _shared(config or GradingConfig()))[0]


async def grade_async(
    text: str | float | None,
    answer: GoldAnswer | Iterable[GoldAnswer],
    *,
    is_answer: bool = False,
    several: bool = False,
    config: GradingConfig | None = None,
) -> Judgement:
    """`grade` for an event loop, which goes on while the answers are compared."""
    return await asyncio.to_thread(
        grade, text, answer, is_answer=is_answer, several=several, config=config
    )


def _written(value: object) -> str:
    """A text as it is, a number as a text that the grader reads."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a text or a number is expected, found {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        return "" if math.isnan(value) else "\\infty" if value > 0 else "-\\infty"
    return str(value)


_graders: dict[tuple[int, GradingConfig], Grader] = {}
"""The graders that `grade` shares, by process, as the workers of a parent process do not serve a
forked one."""


def _shared(config: GradingConfig) -> Grader:
    # No lock is needed: setdefault is atomic, and a grader that lost the race has no workers yet.
    return _graders.setdefault((os.getpid(), config), Grader(config))


@atexit.register
def _close_shared() -> None:
    for (process, _), grader in list(_graders.items()):
        if process == os.getpid():
            grader.close()
