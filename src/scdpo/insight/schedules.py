"""What branching with a schedule of temperatures would give, from solutions drawn at constant ones.

The model. A continuation that has m steps left to write can be lost (cut, garbled, undecided) in
each of them with hazard λ_lost(T), and leaves the right way with hazard λ_wrong(T), where T is the
temperature of the step. Both are read off the continuations drawn at T, so that the model gives
back the shares measured at every constant temperature; between these they are interpolated. Then

    P(negative) = exp(−Σ_j λ_lost(T_j)) · (1 − exp(−Σ_j λ_wrong(T_j))),   j = 0 … m − 1

Attempts at the same solution are alike. Their negatives are beta-binomial, which gives the attempts
that the stop rule of branching needs. Tokens and log-probs are averaged place by place: new step j
counts as measured at T_j.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from scdpo.errors import InputError
from scdpo.insight.resampling import (
    RESAMPLES,
    Estimate,
    Floats,
    divided,
    estimate,
    resample_weights,
)
from scdpo.insight.temperature import Drawn, new_tokens, outcome
from scdpo.records import Record, Solution, Step
from scdpo.sampling import BranchConfig, Schedule
from scdpo.sampling.branching import mean_new_logp

_HIGHEST = 30.0
"""The hazard of a step in which everything goes wrong."""
_HALVINGS = 40


class ScheduleFigures(Record):
    """What branching with a schedule gives, predicted or measured.

    All hold under the recipe's stop rule, which makes more attempts where they fail: `per_attempt`
    (negatives for each attempt, the yield), `per_parent` (negatives for each solution that is
    continued), `attempts` and `tokens` for each negative. `lost` is the share of attempts that give
    neither a right solution nor a negative, and `logp` the mean log-prob per new token of negatives
    under the policy at temperature 1 (nats). None where there is no negative.
    """

    per_attempt: Estimate
    per_parent: Estimate
    attempts: Estimate | None
    tokens: Estimate | None
    lost: Estimate
    logp: Estimate | None


class Continued:
    """Continuations drawn at several constant temperatures, as arrays over resamples.

    Dimensions: R resamples (the first has every question once), T temperatures, M numbers of steps
    left, J places of new steps. `config` has the stop rule. Raises InputError if there are fewer
    than two temperatures, or none at which a negative was drawn.
    """

    def __init__(
        self,
        rows: Iterable[Drawn],
        config: BranchConfig,
        *,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ):
        by_temperature: dict[float, list[Drawn]] = defaultdict(list)
        for row in rows:
            if row.origin == "step":
                by_temperature[row.temperature].append(row)
        self.temperatures = sorted(by_temperature)
        if len(self.temperatures) < 2:
            raise InputError("a schedule is chosen from continuations at two temperatures or more")
        ordered = [by_temperature[t] for t in self.temperatures]
        self._config = config
        self._questions = sorted({row.solution.problem_id for rows in ordered for row in rows})
        self._place = {name: n for n, name in enumerate(self._questions)}
        self._lengths = sorted({row.remaining for rows in ordered for row in rows})
        rng = np.random.default_rng(seed)
        self._weight_RQ = resample_weights(len(self._questions), rng, resamples)
        counted = [self._counts(rows) for rows in ordered]
        self._wanted = self._wanted_shares(ordered)

        def resampled(key: str) -> Floats:
            """Sums over questions, weighted: (T, R, …)."""
            return np.stack([np.tensordot(self._weight_RQ, c[key], 1) for c in counted])

        all_TRM, negative_TRM = resampled("all"), resampled("negative")
        lost_TR = resampled("lost").sum(axis=-1)
        lengths_M = np.array(self._lengths, dtype=np.float64)
        self._lost_TR = _hazard(all_TRM, lost_TR, lengths_M)
        kept_TRM = all_TRM * np.exp(-self._lost_TR[:, :, None] * lengths_M)
        self._wrong_TR = _hazard(kept_TRM, negative_TRM.sum(axis=-1), lengths_M)
        total_TR, negatives_TR = all_TRM.sum(axis=-1), negative_TRM.sum(axis=-1)
        self._share_RM = divided(all_TRM.sum(axis=0), total_TR.sum(axis=0)[:, None])
        self._tokens_TRJ = divided(resampled("tokens"), total_TR[:, :, None])
        scored_TR1 = resampled("scored")[:, :, None]
        self._logp_TRJ = divided(resampled("logp"), scored_TR1, np.nan)
        self._part_TRJ = divided(resampled("part"), scored_TR1, np.nan)
        self._alike_R = self._likeness(counted, total_TR, negatives_TR)
        self.negatives = [float(n) for n in negatives_TR[:, 0]]
        if not any(self.negatives):
            raise InputError("no continuation at any temperature went wrong")
        self._logps = [
            [v for row in rows if (v := _negative_logp(row.solution, config)) is not None]
            for rows in ordered
        ]

    def quantile_logp(self, temperature: float, quantile: float) -> float | None:
        """A quantile of the mean log-probs of the negatives drawn at a temperature, if any."""
        values = self._logps[self.temperatures.index(temperature)]
        return float(np.quantile(values, quantile)) if values else None

    def predict(self, schedule: Schedule, *, intervals: bool = True) -> ScheduleFigures:
        """What branching with a schedule would give.

        Without `intervals`, which is faster, these have no width. Temperatures outside the measured
        ones count as the nearest measured one.
        """
        rows = slice(None) if intervals else slice(0, 1)
        places = max(self._tokens_TRJ.shape[-1], self._lengths[-1])
        steps_J = np.array([schedule.temperature(j) for j in range(places)])
        lost_JR = self._at(self._lost_TR[:, rows], steps_J)
        wrong_JR = self._at(self._wrong_TR[:, rows], steps_J)
        last_M = np.array(self._lengths) - 1
        kept_RM = np.exp(-np.cumsum(lost_JR, axis=0)[last_M]).T
        erred_RM = -np.expm1(-np.cumsum(wrong_JR, axis=0)[last_M]).T
        share_RM = self._share_RM[rows]
        negative_R = (share_RM * kept_RM * erred_RM).sum(axis=1)
        lost_R = 1 - (share_RM * kept_RM).sum(axis=1)
        tokens_R = self._by_place(self._tokens_TRJ[:, rows], steps_J)
        logp_R = self._by_place(self._logp_TRJ[:, rows], steps_J)
        logp_R = logp_R / self._by_place(self._part_TRJ[:, rows], steps_J)
        attempts_R, negatives_R = self._stopped(negative_R, self._alike_R[rows])
        per_negative_R = divided(attempts_R, negatives_R, np.nan)
        return ScheduleFigures(
            per_attempt=estimate(divided(negatives_R, attempts_R)),
            per_parent=estimate(negatives_R),
            attempts=_if_known(per_negative_R),
            tokens=_if_known(per_negative_R * tokens_R),
            lost=estimate(lost_R),
            logp=_if_known(logp_R),
        )

    # ---- counting

    def _counts(self, rows: Sequence[Drawn]) -> dict[str, Floats]:
        """What the continuations at one temperature sum up to, for each question (Q, …)."""
        shape = (len(self._questions), len(self._lengths))
        places = self._config.limits.max_steps
        counts: dict[str, Floats] = {}
        counts |= {key: np.zeros(shape) for key in ("all", "lost", "negative")}
        counts |= {key: np.zeros((shape[0], places)) for key in ("tokens", "logp", "part")}
        counts["scored"] = np.zeros(shape[0])
        for row in rows:
            q, m = self._place[row.solution.problem_id], self._lengths.index(row.remaining)
            what = outcome(row.solution, truncated_is_wrong=self._config.truncated_is_wrong)
            counts["all"][q, m] += 1
            if what in counts:
                counts[what][q, m] += 1
            new = row.solution.steps[row.solution.branch_step :]
            counts["tokens"][q, : len(new)] += [len(step.token_ids) for step in new]
            if what == "negative" and mean_new_logp(new, 0) is not None:
                counts["scored"][q] += 1
                part = _parts(new)
                counts["part"][q, : len(new)] += part
                counts["logp"][q, : len(new)] += part * [step.mean_logp or 0.0 for step in new]
        return counts

    def _wanted_shares(self, ordered: Sequence[Sequence[Drawn]]) -> dict[int, float]:
        """How many negatives a parent should have, and the share of parents that should."""
        datasets = {row.solution.problem_id: row.solution.dataset for r in ordered for row in r}
        wanted = [self._config.negatives_for(name) for name in datasets.values()]
        return {n: wanted.count(n) / len(wanted) for n in sorted(set(wanted))}

    def _likeness(
        self, counted: Sequence[Mapping[str, Floats]], total_TR: Floats, negatives_TR: Floats
    ) -> Floats:
        """The correlation of two attempts at the same solution, pooled over temperatures (R).

        From the share of pairs of attempts that are both negative, which is p² + ρ p (1 − p).
        """
        above_R = np.zeros(len(self._weight_RQ))
        below_R = np.zeros(len(self._weight_RQ))
        for t, counts in enumerate(counted):
            n_Q, x_Q = counts["all"].sum(axis=1), counts["negative"].sum(axis=1)
            both_R = divided(
                self._weight_RQ @ (x_Q * (x_Q - 1)), self._weight_RQ @ (n_Q * (n_Q - 1)), np.nan
            )
            p_R = divided(negatives_TR[t], total_TR[t])
            known_R = np.isfinite(both_R)
            above_R += np.where(known_R, both_R - p_R**2, 0)
            below_R += np.where(known_R, p_R * (1 - p_R), 0)
        return divided(above_R, below_R).clip(1e-6, 0.99)

    # ---- predicting

    def _at(self, values_TR: Floats, temperatures_J: Floats) -> Floats:
        """Values at temperatures, interpolated: (J, R)."""
        low_J, part_J = self._between(temperatures_J)
        below_JR, above_JR = values_TR[low_J], values_TR[low_J + 1]
        return below_JR + part_J[:, None] * (above_JR - below_JR)

    def _by_place(self, values_TRJ: Floats, temperatures_J: Floats) -> Floats:
        """The sum over places, each at its own temperature: (R,).

        Where nothing was measured at one of two temperatures, the other one's value is taken.
        """
        low_J, part_J = self._between(temperatures_J)
        places = range(values_TRJ.shape[-1])
        filled_TRJ = _filled(values_TRJ)
        total_R: Floats = np.zeros(values_TRJ.shape[1])
        for j in places:
            below_R, above_R = filled_TRJ[low_J[j], :, j], filled_TRJ[low_J[j] + 1, :, j]
            total_R += below_R + part_J[j] * (above_R - below_R)
        return total_R

    def _between(self, temperatures_J: Floats) -> tuple[NDArray[np.int64], Floats]:
        """The measured temperature below each one, and how far it is on the way to the next."""
        known_T = np.array(self.temperatures)
        low_J = np.clip(np.searchsorted(known_T, temperatures_J, "right") - 1, 0, len(known_T) - 2)
        part_J = (temperatures_J - known_T[low_J]) / (known_T[low_J + 1] - known_T[low_J])
        return low_J, part_J.clip(0, 1)

    def _stopped(self, negative_R: Floats, alike_R: Floats) -> tuple[Floats, Floats]:
        """Expected attempts and negatives of a parent under the stop rule.

        The chance of a negative after x of them in t attempts is (α + x) / (α + β + t), where α =
        p (1 − ρ) / ρ and β = (1 − p) (1 − ρ) / ρ: a beta-binomial, drawn one by one.
        """
        attempts_R, negatives_R = np.zeros_like(negative_R), np.zeros_like(negative_R)
        size_R = (1 - alike_R) / alike_R
        for wanted, share in self._wanted.items():
            if not wanted:
                continue
            state_XR = np.zeros((wanted, len(negative_R)))
            state_XR[0] = 1
            so_far_X1 = np.arange(wanted)[:, None]
            for t in range(self._config.max_attempts):
                attempts_R += share * state_XR.sum(axis=0)
                chance_XR = (negative_R * size_R + so_far_X1) / (size_R + t)
                hit_XR = state_XR * chance_XR.clip(0, 1)
                negatives_R += share * hit_XR.sum(axis=0)
                state_XR = state_XR - hit_XR
                state_XR[1:] += hit_XR[:-1]
        return attempts_R, negatives_R


def _parts(steps: Sequence[Step]) -> Floats:
    """Each step's part of the tokens whose log-probs are known, as `mean_new_logp` counts them."""
    tokens = np.array([len(s.token_ids) if s.mean_logp is not None else 0 for s in steps])
    return np.asarray(tokens / tokens.sum(), dtype=np.float64)


