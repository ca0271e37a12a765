"""From outcomes of rollouts to graded solution rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scdpo.engines.base import Engine
from scdpo.formats.base import Format
from scdpo.grading import Claim, Grader, judge
from scdpo.records import Problem, Solution, Verdict
from scdpo.sampling.flags import solution_flags
from scdpo.sampling.judging import claim_of
from scdpo.sampling.rollout import Outcome
from scdpo.sandbox import Sandbox

Fate = Literal["preferred", "dispreferred", "neither"]
"""Which side of a pair a solution can take."""


@dataclass(slots=True)
class Workshop:
    """The services that every sampling stage needs."""

    engine: Engine
    form: Format
    grader: Grader
    sandbox: Sandbox | None


@dataclass(frozen=True, slots=True)
class Draw:
    """Which rollout of a problem this is; `id` names its row."""

    id: str
    problem: Problem
    prompt: str
    prompt_ids: tuple[int, ...]
    attempt: int
    seed: int
    parent: str | None = None
    branch_step: int = 0


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from the run's seed, a row's name and an attempt; stable everywhere."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def golds(problem: Problem) -> tuple[str, ...]:
    """Every answer that counts as right."""
    return (problem.answer, *problem.alternatives)


def grade_outcomes(
    problems: Sequence[Problem], outcomes: Sequence[Outcome], form: Format, grader: Grader
) -> list[tuple[str | None, Verdict]]:
    """Final answer and verdict of each outcome; an unfinished one is undecided, never wrong."""
    claims = [
        claim_of(outcome.steps, form, golds(problem), several=problem.several)
        if outcome.finish == "finished"
        else Claim(None, golds(problem))
        for problem, outcome in zip(problems, outcomes, strict=True)
    ]
    return [
        (answer, verdict)
        if outcome.finish == "finished"
        else (None, Verdict(name="undecided", reason=f"unfinished: {outcome.finish}"))
        for (answer, verdict), outcome in zip(judge(claims, grader), outcomes, strict=True)
    ]


def solutions_of(
    draws: Sequence[Draw],
    outcomes: Sequence[Outcome],
    shop: Workshop,
    *,
    error_words_in_question: bool = False,
) -> list[Solution]:
    """Graded and flagged rows of rollouts."""
    graded = grade_outcomes([d.problem for d in draws], outcomes, shop.form, shop.grader)
    rows = []
    for draw, outcome, (answer, verdict) in zip(draws, outcomes, graded, strict=True):
        rows.append(
            Solution(
                id=draw.id,
                problem_id=draw.problem.id,
                dataset=draw.problem.dataset,
                question=draw.problem.question,
                format=shop.form.name,
                policy=shop.engine.name,
                prompt=draw.prompt,
                prompt_ids=draw.prompt_ids,
                steps=outcome.steps,
                finish=outcome.finish,
                answer=answer,
                verdict=verdict,
                flags=solution_flags(
                    draw.problem.question,
                    outcome.steps,
                    shop.form.stop,
                    error_words_in_question=error_words_in_question,
                ),
                attempt=draw.attempt,
                seed=draw.seed,
                parent=draw.parent,
                branch_step=draw.branch_step,
            )
        )
    return rows


def fate(solution: Solution) -> Fate:
    """The side of a pair that a solution can take, if any."""
    if is_preferred(solution):
        return "preferred"
    return "dispreferred" if is_dispreferred(solution) else "neither"


def is_preferred(solution: Solution) -> bool:
    """Right, finished, and without any sign of an error or correction."""
    return (
        solution.verdict.name == "correct" and solution.finish == "finished" and not solution.flags
    )


def is_dispreferred(solution: Solution) -> bool:
    """Finished and wrong, and not garbled; unfinished and undecided ones are neither."""
    garbled = any(not flag.startswith("error_word") for flag in solution.flags)
    return solution.verdict.name == "wrong" and solution.finish == "finished" and not garbled
