"""Credit assignment, measured: do implicit rewards point at the first wrong step?"""

from __future__ import annotations

import random
from collections.abc import Sequence

from scdpo.insight.labels import StepLabels
from scdpo.insight.rewards import SolutionRewards

BASELINES = ("random", "last step", "longest step", "reference log-prob")


def step_scores(
    rewards: Sequence[SolutionRewards], *, by: str = "mean"
) -> dict[str, list[list[float]]]:
    """A score for each step of each solution by policy, and by the baselines; low marks an error.

    `by` is how a step's score is made of its tokens' rewards: `mean`, `total` or `lowest`. The
    baselines choose a step at random, the last one, the one with the most tokens, or the one with
    the lowest log-prob under the reference policy (made in the same way).
    """
    scores: dict[str, list[list[float]]] = {}
    for row in rewards:
        scores.setdefault(row.policy, []).append([_made(s.rewards, by) for s in row.steps])
    first = next(iter(scores), "")
    for row in rewards:
        if row.policy == first:
            for name, values in _baselines(row, by).items():
                scores.setdefault(name, []).append(values)
    return scores


def _made(values: Sequence[float], by: str) -> float:
    if not values:
        return 0.0
    if by == "lowest":
        return min(values)
    return sum(values) / (len(values) if by == "mean" else 1)


def _baselines(row: SolutionRewards, by: str) -> dict[str, list[float]]:
    rng = random.Random(row.solution_id)
    n = len(row.steps)
    return dict(
        zip(
            BASELINES,
            (
                [rng.random() for _ in range(n)],
                [0.0] * (n - 1) + [-1.0],
                [-float(len(step.tokens)) for step in row.steps],
                [_made(step.logps, by) for step in row.steps],
            ),
            strict=True,
        )
    )


def labelled(
    rewards: Sequence[SolutionRewards], labels: Sequence[StepLabels]
) -> tuple[list[StepLabels], list[str]]:
    """The labels and problems of the solutions that rewards are about, in the order of these."""
    known = {label.solution_id: label for label in labels}
    first = rewards[0].policy if rewards else ""
    rows = [row for row in rewards if row.policy == first]
    return [known[row.solution_id] for row in rows], [row.problem_id for row in rows]
