"""Figures about a run's pairs and branches, with intervals; also by branch step and by the steps
that are left after it.

A share or mean is taken over pairs, preferred solutions or branches. Its interval resamples
questions, since what belongs to a question is alike. Where a share is 0 or 1, resampling says
nothing, and the interval is Wilson's on the number of questions. One question alone gives a mean no
interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from scdpo.evaluation.significance import ConfidenceInterval, wilson_interval
from scdpo.insight.branches import Continuation, Mistake, Outcome, PairQuality
from scdpo.insight.finding import RESAMPLES
from scdpo.records import PairKind, Record

Part = Literal["naive", "step_controlled", "preferred", "branches"]
"""What a line is about: pairs of a kind, the preferred solutions of all pairs, or all branches,
whether they became a pair or not."""
By = Literal["all", "branch_step", "steps_left", "distance"]
Unit = Literal["share", "tokens", "steps", "nats"]


T = TypeVar("T")


class QualityLine(Record):
    """One figure: a share, or a mean, with its 95 % interval if there is one.

    `group` is the value of `by`: the branch step k, the steps of the preferred solution after k,
    or the distance of the first wrong step from k; None for `all`. `n` is how many pairs,
    solutions, steps or branches the figure is about, and `questions` how many questions those
    belong to.
    """

    part: Part
    by: By
    group: int | None
    measure: str
    unit: Unit
    n: int
    questions: int
    value: float
    low: float | None
    high: float | None


class _Item(NamedTuple):
    """One summand: `value` of `weight` things that belong to a question."""

    question: str
    value: float
    weight: float = 1.0


Measures = Mapping[str, tuple[Unit, Callable[[PairQuality], float | None]]]
PAIR_MEASURES: Measures = {
    "same_share": ("share", lambda pair: pair.same_share),
    "chosen_tokens": ("tokens", lambda pair: pair.chosen_tokens),
    "rejected_tokens": ("tokens", lambda pair: pair.rejected_tokens),
    "rejected_longer": ("share", lambda pair: pair.rejected_tokens > pair.chosen_tokens),
    "chosen_logp": ("nats", lambda pair: pair.chosen_logp),
    "rejected_logp": ("nats", lambda pair: pair.rejected_logp),
    "distance": ("steps", lambda pair: pair.distance),
    "wrong_at_once": ("share", lambda pair: None if pair.distance is None else pair.distance == 0),
}
"""What is measured of each pair; None where it is not known. `same_share` is of the shorter side;
`wrong_at_once`: the rejected side's first new step is wrong."""


def quality_lines(
    pairs: Sequence[PairQuality], branches: Iterable[Continuation], *, seed: int = 0
) -> list[QualityLine]:
    """All figures about pairs and branches; those that need labels are left out without them."""
    lines: list[QualityLine] = []
    branches = list(branches)
    names = [pair.problem_id for pair in pairs] + [branch.problem_id for branch in branches]
    resampled = _Resampled(list(dict.fromkeys(names)), seed)
    for kind in get_args(PairKind):
        lines += _pair_lines([pair for pair in pairs if pair.kind == kind], kind, resampled)
    lines += _preferred_lines(pairs, resampled)
    lines += _branch_lines(branches, resampled)
    return lines


def _pair_lines(
    pairs: Sequence[PairQuality], kind: PairKind, resampled: _Resampled
) -> list[QualityLine]:
    groups = _groups(pairs, lambda p: p.branch_step, lambda p: p.chosen_steps)
    if kind == "naive":  # k is 0 for all of them
        groups = {("all", None): pairs}
    lines = []
    for (by, group), some in groups.items():
        for measure, (unit, of) in PAIR_MEASURES.items():
            values = [(pair.problem_id, of(pair)) for pair in some]
            items = [_Item(question, float(v)) for question, v in values if v is not None]
            lines += resampled.line(kind, by, group, measure, unit, items)
    labelled = [pair for pair in pairs if pair.labelled]
    distances = sorted({pair.distance for pair in labelled if pair.distance is not None})
    for group in distances:
        items = [_Item(pair.problem_id, pair.distance == group) for pair in labelled]
        lines += resampled.line(kind, "distance", group, "negatives", "share", items)
    items = [_Item(pair.problem_id, pair.distance is None) for pair in labelled]
    lines += resampled.line(kind, "all", None, "no_wrong_step", "share", items)
    for name in get_args(Mistake):
        items = [_Item(pair.problem_id, pair.mistake == name) for pair in labelled]
        lines += resampled.line(kind, "all", None, f"mistake:{name}", "share", items)
    return lines


