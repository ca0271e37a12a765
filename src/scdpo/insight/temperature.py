"""The temperature study: what a policy's solutions are like at different temperatures.

Corresponds to the pilot study of arXiv 2407.00782 (Fig. 5), which shows accuracy alone. Solutions
are drawn from the question, and from the steps of right solutions, as in branching.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

from scdpo.errors import InputError
from scdpo.insight.resampling import Estimate, Floats, divided, estimate, resample_weights
from scdpo.records import NOISE, Record, Solution, mean_logp

Origin = Literal["question", "step"]
"""Where solutions start from: the question, or a step of a right solution, as in branching."""
Outcome = Literal["correct", "negative", "lost"]
"""`correct`: the right answer. `negative`: may be the rejected side of a pair. `lost`: neither."""


class Drawn(Record):
    """A solution drawn at one temperature.

    `remaining` is the number of steps that its parent has after the branch step; 0 for a solution
    that starts from the question.
    """

    id: str
    temperature: float
    remaining: int = 0
    solution: Solution

    @property
    def origin(self) -> Origin:
        """Where it starts from."""
        return "question" if self.solution.parent is None else "step"


class TemperatureLine(Record):
    """What solutions are like at one temperature; a line of `RUN/pilot/temperatures.jsonl`.

    Shares are fractions of all solutions. `accuracy`: finished with the right answer. `negatives`:
    may be the rejected side of a pair (`Solution.placement`). `garbled`: has a flag of the noise
    filter. `unfinished`: cut by a limit. `undecided`: finished, but the answer could not be judged.
    `lost`: neither right nor a negative. `distinct_solutions` and `distinct_answers` are numbers
    per question (of `draws` solutions), `distinct_2` is the share of distinct pairs of neighbouring
    tokens among all that were written to a question (Li et al., arXiv 1510.03055). `tokens` are
    the new ones of a solution, and `negatives_logp` is the mean log-prob per new token of negatives
    under the policy at temperature 1 (nats); None without any.
    """

    origin: Origin
    temperature: float
    n_questions: int
    n_solutions: int
    draws: float
    accuracy: Estimate
    negatives: Estimate
    garbled: Estimate
    unfinished: Estimate
    undecided: Estimate
    lost: Estimate
    distinct_solutions: Estimate
    distinct_answers: Estimate
    distinct_2: Estimate
    tokens: Estimate
    negatives_logp: Estimate | None


def outcome(solution: Solution, *, truncated_is_wrong: bool = False) -> Outcome:
    """What branching could do with a solution."""
    if solution.side(truncated_is_wrong=truncated_is_wrong) == "rejected":
        return "negative"
    right = solution.finish == "finished" and solution.verdict.correct
    return "correct" if right else "lost"


def temperature_lines(
    rows: Iterable[Drawn], *, truncated_is_wrong: bool = False, seed: int = 0
) -> list[TemperatureLine]:
    """A line for each origin and temperature, in ascending order, with intervals over questions.

    All lines of an origin use the same resamples. Raises InputError without rows.
    """
    groups: dict[tuple[Origin, float], list[Solution]] = defaultdict(list)
    for row in rows:
        groups[row.origin, row.temperature].append(row.solution)
    if not groups:
        raise InputError("the temperature study has no solutions")
    return [
        _line(origin, temperature, groups[origin, temperature], truncated_is_wrong, seed)
        for origin, temperature in sorted(groups)
    ]


def _line(
    origin: Origin,
    temperature: float,
    solutions: Sequence[Solution],
    truncated_is_wrong: bool,
    seed: int,
) -> TemperatureLine:
    by_question: dict[str, list[Solution]] = defaultdict(list)
    for solution in solutions:
        by_question[solution.problem_id].append(solution)
    counted = [
        _question_figures(by_question[name], truncated_is_wrong) for name in sorted(by_question)
    ]
    size = len(counted)
    weight_RQ = resample_weights(size, np.random.default_rng(seed))
    sums = {key: weight_RQ @ np.array([row[key] for row in counted]) for key in counted[0]}
    questions = weight_RQ.sum(axis=1)

    def per(key: str, below: Floats) -> Estimate:
        return estimate(divided(sums[key], below, np.nan))

    shares = {key: per(key, sums["solutions"]) for key in _SHARES}
    return TemperatureLine(
        origin=origin,
        temperature=temperature,
        n_questions=size,
        n_solutions=len(solutions),
        draws=len(solutions) / size,
        **shares,
        distinct_solutions=per("distinct_solutions", questions),
        distinct_answers=per("distinct_answers", questions),
        distinct_2=per("distinct_bigrams", sums["bigrams"]),
        negatives_logp=per("logp", sums["scored"]) if sums["scored"][0] else None,
    )


_SHARES = ("accuracy", "negatives", "garbled", "unfinished", "undecided", "lost", "tokens")


def _question_figures(
    solutions: Sequence[Solution], truncated_is_wrong: bool
) -> Mapping[str, float]:
    """The sums over one question's solutions that all figures are made of."""
    outcomes = [outcome(row, truncated_is_wrong=truncated_is_wrong) for row in solutions]
    finished = [row for row in solutions if row.finish == "finished"]
    bigrams = [pair for row in solutions for pair in pairwise(_written(row))]
    logps = [
        value
        for row, what in zip(solutions, outcomes, strict=True)
        if what == "negative" and (value := mean_logp(row.steps[row.branch_step :])) is not None
    ]
    return {
        "solutions": len(solutions),
        "accuracy": sum(row.verdict.correct for row in finished),
        "negatives": outcomes.count("negative"),
        "lost": outcomes.count("lost"),
        "garbled": sum(any(flag.startswith(NOISE) for flag in row.flags) for row in solutions),
        "unfinished": len(solutions) - len(finished),
        "undecided": sum(row.verdict.undecided for row in finished),
        "distinct_solutions": len({row.text for row in solutions}),
        "distinct_answers": len({row.answer for row in finished if row.answer is not None}),
        "bigrams": len(bigrams),
        "distinct_bigrams": len(set(bigrams)),
        "tokens": sum(new_tokens(row) for row in solutions),
        "logp": float(np.sum(logps)),
        "scored": len(logps),
    }


def new_tokens(solution: Solution) -> int:
    """The tokens that were sampled after the branch step."""
    return sum(len(step.token_ids) for step in solution.steps[solution.branch_step :])


def _written(solution: Solution) -> list[int]:
    """The token ids that the policy wrote, shared steps included."""
    return [token for step in solution.steps for token in step.token_ids]
