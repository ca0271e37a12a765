"""Branching: continuing preferred solutions at a rising temperature until they err (Eq. 2)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from scdpo.engines.base import EngineProtocol
from scdpo.errors import InputError
from scdpo.errors.validation import settings_from_keywords
from scdpo.formats import Format
from scdpo.grading import Grader
from scdpo.records import Problem, Solution, mean_logp
from scdpo.sampling.attempts import (
    REPLAY_DIFFERS,
    Origin,
    StopRule,
    draw_attempts,
    signs_of,
)
from scdpo.sampling.config import BranchConfig
from scdpo.sampling.driver import all_of
from scdpo.sampling.replay import Start, close_starts, starts_at
from scdpo.sampling.rollout import Schedule
from scdpo.sampling.solutions import Attempt, Sampler, count_solutions, sampler_for
from scdpo.sandbox import SandboxProtocol
from scdpo.seeds import derive_seed
from scdpo.waiting import Progress, run, silent

UNLIKELY = "unlikely"
"""Flag of a continuation whose new steps are improbable under the initial policy."""
PARALLEL_REPLAYS = 8
"""How many parents' programs are rerun side by side."""


async def branch_async(
    solutions: Iterable[Solution],
    engine: EngineProtocol,
    *,
    sandbox: SandboxProtocol | None = None,
    schedule: Schedule | None = None,
    format: Format | str | None = None,
    problems: Iterable[Problem] = (),
    grader: Grader | None = None,
    config: BranchConfig | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> list[Solution]:
    """`branch` for code that runs in an event loop."""
    if schedule is not None:
        settings["schedule"] = schedule
    config = settings_from_keywords(BranchConfig, config, settings)
    parents = first_preferred(solutions, truncated_is_wrong=config.truncated_is_wrong)
    if not parents:
        return []
    with sampler_for(engine, format, grader, sandbox) as sampler:
        if sampler.format.name != parents[0].format:
            raise InputError(
                f"the solutions are in format {parents[0].format!r}, not {sampler.format.name!r}; "
                "give branch the format that they were sampled in"
            )
        chunks = branch_solutions(parents, sampler, config, problems=problems, progress=progress)
        return [solution async for chunk in chunks for solution in chunk]


def branch(
    solutions: Iterable[Solution],
    engine: EngineProtocol,
    *,
    sandbox: SandboxProtocol | None = None,
    schedule: Schedule | None = None,
    format: Format | str | None = None,
    problems: Iterable[Problem] = (),
    grader: Grader | None = None,
    config: BranchConfig | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> list[Solution]:
    """Continue preferred solutions from their steps at rising temperatures until they go wrong.

    Stage 2 of arXiv 2407.00782 (Eq. 2). The parents are the first preferred solution of each
    question in `solutions` that also has a dispreferred solution. `engine` should be the policy
    that sampled them. `schedule` gives the temperatures of new steps (by default 1.1, 1.15 … 1.4),
    and `format` is how the policy writes, as it was given to `sample`. Continuations
    are graded against the gold answers in `problems`, or else against their parent's answer.
    `settings` are fields of `BranchConfig`, such as `negatives=3`, which override those of
    `config`. Works with and without a running event loop. Raises InputError for an unknown setting
    or another format, EngineError, SandboxError and GradingError.
    """
    return run(
        branch_async(
            solutions,
            engine,
            sandbox=sandbox,
            schedule=schedule,
            format=format,
            problems=problems,
            grader=grader,
            config=config,
            progress=progress,
            **settings,
        )
    )


def branch_solutions(
    parents: Sequence[Solution],
    sampler: Sampler,
    config: BranchConfig,
    *,
    problems: Iterable[Problem] = (),
    existing: Iterable[Solution] = (),
    progress: Progress = silent,
) -> AsyncIterator[list[Solution]]:
    """Yield continuations of preferred solutions, as they are drawn.

    A continuation shares its parent's first k steps; its new steps are sampled at the
    temperatures of `config.schedule` (arXiv 2407.00782: 1.1, 1.15 … 1.4). A parent gets
    continuations until `config.negatives` of them are dispreferred, at most
    `config.max_attempts`; all of them are yielded, including the correct ones. They are graded
    against the gold answers in `problems` or, if a parent's problem is missing there, against the
    parent's own answer, which was correct. If the programs before a branch step print something
    else when rerun, the continuation is flagged `replay_differs` and is its parent's last.
    Continuations that exist are not drawn again. `progress` receives the number of settled
    parents. Raises EngineError, SandboxError and GradingError, and InputError if
    `config.negatives` does not cover a data set.
    """
    known = {problem.id: problem for problem in problems}
    origins = [_origin(parent, known.get(parent.problem_id), config) for parent in parents]

    async def draw(batch: Sequence[tuple[Origin, int]]) -> list[Solution]:
        attempts = [_attempt(origin, n, sampler, config) for origin, n in batch]
        starts = await _starts(attempts, sampler)
        solutions = await sampler.draw(
            attempts, config.schedule, config.limits, sessions=[start.session for start in starts]
        )
        return [
            _flagged(solution, start, config)
            for solution, start in zip(solutions, starts, strict=True)
        ]

    return draw_attempts(
        origins,
        draw,
        sampler.engine,
        chunk=config.chunk,
        rows=config.rows,
        existing=signs_of(existing, origins),
        progress=progress,
    )


def first_preferred(
    solutions: Iterable[Solution], *, truncated_is_wrong: bool = False
) -> list[Solution]:
    """The first preferred solution of every question that also has a dispreferred solution,
    ordered by problem id: the preferred sides of D_naive (Eq. 1). Continuations are ignored."""
    preferred: dict[str, Solution] = {}
    dispreferred: set[str] = set()
    for solution in solutions:
        name = solution.problem_id
        if solution.parent is not None:
            continue
        side = solution.side(truncated_is_wrong=truncated_is_wrong)
        if side == "chosen":
            first = preferred.setdefault(name, solution)
            if (solution.attempt, solution.id) < (first.attempt, first.id):
                preferred[name] = solution
        elif side == "rejected":
            dispreferred.add(name)
    return [preferred[name] for name in sorted(preferred) if name in dispreferred]


def branch_points(solution: Solution, config: BranchConfig) -> list[int]:
    """The branch steps k of a solution: at least one step is shared and at least one is left."""
    return list(range(1, len(solution.steps) - config.skip_last))


def count_branches(branches: Iterable[Solution]) -> dict[str, int | float]:
    """Counts as for naive solutions, plus the mean log-prob of dispreferred continuations."""
    logps: list[float] = []

    def noted() -> Iterable[Solution]:
        for solution in branches:
            value = mean_logp(solution.steps[solution.branch_step :])
            if value is not None and solution.side() == "rejected":
                logps.append(value)
            yield solution

    counts = count_solutions(noted())
    if logps:
        counts["negatives_mean_logp"] = round(sum(logps) / len(logps), 4)
    return counts


def _origin(parent: Solution, problem: Problem | None, config: BranchConfig) -> Origin:
    problem = problem or Problem(
        id=parent.problem_id,
        dataset=parent.dataset,
        question=parent.question,
        answer=parent.answer or "",
    )
    ks = branch_points(parent, config)
    if config.branch_steps == "random":
        random.Random(derive_seed(config.seed, "branch steps", parent.id)).shuffle(ks)
    wanted = config.negatives_for(parent.dataset)
    rule = StopRule(
        chosen=0,
        rejected=wanted,
        most=config.max_attempts if ks and wanted else 0,
        truncated_is_wrong=config.truncated_is_wrong,
    )
    return Origin(parent.id, problem, rule, parent, tuple(ks))


def _attempt(origin: Origin, n: int, sampler: Sampler, config: BranchConfig) -> Attempt:
    parent = origin.parent
    assert parent is not None
    return Attempt(
        id=f"{parent.id}@{n}",
        problem=origin.problem,
        prompt=parent.prompt,
        prompt_ids=parent.prompt_ids or sampler.engine.encode(parent.prompt, start=True),
        number=n,
        seed=derive_seed(config.seed, "branch", parent.id, n),
        parent=parent,
        branch_step=origin.branch_steps[n % len(origin.branch_steps)],
    )


async def _starts(attempts: Sequence[Attempt], sampler: Sampler) -> list[Start]:
    """The start of each attempt, in order."""
    parents: dict[str, list[int]] = {}
    for i, attempt in enumerate(attempts):
        assert attempt.parent is not None
        parents.setdefault(attempt.parent.id, []).append(i)
    starts: dict[int, Start] = {}
    turns = asyncio.Semaphore(PARALLEL_REPLAYS)

    async def replay(indices: Sequence[int]) -> None:
        parent = attempts[indices[0]].parent
        assert parent is not None
        ks = [attempts[i].branch_step for i in indices]
        async with turns:
            replayed = await starts_at(parent, ks, sampler.format, sampler.sandbox)
            starts.update(zip(indices, replayed, strict=True))

    try:
        await all_of(replay(indices) for indices in parents.values())
    except BaseException:
        await close_starts(starts.values())
        raise
    return [starts[i] for i in range(len(attempts))]


def _flagged(solution: Solution, start: Start, config: BranchConfig) -> Solution:
    value = mean_logp(solution.steps[solution.branch_step :])
    floor = config.min_mean_logp
    unlikely = floor is not None and value is not None and value < floor
    flags = (*solution.flags, *[UNLIKELY] * unlikely, *[REPLAY_DIFFERS] * start.differs)
    return solution.model_copy(update={"flags": flags}) if flags else solution
