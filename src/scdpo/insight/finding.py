"""How well step scores find the first wrong step of a solution.

Measures: ROC-AUC over steps; first-error accuracy, the share of wrong solutions whose
lowest-scored step is the first wrong one; and F1 as ProcessBench has it (arXiv 2412.06559), the
harmonic mean of the accuracies on solutions with and without a wrong step. Intervals resample
problems, since solutions of a problem are alike, and scorers are compared on the same resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scdpo.errors import InputError
from scdpo.evaluation import mcnemar_exact
from scdpo.insight.labels import StepLabels
from scdpo.records import Record

RESAMPLES = 1000
_FOLDS = 2
_MAX_THRESHOLDS = 400
_RESAMPLES_AT_A_TIME = 100
"""So that tens of thousands of steps need tens of megabytes, not a gigabyte."""

Floats = NDArray[np.float64]


class Estimate(Record):
    """A measure with its 95 % bootstrap interval, as fractions of 1."""

    value: float
    low: float
    high: float


class FindingLine(Record):
    """How well one scorer finds first wrong steps.

    `f1` is None if all solutions, or none, have a wrong step. Its threshold is chosen on the
    other half of the problems.
    """

    scorer: str
    n_solutions: int
    n_wrong: int
    n_problems: int
    auc: Estimate
    first_error: Estimate
    f1: Estimate | None


class FindingDifference(Record):
    """Scorer a minus scorer b on the same solutions; p-values are two-sided.

    `auc_p` and `f1_p` are from the bootstrap, with the thresholds held, `first_error_p` is from the
    exact McNemar test over solutions. `f1` is None where the lines have none.
    """

    a: str
    b: str
    auc: Estimate
    auc_p: float
    first_error: Estimate
    first_error_p: float
    f1: Estimate | None = None
    f1_p: float | None = None


@dataclass(frozen=True, slots=True)
class _Scored:
    """One scorer's results: AUC on all problems and every resample (R), hits by solution (S)."""

    auc_R: Floats
    hit_S: NDArray[np.bool_]
    f1_hit_S: NDArray[np.bool_]


