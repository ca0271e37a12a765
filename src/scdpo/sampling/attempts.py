"""Drawing attempts until a stop rule is satisfied, for naive sampling and branching."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from scdpo.records import Problem, Side, Solution
from scdpo.waiting import Progress, silent

REPLAY_DIFFERS = "replay_differs"
"""Flag of a continuation for which the parent's programs, rerun up to the branch step, printed
something else than before, so that it may have started from a different state."""


class Sign(NamedTuple):
    """What a stop rule needs to know about an attempt; far smaller than the attempt itself."""

    side: Side | None
    replay_differs: bool


@dataclass(frozen=True, slots=True)
class StopRule:
    """Attempts are drawn until `chosen` of them are preferred and `rejected` dispreferred, but at
    most `most` (which may be 0). An attempt whose replay differed is the last one."""

    chosen: int
    rejected: int
    most: int
    truncated_is_wrong: bool = False

    def sign(self, attempt: Solution) -> Sign:
        """What this rule needs to know about an attempt."""
        side = attempt.side(truncated_is_wrong=self.truncated_is_wrong)
        return Sign(side, REPLAY_DIFFERS in attempt.flags)

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


@dataclass(slots=True)
class Origin:
    """What attempts start from: a problem or, with a `parent`, that solution at the branch steps
    k, which attempts use in turn."""

    id: str
    problem: Problem
    rule: StopRule
    parent: Solution | None = None
    branch_steps: tuple[int, ...] = ()
    attempts: list[Solution] = field(default_factory=list)
    signs: list[Sign] = field(default_factory=list)

    @property
    def taken(self) -> int | None:
        """How many attempts the stop rule keeps, or None if it needs more."""
        return self.rule.taken(self.signs)

    def add(self, attempt: Solution) -> None:
        """Add the next attempt."""
        self.attempts.append(attempt)
        self.signs.append(self.rule.sign(attempt))


Draw = Callable[[Sequence[tuple[Origin, int]]], Awaitable[Sequence[Solution]]]
"""Draws attempts, each given by its origin and number, side by side."""


async def draw_attempts(
    origins: Sequence[Origin],
    draw: Draw,
    clear: Callable[[], None],
    *,
    chunk: int,
    rows: int,
    existing: Mapping[str, Sequence[Sign]],
    progress: Progress = silent,
) -> AsyncIterator[list[Solution]]:
    """Yield the attempts that each origin's rule keeps, a chunk of origins at a time.

    A rule looks at an origin's attempts in order, so the result does not depend on what runs side
    by side. A chunk begins with `clear`, so that it does not depend on earlier chunks. Chunks are
    the unit of resumption: a chunk whose rules are satisfied by the `existing` attempts is
    skipped, any other is drawn again as a whole. Up to `rows` attempts are drawn at a time.
    `progress` receives the number of settled origins.
    """
    for start in range(0, len(origins), chunk):
        part = origins[start : start + chunk]
        if any(origin.rule.taken(existing.get(origin.id, ())) is None for origin in part):
            clear()
            while unsettled := [origin for origin in part if origin.taken is None]:
                progress(start + len(part) - len(unsettled), len(origins))
                batch = _next(unsettled, rows)
                for first in range(0, len(batch), rows):
                    now = batch[first : first + rows]
                    for (origin, _), attempt in zip(now, await draw(now), strict=True):
                        origin.add(attempt)
            yield [attempt for origin in part for attempt in origin.attempts[: origin.taken]]
        for origin in part:
            origin.attempts.clear()
        progress(start + len(part), len(origins))


def _next(origins: Sequence[Origin], rows: int) -> list[tuple[Origin, int]]:
    """The next attempts: one per origin, more if rows are free (extra ones may be dropped)."""
    share = max(1, rows // len(origins))
    batch: list[tuple[Origin, int]] = []
    for origin in origins:
        first = len(origin.attempts)
        batch += [(origin, n) for n in range(first, min(first + share, origin.rule.most))]
    return batch


def signs_of(attempts: Iterable[Solution], origins: Sequence[Origin]) -> dict[str, list[Sign]]:
    """The signs of existing attempts by origin, in order; attempts of other origins are ignored."""
    rules = {origin.id: origin.rule for origin in origins}
    by_origin: dict[str, dict[int, Sign]] = {}
    for attempt in attempts:
        name = attempt.parent or attempt.problem_id
        if name in rules:
            by_origin.setdefault(name, {})[attempt.attempt] = rules[name].sign(attempt)
    return {name: [signs[n] for n in sorted(signs)] for name, signs in by_origin.items()}
