"""Greedy evaluation: one graded solution per question, at temperature 0."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from scdpo.engines import EngineProtocol
from scdpo.errors.validation import settings_from_keywords
from scdpo.evaluation.accuracy import Accuracy, summarise
from scdpo.formats import Format
from scdpo.grading import Grader
from scdpo.records import Evaluation, Problem, Record, Solution
from scdpo.sampling import Attempt, Limits, Sampler, Schedule
from scdpo.sampling.attempts import Origin, Sign, StopRule, draw_attempts
from scdpo.sampling.solutions import sampler_for
from scdpo.sandbox import SandboxProtocol
from scdpo.waiting import Progress, run, silent

GREEDY = Schedule(start=0, increment=0, cap=0)


class EvaluateConfig(BaseModel):
    """Settings of a greedy evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limits: Limits = Field(Limits(max_steps=24), description="Where a solution is cut.")
    rows: int = Field(
        192, ge=1, description="Questions answered side by side, each with a sandbox session."
    )


class EvaluationReport(Record):
    """A policy's accuracy with a 95 % interval, and a row for every question."""

    accuracy: Accuracy
    rows: tuple[Evaluation, ...]


async def evaluate_async(
    problems: Sequence[Problem],
    engine: EngineProtocol,
    *,
    sandbox: SandboxProtocol | None = None,
    format: Format | str | None = None,
    grader: Grader | None = None,
    config: EvaluateConfig | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> EvaluationReport:
    """`evaluate` for code that runs in an event loop."""
    config = settings_from_keywords(EvaluateConfig, config, settings)
    with sampler_for(engine, format, grader, sandbox) as sampler:
        batches = evaluate_greedy(problems, sampler, config, progress=progress)
        rows = [row async for batch in batches for row in batch]
    return EvaluationReport(accuracy=summarise(rows), rows=tuple(rows))


def evaluate(
    problems: Sequence[Problem],
    engine: EngineProtocol,
    *,
    sandbox: SandboxProtocol | None = None,
    format: Format | str | None = None,
    grader: Grader | None = None,
    config: EvaluateConfig | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> EvaluationReport:
    """Answer every problem once at temperature 0, and grade the answers.

    `engine` is the policy, `format` how it writes solutions (by default what its
    folder states, else `blocks`), and `sandbox` runs the programs in
    them. `settings` are fields of `EvaluateConfig`, which override those of `config`. To compare
    two policies on the same questions, call `scdpo.evaluation.compare(a.rows, b.rows)`. Works
    with and without a running event loop. Raises InputError, EngineError, SandboxError and
    GradingError.
    """
    return run(
        evaluate_async(
            problems,
            engine,
            sandbox=sandbox,
            format=format,
            grader=grader,
            config=config,
            progress=progress,
            **settings,
        )
    )


async def evaluate_greedy(
    problems: Sequence[Problem],
    sampler: Sampler,
    config: EvaluateConfig,
    *,
    existing: Collection[str] = (),
    progress: Progress = silent,
) -> AsyncIterator[list[Evaluation]]:
    """Yield the answers to all problems, as they are drawn, at most `config.rows` side by side.

    In lockstep, a batch whose problem ids are all in `existing` is skipped, and any other is
    answered again as a whole. `progress` receives the number of questions answered.
    """
    encode, format = sampler.engine.encode, sampler.format
    once = StopRule(chosen=1, rejected=1, most=1)
    origins = [Origin(problem.id, problem, once) for problem in problems]
    known = {problem.id: problem for problem in problems}

    async def draw(batch: Sequence[tuple[Origin, int]]) -> list[Solution]:
        answered = sum(origin.settled for origin in origins) if len(batch) > 1 else 0

        def ended(done: int, total: int) -> None:
            if total > 1:
                progress(answered + done, len(problems))

        attempts = []
        for origin, _ in batch:
            prompt = format.prompt(origin.problem.question)
            ids = encode(prompt, start=True)
            attempts.append(Attempt(origin.id, origin.problem, prompt, ids, number=0, seed=0))
        return await sampler.draw(attempts, GREEDY, config.limits, progress=ended)

    answers = draw_attempts(
        origins,
        draw,
        sampler.engine,
        chunk=config.rows,
        rows=config.rows,
        existing=dict.fromkeys(existing, (Sign(None, replay_differs=False),)),
        progress=progress,
    )
    async for solutions in answers:
        yield [_evaluation(known[s.problem_id], s, format) for s in solutions]


def count_evaluations(rows: Iterable[Evaluation]) -> dict[str, int | float]:
    """Counts of questions by verdict, and by the limit that cut their solution."""
    counts: dict[str, int | float] = {}
    for row in rows:
        counts[row.verdict.name] = counts.get(row.verdict.name, 0) + 1
        if row.finish != "finished":
            counts[f"cut:{row.finish}"] = counts.get(f"cut:{row.finish}", 0) + 1
    return counts


def _evaluation(problem: Problem, solution: Solution, format: Format) -> Evaluation:
    return Evaluation(
        problem_id=problem.id,
        dataset=problem.dataset,
        policy=solution.policy,
        level=problem.level,
        subject=problem.subject,
        gold=problem.answer,
        answer=solution.answer,
        verdict=solution.verdict,
        finish=solution.finish,
        n_steps=len(solution.steps),
        n_tokens=sum(len(step.token_ids) for step in solution.steps),
        text=format.render(solution.steps),
    )