def _hazard(weight_TRM: Floats, failed_TR: Floats, lengths_M: Floats) -> Floats:
    """The hazard of a step that gives the failures: Σ_m w_m (1 − exp(−λ m)) = failed (T, R)."""
    low_TR = np.zeros_like(failed_TR)
    high_TR = np.full_like(failed_TR, _HIGHEST)
    for _ in range(_HALVINGS):
        middle_TR = (low_TR + high_TR) / 2
        expected_TR = -(weight_TRM * np.expm1(-middle_TR[:, :, None] * lengths_M)).sum(axis=-1)
        low_TR = np.where(expected_TR < failed_TR, middle_TR, low_TR)
        high_TR = np.where(expected_TR < failed_TR, high_TR, middle_TR)
    return high_TR


def _filled(values_T: Floats) -> Floats:
    """Values with gaps along the first axis filled from the next one, or else the one before."""
    filled_T = values_T.copy()
    for t in range(len(filled_T) - 2, -1, -1):
        filled_T[t] = np.where(np.isnan(filled_T[t]), filled_T[t + 1], filled_T[t])
    for t in range(1, len(filled_T)):
        filled_T[t] = np.where(np.isnan(filled_T[t]), filled_T[t - 1], filled_T[t])
    return filled_T


def _if_known(values_R: Floats) -> Estimate | None:
    """The estimate, or None if there is none without resampling."""
    return estimate(values_R) if np.isfinite(values_R[0]) else None


