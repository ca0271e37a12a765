"""Drawing attempts until a stop rule is satisfied, for naive sampling and branching."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from scdpo.engines.base import EngineProtocol, runs_freely
from scdpo.records import Problem, Side, Solution, SolutionHead
from scdpo.waiting import Progress, silent

REPLAY_DIFFERS = "replay_differs"
"""Flag of a continuation for which the parent's programs, rerun up to the branch step, printed
something else than before, so that it may have started from a different state."""


class Sign(NamedTuple):
    """What a stop rule needs to know about an attempt; far smaller than the attempt itself."""

    side: Side | None
    replay_differs: bool


@cache
def _sign(side: Side | None, replay_differs: bool) -> Sign:
    """One of six, so that those of a million attempts take little memory."""
    return Sign(side, replay_differs)


@dataclass(frozen=True, slots=True)
class StopRule:
    """Attempts are drawn until `chosen` of them are preferred and `rejected` dispreferred, but at
    most `most` (which may be 0). An attempt whose replay differed is the last one."""

    chosen: int
    rejected: int
    most: int
    truncated_is_wrong: bool = False

    def sign(self, attempt: Solution | SolutionHead) -> Sign:
        """What this rule needs to know about an attempt."""
        side = attempt.side(truncated_is_wrong=self.truncated_is_wrong)
        return _sign(side, REPLAY_DIFFERS in attempt.flags)

    def taken(self, signs: Sequence[Sign]) -> int | None:
        """How many of the attempts to keep, or None if more are needed."""
        if self.most == 0:
            return 0
        chosen = rejected = 0
        for n, sign in enumerate(signs, 1):
            chosen += sign.side == "chosen"
            rejected += sign.side == "rejected"
            enough = chosen >= self.chosen and rejected >= self.rejected
            if enough or n >= self.most or sign.replay_differs:
                return n
        return None

    def needed(self, signs: Sequence[Sign]) -> int:
        """How many more attempts it takes at least; 0 if no more are needed."""
        if self.taken(signs) is not None:
            return 0
        sides = [sign.side for sign in signs]
        missing = max(0, self.chosen - sides.count("chosen"))
        missing += max(0, self.rejected - sides.count("rejected"))
        return min(missing, self.most - len(signs))


@dataclass(slots=True, eq=False)
class Origin:
    """What attempts start from: a problem or, with a `parent`, that solution at the branch steps
    k, which attempts use in turn. `signs` are those of the attempts that its rule keeps so far."""

    id: str
    problem: Problem
    rule: StopRule
    parent: Solution | None = None
    branch_steps: tuple[int, ...] = ()
    signs: list[Sign] = field(default_factory=list)

    @property
    def settled(self) -> bool:
        """Whether the stop rule needs no more attempts."""
        return self.rule.taken(self.signs) is not None

    def add(self, attempt: Solution) -> bool:
        """Add the next attempt; returns whether the rule keeps it."""
        if self.settled:
            return False
        self.signs.append(self.rule.sign(attempt))
        return True


Draw = Callable[[Sequence[tuple[Origin, int]]], Awaitable[Sequence[Solution]]]
"""Draws attempts, each given by its origin and number, side by side."""
Existing = Mapping[str, Sequence[Sign]]
"""The signs of the attempts that there are already, by origin and in order."""


def draw_attempts(
    origins: Sequence[Origin],
    draw: Draw,
    engine: EngineProtocol,
    *,
    chunk: int,
    rows: int,
    existing: Existing,
    progress: Progress = silent,
) -> AsyncIterator[list[Solution]]:
    """Yield the attempts that each origin's rule keeps, as they are drawn.

    A rule looks at an origin's attempts in order, so which attempts there are does not depend on
    what runs side by side. Those that exist are not drawn again. Up to `rows` attempts are drawn
    at a time. `progress` receives the number of settled origins.
    """
    if runs_freely(engine):
        return _freely(origins, draw, rows, existing, progress)
    return _in_rounds(origins, draw, engine.clear, chunk, rows, existing, progress)


async def _in_rounds(
    origins: Sequence[Origin],
    draw: Draw,
    clear: Callable[[], None],
    chunk: int,
    rows: int,
    existing: Existing,
    progress: Progress,
) -> AsyncIterator[list[Solution]]:
    """Rounds of attempts, for a chunk of origins at a time; yields those of each round.

    A chunk begins with `clear`, so that it does not depend on earlier chunks. It is the unit of
    resumption: a chunk of which an attempt is missing is drawn again as a whole, since the rounds
    before shape what the engine remembers, and with it the last bits of what comes after.
    """
    for start in range(0, len(origins), chunk):
        part = origins[start : start + chunk]
        if any(origin.rule.taken(existing.get(origin.id, ())) is None for origin in part):
            clear()
            while unsettled := [origin for origin in part if not origin.settled]:
                progress(start + len(part) - len(unsettled), len(origins))
                batch = _next(unsettled, rows)
                drawn: list[Solution] = []
                for first in range(0, len(batch), rows):
                    drawn += await draw(batch[first : first + rows])
                yield [
                    attempt
                    for (origin, _), attempt in zip(batch, drawn, strict=True)
                    if origin.add(attempt)
                ]
        progress(start + len(part), len(origins))


def _next(origins: Sequence[Origin], rows: int) -> list[tuple[Origin, int]]:
    """The next attempts: one per origin, more if rows are free (extra ones may be dropped)."""
    share = max(1, rows // len(origins))
    batch: list[tuple[Origin, int]] = []
    for origin in origins:
        first = len(origin.signs)
        batch += [(origin, n) for n in range(first, min(first + share, origin.rule.most))]
    return batch


@dataclass(slots=True, eq=False)
class _Begun:
    """An origin on which attempts have begun: how many, and those that wait for earlier ones."""

    origin: Origin
    asked: int
    drawn: dict[int, Solution] = field(default_factory=dict)

    def keep(self) -> list[Solution]:
        """Give the origin what it can take; returns what its rule keeps."""
        kept = []
        while (attempt := self.drawn.pop(len(self.origin.signs), None)) is not None:
            if self.origin.add(attempt):
                kept.append(attempt)
        return kept


class _InFlight:
    """Attempts that are being drawn, at most `rows` of them."""

    def __init__(self, origins: Sequence[Origin], draw: Draw, rows: int):
        self.left = len(origins)
        """Origins that are not settled."""
        self._waiting = iter(origins)
        self._draw = draw
        self._rows = rows
        self._begun: list[_Begun] = []
        self._tasks: dict[asyncio.Future[Sequence[Solution]], tuple[_Begun, int]] = {}
        self._failed: BaseException | None = None

    def fill(self) -> None:
        """Begin attempts until all places are taken.

        First those that are needed in any case, on origins that have begun and then on new ones;
        if places are left, more than that on each origin, of which some may be dropped.
        """
        for begun in self._begun:
            self._begin(begun, begun.origin.rule.needed(begun.origin.signs))
        while self._room() and (origin := next(self._waiting, None)) is not None:
            self._begun.append(_Begun(origin, len(origin.signs)))
            self._begin(self._begun[-1], origin.rule.needed(origin.signs))
        if self._begun and self._room():
            for begun in self._begun:
                self._begin(begun, self._rows // len(self._begun))

    def _room(self) -> int:
        return self._rows - sum(n for _, n in self._tasks.values())

    def _begin(self, begun: _Begun, wanted: int) -> None:
        """Begin attempts on an origin so that `wanted` are under way, if there is room."""
        origin, first = begun.origin, begun.asked
        most = min(len(origin.signs) + wanted, origin.rule.most)
        if most > first:
            batch = [(origin, n) for n in range(first, min(most, first + self._room()))]
            if batch:
                task = asyncio.ensure_future(self._draw(batch))
                self._tasks[task] = (begun, len(batch))
                begun.asked += len(batch)

    async def next(self) -> list[Solution]:
        """Wait until attempts have been drawn; returns those that their rules keep.

        An error is raised when everything that was drawn before it has been returned.
        """
        if self._failed is not None:
            raise self._failed
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        kept: list[Solution] = []
        for task in done:
            begun, _ = self._tasks.pop(task)
            if task.cancelled():
                continue
            if error := task.exception():
                self._failed = error
                continue
            begun.drawn.update((attempt.attempt, attempt) for attempt in task.result())
            kept += begun.keep()
            if begun.origin.settled and begun in self._begun:
                self._settle(begun)
        if self._failed is not None and not kept:
            raise self._failed
        return kept

    def _settle(self, begun: _Begun) -> None:
        """Stop what is no longer needed on an origin."""
        self.left -= 1
        self._begun.remove(begun)
        for task, (other, _) in self._tasks.items():
            if other is begun:
                task.cancel()

    async def close(self) -> None:
        """Stop everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _freely(
    origins: Sequence[Origin], draw: Draw, rows: int, existing: Existing, progress: Progress
) -> AsyncIterator[list[Solution]]:
    """Attempts as places become free, whatever their origins; yields them as they are kept."""
    for origin in origins:
        for sign in existing.get(origin.id, ()):
            if not origin.settled:
                origin.signs.append(sign)
    flight = _InFlight([origin for origin in origins if not origin.settled], draw, rows)
    try:
        while flight.left:
            progress(len(origins) - flight.left, len(origins))
            flight.fill()
            if kept := await flight.next():
                yield kept
        progress(len(origins), len(origins))
    finally:
        await flight.close()


def signs_of(
    attempts: Iterable[Solution | SolutionHead], origins: Sequence[Origin]
) -> dict[str, list[Sign]]:
    """The signs of existing attempts by origin, in order; attempts of other origins are ignored."""
    rules = {origin.id: origin.rule for origin in origins}
    by_origin: dict[str, dict[int, Sign]] = {}
    for attempt in attempts:
        name = attempt.parent or attempt.problem_id
        if name in rules:
            by_origin.setdefault(name, {})[attempt.attempt] = rules[name].sign(attempt)
    return {name: [signs[n] for n in sorted(signs)] for name, signs in by_origin.items()}
