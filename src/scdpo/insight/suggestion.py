"""One rule that chooses a schedule for a policy from what was measured.

Hotter steps give negatives sooner, so the cheapest schedule is a hot one; but negatives that the
policy would hardly write itself teach it little and can harm it (arXiv 2407.10490), and text that
the filters catch is a sign of more that they do not. So: of the schedules

- whose lost share is at most `lost` above that of the sampling temperature, and
- whose negatives are on average at least as likely, per token, as the lower quartile of those that
  the policy writes from the same steps at the sampling temperature (where naive pairs come from),

take the one with the fewest sampled tokens per negative; where several are within `slack` of it,
which is less than the prediction can tell apart, the one with the likeliest negatives.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from scdpo.errors import InputError
from scdpo.insight.schedules import Continued, ScheduleFigures
from scdpo.records import Record
from scdpo.sampling import Schedule

STEP = 0.05
"""Between the starts that are tried."""
INCREMENTS = (0.05, 0.1)
CAP_STEP = 0.1


class Rule(Record):
    """The numbers of the rule; see the module."""

    lost: float = 0.05
    quantile: float = 0.25
    slack: float = 0.05


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The schedule that the rule chose, and the limits that it had to keep.

    `floor` is None if no negative was drawn at the sampling temperature, or log-probs are unknown.
    `allowed` of `tried` schedules kept the limits; if none did, `schedule` is the constant sampling
    temperature.
    """

    schedule: Schedule
    floor: float | None
    most_lost: float
    tried: int
    allowed: int


def schedules(temperatures: Sequence[float]) -> Iterator[Schedule]:
    """The schedules to try: all starts in steps of 0.05 between the lowest positive and the highest
    temperature, constant or rising by 0.05 or 0.1 per step to caps in steps of 0.1 above."""
    lowest, highest = min(t for t in temperatures if t > 0), max(temperatures)
    for start in _steps(lowest, highest, STEP):
        yield Schedule(start, 0.0, start)
        for cap in _steps(start + CAP_STEP, highest, CAP_STEP):
            for increment in INCREMENTS:
                yield Schedule(start, increment, cap)


def suggest(continued: Continued, sampling: float, rule: Rule | None = None) -> Suggestion:
    """Choose a schedule. `sampling` is the temperature of naive sampling, and must be among the
    measured ones (InputError)."""
    rule = rule or Rule()
    if sampling not in continued.temperatures:
        measured = ", ".join(f"{t:g}" for t in continued.temperatures)
        raise InputError(
            f"the rule needs continuations at the sampling temperature {sampling:g} "
            f"(measured: {measured})"
        )
    as_sampled = Schedule(sampling, 0.0, sampling)
    floor = continued.quantile_logp(sampling, rule.quantile)
    most_lost = continued.predict(as_sampled, intervals=False).lost.value + rule.lost
    tried = [
        (schedule, continued.predict(schedule, intervals=False))
        for schedule in schedules(continued.temperatures)
    ]
    allowed = [(s, f) for s, f in tried if _keeps(f, floor, most_lost)]
    chosen = _cheapest(allowed, rule.slack) if allowed else as_sampled
    return Suggestion(chosen, floor, most_lost, len(tried), len(allowed))


def _keeps(figures: ScheduleFigures, floor: float | None, most_lost: float) -> bool:
    if figures.tokens is None or figures.lost.value > most_lost:
        return False
    return floor is None or (figures.logp is not None and figures.logp.value >= floor - 1e-9)


def _cheapest(allowed: Sequence[tuple[Schedule, ScheduleFigures]], slack: float) -> Schedule:
    def cost(figures: ScheduleFigures) -> float:
        return figures.tokens.value if figures.tokens else np.inf

    def likely(figures: ScheduleFigures) -> float:
        return figures.logp.value if figures.logp else -np.inf

    least = min(cost(figures) for _, figures in allowed)
    near = [(s, f) for s, f in allowed if cost(f) <= least * (1 + slack)]
    return max(near, key=lambda one: (likely(one[1]), -cost(one[1])))[0]


def _steps(low: float, high: float, step: float) -> list[float]:
    """Temperatures from `low` to `high`, rounded so that recipes show 1.15."""
    return [round(low + n * step, 2) for n in range(math.floor((high - low) / step + 1e-6) + 1)]