def measured(
    rows: Sequence[Solution], config: BranchConfig, *, resamples: int = RESAMPLES, seed: int = 0
) -> ScheduleFigures:
    """The same figures of a real branching. Raises InputError without rows."""
    parents = sorted({row.parent or "" for row in rows})
    if not parents:
        raise InputError("no continuations to measure")
    place = {name: n for n, name in enumerate(parents)}
    keys = ("attempts", "negatives", "lost", "tokens", "logp", "scored")
    counts = {key: np.zeros(len(parents)) for key in keys}
    for row in rows:
        q = place[row.parent or ""]
        what = outcome(row, truncated_is_wrong=config.truncated_is_wrong)
        counts["attempts"][q] += 1
        counts["tokens"][q] += new_tokens(row)
        counts["negatives"][q] += what == "negative"
        counts["lost"][q] += what == "lost"
        value = _negative_logp(row, config)
        if value is not None:
            counts["logp"][q] += value
            counts["scored"][q] += 1
    weight_RQ = resample_weights(len(parents), np.random.default_rng(seed), resamples)
    sums = {key: weight_RQ @ counts[key] for key in keys}
    return ScheduleFigures(
        per_attempt=estimate(sums["negatives"] / sums["attempts"]),
        per_parent=estimate(sums["negatives"] / len(parents)),
        attempts=_if_known(divided(sums["attempts"], sums["negatives"], np.nan)),
        tokens=_if_known(divided(sums["tokens"], sums["negatives"], np.nan)),
        lost=estimate(sums["lost"] / sums["attempts"]),
        logp=_if_known(divided(sums["logp"], sums["scored"], np.nan)),
    )


def _negative_logp(solution: Solution, config: BranchConfig) -> float | None:
    """The mean log-prob per new token of a negative; None for other solutions."""
    if outcome(solution, truncated_is_wrong=config.truncated_is_wrong) != "negative":
        return None
    return mean_new_logp(solution.steps, solution.branch_step)
