"""Greedy evaluation: one solution a question at temperature 0, graded."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from scdpo.records import Evaluation, Problem, Verdict
from scdpo.sampling.config import Limits, Schedule
from scdpo.sampling.driver import Progress, drive
from scdpo.sampling.rollout import Outcome, Task, rollout
from scdpo.sampling.solutions import Workshop, grade_outcomes
from scdpo.store import Stage


class EvaluateConfig(BaseModel):
    """Limits of a greedy evaluation, and how many questions run side by side."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limits: Limits = Limits(max_steps=24)
    rows: int = Field(192, ge=1)


async def evaluate_greedy(
    problems: Sequence[Problem],
    config: EvaluateConfig,
    shop: Workshop,
    stage: Stage,
    progress: Progress | None = None,
) -> dict[str, int | float]:
    """Answer every problem greedily into `stage`; returns counts by verdict and finish.

    A stopped evaluation goes on at the first batch that is not whole. `progress` is called
    with questions answered and all.
    """
    report = progress or (lambda done, total: None)
    have = stage.ids("problem_id")
    for start in range(0, len(problems), config.rows):
        part = problems[start : start + config.rows]
        if any(problem.id not in have for problem in part):
            done = _so_far(report, start, len(problems))
            stage.append_new(await _answer(part, config, shop, done), "problem_id")
        else:
            report(start + len(part), len(problems))
    counts: dict[str, int | float] = {}
    for row in stage.rows(Evaluation):
        counts[row.verdict.name] = counts.get(row.verdict.name, 0) + 1
        if row.finish != "finished":
            counts[f"cut:{row.finish}"] = counts.get(f"cut:{row.finish}", 0) + 1
    return counts


def _so_far(report: Progress, before: int, total: int) -> Progress:
    return lambda done, _: report(before + done, total)


async def _answer(
    problems: Sequence[Problem], config: EvaluateConfig, shop: Workshop, progress: Progress
) -> list[Evaluation]:
    shop.engine.clear()
    schedule = Schedule(start=0, increment=0, cap=0)
    rollouts = [
        rollout(
            Task(
                prompt_ids=shop.engine.encode(shop.form.prompt(problem.question), start=True),
                schedule=schedule,
                seed=0,
            ),
            shop.form,
            config.limits,
            shop.engine.encode,
        )
        for problem in problems
    ]
    outcomes = await drive(rollouts, shop.engine, shop.sandbox, progress=progress)
    graded = grade_outcomes(problems, outcomes, shop.form, shop.grader)
    return [
        _row(problem, outcome, answer, verdict, shop)
        for problem, outcome, (answer, verdict) in zip(problems, outcomes, graded, strict=True)
    ]


def _row(
    problem: Problem, outcome: Outcome, answer: str | None, verdict: Verdict, shop: Workshop
) -> Evaluation:
    return Evaluation(
        problem_id=problem.id,
        dataset=problem.dataset,
        policy=shop.engine.name,
        level=problem.level,
        subject=problem.subject,
        gold=problem.answer,
        answer=answer,
        verdict=verdict,
        finish=outcome.finish,
        n_steps=len(outcome.steps),
        n_tokens=sum(len(step.token_ids) for step in outcome.steps),
        text=shop.form.render(outcome.steps),
    )
