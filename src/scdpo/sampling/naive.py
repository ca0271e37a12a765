"""Naive sampling: solving every question at temperature 1 until it has both kinds (Eq. 1)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from scdpo.engines.base import EngineProtocol
from scdpo.errors.validation import settings_from_keywords
from scdpo.formats import Format
from scdpo.grading import Grader
from scdpo.records import Problem, Solution, SolutionHead
from scdpo.sampling.attempts import Origin, StopRule, draw_attempts, signs_of
from scdpo.sampling.config import SampleConfig
from scdpo.sampling.rollout import Schedule
from scdpo.sampling.solutions import Attempt, Sampler, sampler_for
from scdpo.sandbox import SandboxProtocol
from scdpo.seeds import derive_seed
from scdpo.waiting import Counter, Progress, counting, run, silent, uncounted


async def sample_async(
    problems: Sequence[Problem],
    engine: EngineProtocol,
    *,
    sandbox: SandboxProtocol | None = None,
    format: Format | str | None = None,
    grader: Grader | None = None,
    config: SampleConfig | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> list[Solution]:
    """`sample` for code that runs in an event loop."""
    config = settings_from_keywords(SampleConfig, config, settings)
    with sampler_for(engine, format, grader, sandbox) as sampler:
        chunks = sample_solutions(problems, sampler, config, progress=progress)
        return [solution async for chunk in chunks for solution in chunk]


def sample(
    problems: Sequence[Problem],
    engine: EngineProtocol,
    *,
    sandbox: SandboxProtocol | None = None,
    format: Format | str | None = None,
    grader: Grader | None = None,
    config: SampleConfig | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> list[Solution]:
    """Sample graded solutions of problems until each has a preferred and a dispreferred one.

    Stage 1 of arXiv 2407.00782. `engine` is the policy, `format` how it writes solutions (a name
    or a `Format`; by default what the policy's folder states, else `blocks`), and `sandbox` runs
    the programs in them; formats with code need one. `settings` are fields of `SampleConfig`, such
    as `max_attempts=8`, which override those of `config`. Works with and without a running event
    loop. Raises InputError for an unknown setting, EngineError, SandboxError and GradingError.
    """
    return run(
        sample_async(
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


def sample_solutions(
    problems: Sequence[Problem],
    sampler: Sampler,
    config: SampleConfig,
    *,
    existing: Iterable[Solution | SolutionHead] = (),
    progress: Progress = silent,
    drawn: Counter = uncounted,
) -> AsyncIterator[list[Solution]]:
    """Yield graded solutions of all problems, as they are drawn.

    Each problem is attempted until it has `config.correct` preferred and `config.wrong`
    dispreferred solutions, or `config.max_attempts` attempts; those of a problem are in order.
    Solutions that exist are not drawn again. `progress` receives the number of settled problems,
    `drawn` that of solutions drawn so far, with those that are more than needed. Raises
    EngineError, SandboxError and GradingError.
    """
    rule = StopRule(config.correct, config.wrong, config.max_attempts, config.truncated_is_wrong)
    origins = [Origin(problem.id, problem, rule) for problem in problems]
    schedule = Schedule(start=config.temperature, increment=0, cap=config.temperature)
    encode, format = sampler.engine.encode, sampler.format
    ended = counting(drawn)

    async def draw(batch: Sequence[tuple[Origin, int]]) -> list[Solution]:
        attempts = []
        for origin, n in batch:
            prompt = format.prompt(origin.problem.question)
            attempt = Attempt(
                id=f"{origin.id}#{n}",
                problem=origin.problem,
                prompt=prompt,
                prompt_ids=encode(prompt, start=True),
                number=n,
                seed=derive_seed(config.seed, "naive", origin.id, n),
            )
            attempts.append(attempt)
        return await sampler.draw(
            attempts,
            schedule,
            config.limits,
            error_words_in_question=config.error_words_in_question,
            progress=ended(),
        )

    return draw_attempts(
        origins,
        draw,
        sampler.engine,
        chunk=config.chunk,
        rows=config.rows,
        existing=signs_of(existing, origins),
        progress=progress,
    )