class Finding:
    """Solutions whose first wrong step is known, and scorers that look for it.

    `labels` has an entry for each solution and `problems` the problem that it belongs to. `scores`
    has, for each scorer, a score for each step of each solution; low marks an error. Raises
    InputError if these do not fit together, and if no solution has a wrong step.
    """

    def __init__(
        self,
        labels: Sequence[StepLabels],
        problems: Sequence[str],
        scores: Mapping[str, Sequence[Sequence[float]]],
        *,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ):
        _check(labels, problems, scores)
        self._names = {name: n for n, name in enumerate(dict.fromkeys(problems))}
        self._problem_S = np.array([self._names[problem] for problem in problems])
        self._first_S = np.array(
            [-1 if label.first_wrong is None else label.first_wrong for label in labels]
        )
        self._both = 0 < int((self._first_S >= 0).sum()) < len(self._first_S)
        known = [(s, n) for s, label in enumerate(labels) for n in _known(label)]
        self._solution_L = np.array([s for s, _ in known])
        self._step_L = np.array([n for _, n in known])
        self._wrong_L = self._step_L == self._first_S[self._solution_L]
        rng = np.random.default_rng(seed)
        size = len(self._names)
        draws = rng.multinomial(size, np.full(size, 1 / size), size=resamples)
        self._weight_RP: Floats = np.concatenate([np.ones((1, size)), draws]).astype(np.float64)
        self._fold_P = rng.permutation(np.arange(size) % _FOLDS)
        self._scored = {name: self._score(scores[name]) for name in scores}

    def lines(self) -> list[FindingLine]:
        """A line for each scorer, in the order in which they were given."""
        wrong = int((self._first_S >= 0).sum())
        return [
            FindingLine(
                scorer=name,
                n_solutions=len(self._first_S),
                n_wrong=wrong,
                n_problems=len(self._names),
                auc=_estimate(scored.auc_R),
                first_error=_estimate(self._share_R(scored.hit_S, self._first_S >= 0)),
                f1=_estimate(self._f1_R(scored)) if self._both else None,
            )
            for name, scored in self._scored.items()
        ]

    def difference(self, a: str, b: str) -> FindingDifference:
        """Scorer `a` minus scorer `b`. Raises InputError for an unknown scorer."""
        for name in (a, b):
            if name not in self._scored:
                raise InputError(f"no scorer {name!r}; known: {', '.join(self._scored)}")
        one, other = self._scored[a], self._scored[b]
        wrong = self._first_S >= 0
        auc_R = one.auc_R - other.auc_R
        share_R = self._share_R(one.hit_S, wrong) - self._share_R(other.hit_S, wrong)
        only_a = int((one.hit_S & ~other.hit_S & wrong).sum())
        only_b = int((other.hit_S & ~one.hit_S & wrong).sum())
        f1_R = self._f1_R(one) - self._f1_R(other) if self._both else None
        return FindingDifference(
            a=a,
            b=b,
            auc=_estimate(auc_R),
            auc_p=_two_sided(auc_R[1:]),
            first_error=_estimate(share_R),
            first_error_p=mcnemar_exact(only_a, only_b),
            f1=None if f1_R is None else _estimate(f1_R),
            f1_p=None if f1_R is None else _two_sided(f1_R[1:]),
        )

    # ---- one scorer

    def _score(self, scores: Sequence[Sequence[float]]) -> _Scored:
        steps = [np.asarray(row, dtype=np.float64) for row in scores]
        score_L = np.array(
            [steps[s][n] for s, n in zip(self._solution_L, self._step_L, strict=True)]
        )
        lowest_S = np.array([int(np.argmin(row)) for row in steps])
        return _Scored(
            auc_R=self._auc_R(score_L),
            hit_S=lowest_S == self._first_S,
            f1_hit_S=self._by_threshold(steps),
        )

    def _by_threshold(self, steps: Sequence[Floats]) -> NDArray[np.bool_]:
        """Whether the first step below a threshold is the first wrong one.

        For each half of the problems, the threshold is the best of the other half.
        """
        lowest = np.unique(np.concatenate([np.minimum.accumulate(row) for row in steps]))
        picked = np.unique(np.linspace(0, len(lowest) - 1, _MAX_THRESHOLDS).astype(int))
        thresholds = [-np.inf, *lowest[picked], np.inf]
        hit_TS = np.array([first_S == self._first_S for first_S in _first_below(steps, thresholds)])
        fold_S = self._fold_P[self._problem_S]
        hit_S = np.zeros(len(steps), dtype=np.bool_)
        for fold in range(_FOLDS):
            others = fold_S != fold
            best = max(range(len(thresholds)), key=lambda t: self._f1(hit_TS[t], others))
            hit_S[~others] = hit_TS[best][~others]
        return hit_S

    def _f1(self, hit_S: NDArray[np.bool_], among_S: NDArray[np.bool_]) -> float:
        wrong, right = among_S & (self._first_S >= 0), among_S & (self._first_S < 0)
        if not wrong.any() or not right.any():
            return 0.0
        shares = ([hit_S[among].mean()] for among in (wrong, right))
        return float(_harmonic(*map(np.asarray, shares))[0])

    # ---- measures on all problems (entry 0) and on every resample

    def _auc_R(self, score_L: Floats) -> Floats:
        """The chance that a wrong step scores below a right one; ties count half."""
        order_L = np.argsort(score_L, kind="stable")
        group_L = np.concatenate([[0], np.cumsum(np.diff(score_L[order_L]) > 0)])
        starts_G = np.flatnonzero(np.diff(group_L, prepend=-1))
        cuts = range(0, len(self._weight_RP), _RESAMPLES_AT_A_TIME)
        parts = (self._weight_RP[cut : cut + _RESAMPLES_AT_A_TIME] for cut in cuts)
        return np.concatenate([self._auc_of(part, order_L, starts_G) for part in parts])

    def _auc_of(
        self, weight_RP: Floats, order_L: NDArray[np.int64], starts_G: NDArray[np.int64]
    ) -> Floats:
        """For some resamples; `starts_G` are where each group of equal scores begins in order."""
        weight_RL = weight_RP[:, self._problem_S[self._solution_L[order_L]]]
        wrong_L = self._wrong_L[order_L]
        wrong_RG = np.add.reduceat(weight_RL * wrong_L, starts_G, axis=1)
        right_RG = np.add.reduceat(weight_RL * ~wrong_L, starts_G, axis=1)
        before_RG = np.cumsum(wrong_RG, axis=1) - wrong_RG
        won_R = (right_RG * (before_RG + wrong_RG / 2)).sum(axis=1)
        pairs_R = wrong_RG.sum(axis=1) * right_RG.sum(axis=1)
        return _divided(won_R, pairs_R, otherwise=0.5)

    def _share_R(self, hit_S: NDArray[np.bool_], among_S: NDArray[np.bool_]) -> Floats:
        weight_RS = self._weight_RP[:, self._problem_S[among_S]]
        total_R = weight_RS.sum(axis=1)
        hits_R = weight_RS @ hit_S[among_S].astype(np.float64)
        return _divided(hits_R, total_R)

    def _f1_R(self, scored: _Scored) -> Floats:
        wrong_R = self._share_R(scored.f1_hit_S, self._first_S >= 0)
        right_R = self._share_R(scored.f1_hit_S, self._first_S < 0)
        return _harmonic(wrong_R, right_R)


