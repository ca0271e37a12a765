"""The grader: whether an answer equals a gold answer, as correct, wrong or undecided."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from scdpo.grading.extraction import NO_ANSWER, final_answer, stated
from scdpo.grading.paper import paper_answer, paper_equal
from scdpo.grading.pool import WorkerPool
from scdpo.grading.rules import Pending, decide
from scdpo.records import CORRECT, WRONG, Verdict, undecided

MAX_SYMBOLIC = 2_000
"""Longest answer that is parsed as mathematics, in characters."""
MAX_DEPTH = 60
"""Deepest nesting of brackets that is parsed; the parser's time grows faster than the depth."""
MAX_REMEMBERED = 50_000
"""Symbolic verdicts kept for later attempts on the same problem."""

_PairKey = tuple[str, str]  # gold answer, answer


class GradingConfig(BaseModel):
    """How answers are compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(
        2, ge=1, le=64, description="Number of processes for symbolic comparisons."
    )
    deadline: float = Field(
        5.0,
        gt=0,
        le=600,
        description="Seconds of CPU time that a comparison may use before the verdict is "
        "`undecided`; CPU time, so that a busy machine gives the same verdicts.",
    )
    compat: Literal["none", "paper"] = Field(
        "none",
        description="`paper` judges as the code released with arXiv 2407.00782 does, for "
        "comparison with published numbers: nothing is undecided, and no workers are needed.",
    )


class Grader:
    """Grades answers, by exact rules in this process and then by Math-Verify in worker processes.

    Use it as a context manager, or call `close`. The workers start when a pair first needs them
    and end with this process. All methods may be called from several threads.
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
        """Compare an answer with a gold answer, or with several of which any makes it correct.

        The verdict on None, or on an empty answer, is `undecided`. Raises GradingError when the
        workers cannot start.
        """
        return self.grade_many([(gold, answer)])[0]

    async def grade_async(self, gold: Sequence[str] | str, answer: str | None) -> Verdict:
        """`grade` for coroutines; the event loop keeps running while the answers are compared."""
        return (await self.grade_many_async([(gold, answer)]))[0]

    def answer_in(self, text: str) -> str | None:
        """The final answer that a solution's text states, or None.

        Under `compat: paper`, pass the solution's last step, since that rule looks at nothing
        else.
        """
        return paper_answer(text) if self.config.compat == "paper" else final_answer(text)

    async def grade_many_async(
        self, items: Sequence[tuple[Sequence[str] | str, str | None]]
    ) -> list[Verdict]:
        """`grade_many` for coroutines."""
        return await asyncio.to_thread(self.grade_many, items)

    def grade_many(self, items: Sequence[tuple[Sequence[str] | str, str | None]]) -> list[Verdict]:
        """The verdicts on (gold answers, answer) items, in the order of the items."""
        if self.config.compat == "paper":
            return [
                CORRECT if any(paper_equal(gold, answer) for gold in _as_list(golds)) else WRONG
                for golds, answer in items
            ]
        asked = [_pairs(golds, answer) for golds, answer in items]
        known: dict[_PairKey, Verdict | Pending] = {}
        waiting: dict[_PairKey, Pending] = {}
        for pairs in asked:
            for pair in pairs:
                if pair not in known:
                    known[pair] = self._without_worker(pair)
            found = {pair: known[pair] for pair in pairs}
            if not any(map(_correct, found.values())):
                waiting.update((p, x) for p, x in found.items() if isinstance(x, Pending))
        known.update(self._compare(waiting))
        return [
            _verdict(answer, [known[pair] for pair in pairs])
            for (_, answer), pairs in zip(items, asked, strict=True)
        ]

    def _compare(self, waiting: Mapping[_PairKey, Pending]) -> dict[_PairKey, Verdict]:
        """The verdicts of the workers, remembered for later calls."""
        if not waiting:
            return {}
        found = self._pool.compare_many([(pair.gold, pair.answer) for pair in waiting.values()])
        # Math-Verify's "unequal" does not count (see `Pending`).
        compared = {
            pair: undecided("cannot read all of the answer") if verdict.wrong else verdict
            for pair, verdict in zip(waiting, found, strict=True)
        }
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered.update(compared)
        return compared

    def _without_worker(self, pair: _PairKey) -> Verdict | Pending:
        """The verdict of the rules or of an earlier comparison, or the texts for a worker."""
        if (remembered := self._remembered.get(pair)) is not None:
            return remembered
        if max(map(len, pair)) > MAX_DEPTH and max(map(_depth, pair)) > MAX_DEPTH:
            return CORRECT if pair[0] == pair[1] else undecided("nested too deeply")
        found = decide(*pair)
        if isinstance(found, Pending) and max(len(found.gold), len(found.answer)) > MAX_SYMBOLIC:
            return undecided(f"longer than {MAX_SYMBOLIC} characters")
        return found


def _depth(text: str) -> int:
    """The largest number of brackets that are open at once."""
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _as_list(golds: Sequence[str] | str) -> Sequence[str]:
    return [golds] if isinstance(golds, str) else golds


def _correct(found: Verdict | Pending) -> bool:
    return isinstance(found, Verdict) and found.correct


def _verdict(answer: str | None, found: Sequence[Verdict | Pending]) -> Verdict:
    """The verdict over all gold answers: a single equality makes it correct, and without one a
    single doubt leaves it undecided."""
    if answer is None or not answer.strip():
        return undecided(NO_ANSWER)
    if not found:
        return undecided("no gold answer")
    if any(map(_correct, found)):
        return CORRECT
    doubts = (verdict for verdict in found if isinstance(verdict, Verdict) and verdict.undecided)
    return next(doubts, WRONG)


def _pairs(golds: Sequence[str] | str, answer: str | None) -> list[_PairKey]:
    """The gold answers, each with the answer, as the texts that are compared."""
    if answer is None or not answer.strip():
        return []
    answer = stated(answer)
    return [(stated(gold), answer) for gold in _as_list(golds) if gold.strip()]