def _preferred_lines(pairs: Sequence[PairQuality], resampled: _Resampled) -> list[QualityLine]:
    """How many preferred solutions, each counted once, hide a wrong step, and of how many steps."""
    preferred = {pair.chosen_id: pair for pair in pairs if pair.labelled}.values()
    hidden = [(p.problem_id, p.chosen_first_wrong is not None) for p in preferred]
    steps = [p.branch_step + p.chosen_steps for p in preferred]
    solutions = [_Item(question, wrong) for question, wrong in hidden]
    of_steps = [_Item(q, wrong, n) for (q, wrong), n in zip(hidden, steps, strict=True)]
    return [
        *resampled.line("preferred", "all", None, "hidden_wrong", "share", solutions),
        *resampled.line("preferred", "all", None, "hidden_wrong_steps", "share", of_steps),
    ]


def _branch_lines(branches: Sequence[Continuation], resampled: _Resampled) -> list[QualityLine]:
    groups = _groups(branches, lambda b: b.branch_step, lambda b: b.parent_steps_left)
    return [
        line
        for (by, group), some in groups.items()
        for outcome in get_args(Outcome)
        for line in resampled.line(
            *("branches", by, group, outcome, "share"),
            [_Item(branch.problem_id, branch.outcome == outcome) for branch in some],
        )
    ]


def _groups(
    rows: Sequence[T], k: Callable[[T], int], left: Callable[[T], int]
) -> dict[tuple[By, int | None], Sequence[T]]:
    """All rows, the rows of each branch step, and those with each number of steps left."""
    keys: tuple[tuple[By, Callable[[T], int]], ...] = (("branch_step", k), ("steps_left", left))
    found: dict[tuple[By, int | None], Sequence[T]] = {("all", None): rows}
    for by, key in keys:
        for group in sorted({key(row) for row in rows}):
            found[by, group] = [row for row in rows if key(row) == group]
    return found


class _Resampled:
    """Ratios of sums over questions, and their intervals over resampled questions."""

    def __init__(self, questions: Sequence[str], seed: int):
        self._number = {question: n for n, question in enumerate(questions)}
        size = len(questions)
        rng = np.random.default_rng(seed)
        draws = rng.multinomial(size, np.full(size, 1 / max(size, 1)), size=RESAMPLES)
        self._weight_RP: NDArray[np.float32] = draws.astype(np.float32)

    def line(
        self,
        part: Part,
        by: By,
        group: int | None,
        measure: str,
        unit: Unit,
        items: Sequence[_Item],
    ) -> list[QualityLine]:
        """The line for some items, or none if there are no items."""
        if not items:
            return []
        questions = len({item.question for item in items})
        value, interval = self._estimate(items, questions, share=unit == "share")
        return [
            QualityLine(
                part=part,
                by=by,
                group=group,
                measure=measure,
                unit=unit,
                n=round(sum(item.weight for item in items)),
                questions=questions,
                value=value,
                low=None if interval is None else interval.low,
                high=None if interval is None else interval.high,
            )
        ]

    def _estimate(
        self, items: Sequence[_Item], questions: int, *, share: bool
    ) -> tuple[float, ConfidenceInterval | None]:
        at = [self._number[item.question] for item in items]
        value_P = np.bincount(at, [item.value for item in items], len(self._number))
        weight_P = np.bincount(at, [item.weight for item in items], len(self._number))
        value = float(value_P.sum() / weight_P.sum())
        if share and value in (0.0, 1.0):
            return value, wilson_interval(questions if value else 0, questions)
        if questions == 1:
            return value, None
        weight_R = self._weight_RP @ weight_P
        drawn = weight_R > 0
        values_R = (self._weight_RP @ value_P)[drawn] / weight_R[drawn]
        low, high = np.quantile(values_R, [0.025, 0.975])
        return value, ConfidenceInterval(float(low), float(high))
