"""Is an answer equal to a gold answer: correct, wrong or undecided."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import TracebackType
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from scdpo.grading.extraction import final_answer, stated
from scdpo.grading.paper import paper_answer, paper_equal
from scdpo.grading.pool import WorkerPool
from scdpo.grading.rules import Pending, decide
from scdpo.records import CORRECT, WRONG, Verdict, undecided

MAX_SYMBOLIC = 2_000
"""Longest answer that is parsed as mathematics, in characters."""
MAX_DEPTH = 60
"""Most nested brackets that are parsed; the parser's time grows faster than the depth."""
MAX_REMEMBERED = 50_000
"""Symbolic verdicts kept for later attempts on the same problem."""

_PairKey = tuple[str, str]  # gold answer, answer


class GradingConfig(BaseModel):
    """How answers are compared.

    `workers`: processes for symbolic comparisons. `deadline`: seconds of CPU time that one
    comparison may use before its process is killed and the verdict is `undecided`; CPU time, so
    that a busy machine gives the same verdicts. `compat: paper` judges as the code released with
    the paper does (see `grading.paper`), for comparison with published numbers: it knows no
    `undecided`, and neither other setting matters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(default=2, ge=1, le=64)
    deadline: float = Field(default=5.0, gt=0, le=600)
    compat: Literal["none", "paper"] = "none"


class Grader:
    """Grades answers: exact rules in this process first, Math-Verify in worker processes after.

    A context manager; workers start when the first pair needs them and die with this process.
    All methods may be called from several threads.
    """

    def __init__(self, config: GradingConfig | None = None):
        self.config = config or GradingConfig()
        self._pool = WorkerPool(self.config.workers, self.config.deadline)
        self._remembered: dict[_PairKey, Verdict] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; closing twice does nothing."""
        self._pool.close()

    def grade(self, gold: Sequence[str] | str, answer: str | None) -> Verdict:
        """Compare an answer with the gold answers, of which any one makes it correct.

        No answer is `undecided`. Raises GradingError when the workers cannot start.
        """
        return self.grade_many([(gold, answer)])[0]

    async def grade_async(self, gold: Sequence[str] | str, answer: str | None) -> Verdict:
        """`grade` for an event loop, which goes on while a worker computes."""
        return (await self.grade_many_async([(gold, answer)]))[0]

    def answer_in(self, text: str) -> str | None:
        """The final answer that a solution's text states; under `compat: paper`, give its last
        step, which is all that rule looks at."""
        return paper_answer(text) if self.config.compat == "paper" else final_answer(text)

    async def grade_many_async(
        self, items: Sequence[tuple[Sequence[str] | str, str | None]]
    ) -> list[Verdict]:
        """`grade_many` for an event loop."""
        return await asyncio.to_thread(self.grade_many, items)

    def grade_many(self, items: Sequence[tuple[Sequence[str] | str, str | None]]) -> list[Verdict]:
        """Verdicts on (gold answers, answer) items, in their order."""
        if self.config.compat == "paper":
            return [_as_the_paper(gold, answer) for gold, answer in items]
        known: dict[_PairKey, Verdict | Pending] = {}
        waiting: dict[_PairKey, Pending] = {}
        for gold, answer in items:
            pairs = _pairs(gold, answer)
            known.update((pair, self._without_worker(pair)) for pair in pairs if pair not in known)
            if all(known[pair] != CORRECT for pair in pairs):
                states = ((pair, known[pair]) for pair in pairs)
                waiting.update((pair, one) for pair, one in states if isinstance(one, Pending))
        found = self._pool.compare_many([(one.gold, one.answer) for one in waiting.values()])
        compared = dict(zip(waiting, map(_settled, found), strict=True))
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered.update(compared)
        return [_verdict(gold, answer, known | compared) for gold, answer in items]

    def _without_worker(self, pair: _PairKey) -> Verdict | Pending:
        """What the rules or an earlier comparison say, or what a worker is to compare."""
        if (remembered := self._remembered.get(pair)) is not None:
            return remembered
        if max(map(_depth, pair)) > MAX_DEPTH:
            return CORRECT if pair[0] == pair[1] else undecided("nested too deeply")
        found = decide(*pair)
        if isinstance(found, Pending) and max(len(found.gold), len(found.answer)) > MAX_SYMBOLIC:
            return undecided(f"longer than {MAX_SYMBOLIC} characters")
        return found


def _depth(text: str) -> int:
    """Most brackets that are open at once."""
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _as_the_paper(gold: Sequence[str] | str, answer: str | None) -> Verdict:
    golds = [gold] if isinstance(gold, str) else gold
    return CORRECT if any(paper_equal(one, answer) for one in golds) else WRONG


def _settled(found: Verdict) -> Verdict:
    """What a symbolic comparison's verdict is worth (see `Pending`)."""
    return undecided("cannot read all of the answer") if found == WRONG else found


def _verdict(
    gold: Sequence[str] | str,
    answer: str | None,
    known: Mapping[_PairKey, Verdict | Pending],
) -> Verdict:
    """The verdict over all gold answers: one equality is enough, one doubt leaves it open."""
    if answer is None or not answer.strip():
        return undecided("no answer")
    pairs = _pairs(gold, answer)
    if not pairs:
        return undecided("no gold answer")
    verdicts = [one for one in map(known.__getitem__, pairs) if isinstance(one, Verdict)]
    if CORRECT in verdicts:
        return CORRECT
    return next((one for one in verdicts if one.name == "undecided"), WRONG)


def _pairs(gold: Sequence[str] | str, answer: str | None) -> list[_PairKey]:
    if answer is None or not answer.strip():
        return []
    golds = [gold] if isinstance(gold, str) else gold
    answer = _stated(answer)
    return [(_stated(one), answer) for one in golds if one.strip()]


@lru_cache(maxsize=8192)
def _stated(text: str) -> str:
    return stated(text)
