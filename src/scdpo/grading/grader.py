"""Is an answer equal to a gold answer: correct, wrong or undecided."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from scdpo.grading.pool import WorkerPool
from scdpo.grading.rules import CORRECT, WRONG, decide, undecided
from scdpo.records import Verdict

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
    that a busy machine gives the same verdicts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(default=2, ge=1, le=64)
    deadline: float = Field(default=5.0, gt=0, le=600)


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

    async def grade_many_async(
        self, items: Sequence[tuple[Sequence[str] | str, str | None]]
    ) -> list[Verdict]:
        """`grade_many` for an event loop."""
        return await asyncio.to_thread(self.grade_many, items)

    def grade_many(self, items: Sequence[tuple[Sequence[str] | str, str | None]]) -> list[Verdict]:
        """Verdicts on (gold answers, answer) items, in their order."""
        known: dict[_PairKey, Verdict | None] = {}
        open_pairs: dict[_PairKey, None] = {}
        for gold, answer in items:
            pairs = _pairs(gold, answer)
            known.update((pair, self._without_worker(pair)) for pair in pairs if pair not in known)
            if all(known[pair] != CORRECT for pair in pairs):
                open_pairs.update((pair, None) for pair in pairs if known[pair] is None)
        compared = self._pool.compare_many(list(open_pairs))
        known.update(zip(open_pairs, compared, strict=True))
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered.update(zip(open_pairs, compared, strict=True))
        return [_verdict(gold, answer, known) for gold, answer in items]

    def _without_worker(self, pair: _PairKey) -> Verdict | None:
        """What the rules or an earlier comparison say; None when a worker is needed."""
        found = decide(*pair) or self._remembered.get(pair)
        if found is None and max(map(len, pair)) > MAX_SYMBOLIC:
            return undecided(f"longer than {MAX_SYMBOLIC} characters")
        if found is None and max(map(_depth, pair)) > MAX_DEPTH:
            return undecided("nested too deeply")
        return found


def _depth(text: str) -> int:
    """Most brackets that are open at once."""
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _verdict(
    gold: Sequence[str] | str, answer: str | None, known: Mapping[_PairKey, Verdict | None]
) -> Verdict:
    """The verdict over all gold answers: one equality is enough, one doubt leaves it open."""
    if answer is None or not answer.strip():
        return undecided("no answer")
    pairs = _pairs(gold, answer)
    if not pairs:
        return undecided("no gold answer")
    verdicts = [known[pair] for pair in pairs]
    if CORRECT in verdicts:
        return CORRECT
    return next((v for v in verdicts if v is not None and v.name == "undecided"), WRONG)


def _pairs(gold: Sequence[str] | str, answer: str | None) -> list[_PairKey]:
    if answer is None or not answer.strip():
        return []
    golds = [gold] if isinstance(gold, str) else gold
    return [(one, answer) for one in golds if one.strip()]