def _check(
    labels: Sequence[StepLabels],
    problems: Sequence[str],
    scores: Mapping[str, Sequence[Sequence[float]]],
) -> None:
    if len(problems) != len(labels):
        raise InputError(f"{len(labels)} labelled solutions, but problems for {len(problems)}")
    if all(label.first_wrong is None for label in labels):
        raise InputError(f"none of {len(labels)} solutions has a step that is known to be wrong")
    if not any(False in label.wrong for label in labels):
        raise InputError(f"none of {len(labels)} solutions has a step that is known to be right")
    for name, rows in scores.items():
        if [len(row) for row in rows] != [len(label.wrong) for label in labels]:
            raise InputError(f"scorer {name!r} does not have a score for each step")


def _known(label: StepLabels) -> list[int]:
    return [n for n, wrong in enumerate(label.wrong) if wrong is not None]


def _first_below(
    steps: Sequence[Floats], thresholds: Sequence[float]
) -> Iterator[NDArray[np.int64]]:
    """For each threshold, each solution's first step below it; −1 for none."""
    n_S = np.array([len(row) for row in steps])
    lowest_SN = np.full((len(steps), int(n_S.max())), -np.inf)
    for row, lowest_N in zip(steps, lowest_SN, strict=True):
        lowest_N[: len(row)] = np.minimum.accumulate(row)
    for threshold in thresholds:
        # Lowest so far, step by step: those that are not below come before the first that is.
        before_S = (lowest_SN >= threshold).sum(axis=1)
        yield np.where(before_S < n_S, before_S, -1)


def _divided(above: Floats, below: Floats, otherwise: float = 0.0) -> Floats:
    """Quotients, and `otherwise` where the denominator is 0."""
    out: Floats = np.full(len(above), otherwise)
    np.divide(above, below, out=out, where=below > 0)
    return out


def _harmonic(a: Floats, b: Floats) -> Floats:
    """The harmonic mean, 0 where both are 0."""
    return _divided(2 * a * b, a + b)


def _estimate(values_R: Floats) -> Estimate:
    """The first value, with the interval of the others."""
    low, high = np.quantile(values_R[1:], [0.025, 0.975])
    return Estimate(value=float(values_R[0]), low=float(low), high=float(high))


def _two_sided(values_R: Floats) -> float:
    below, above = (values_R <= 0).mean(), (values_R >= 0).mean()
    return float(min(1.0, 2 * max(min(below, above), 1 / len(values_R))))
