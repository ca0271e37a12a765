"""Branching: continuations of preferred solutions at a rising temperature, until wrong (Eq. 2)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from scdpo.records import Problem, Solution, Step
from scdpo.sampling.config import BranchConfig
from scdpo.sampling.driver import Progress, all_of, drive
from scdpo.sampling.naive import count_solutions
from scdpo.sampling.replay import Start, close_starts, starts_at
from scdpo.sampling.rollout import Task, rollout
from scdpo.sampling.solutions import (
    Draw,
    Workshop,
    derive_seed,
    is_dispreferred,
    is_preferred,
    solutions_of,
)
from scdpo.store import Stage

UNLIKELY = "unlikely"
"""Flag of a continuation whose new steps the initial policy would hardly write."""
REPLAY_DIFFERS = "replay_differs"
"""Flag of a continuation whose parent's programs, up to the branch step, did not print again
what they had printed, so that it may have gone on from another state."""
WALKS = 8
"""Parents whose programs are run again side by side."""


class _Try(NamedTuple):
    """What the stop rule has to know of a try."""

    kept: bool
    differs: bool


@dataclass(slots=True)
class _Parent:
    solution: Solution
    problem: Problem
    prompt_ids: tuple[int, ...]
    wanted: int
    ks: list[int]
    tries: list[Solution] = field(default_factory=list)


async def sample_branches(
    parents: Sequence[Solution],
    config: BranchConfig,
    shop: Workshop,
    stage: Stage,
    progress: Progress | None = None,
    *,
    problems: Iterable[Problem] = (),
) -> dict[str, int | float]:
    """Continue preferred solutions from branch steps into `stage`; returns counts of the stage.

    Every try is a row, the right ones too. Continuations are graded against the gold answers of
    `problems`; where a parent's problem is not among them, against the parent's own answer,
    which was right. The programs before a branch step are not trusted to print again what they
    had printed: where they do not, the try is flagged `replay_differs` and its parent gets no
    more of them. `progress` is called with parents done and all.
    """
    report = progress or (lambda done, total: None)
    known = {problem.id: problem for problem in problems}
    for solution in parents:
        config.negatives_for(solution.dataset)
    have = _tries_had(stage.rows(Solution))
    for start in range(0, len(parents), config.chunk):
        part = [_parent(s, known, config, shop) for s in parents[start : start + config.chunk]]
        if any(_stop_at(have.get(p.solution.id, []), p, config) is None for p in part):
            done = _so_far(report, start, len(parents))
            await _branch_chunk(part, config, shop, done)
            stage.append_new(s for p in part for s in p.tries[: _stop_at(_of(p.tries), p, config)])
        report(start + len(part), len(parents))
    return count_branches(stage.rows(Solution))


def first_preferred(solutions: Iterable[Solution]) -> list[Solution]:
    """The first preferred solution of every question that also has a dispreferred one, by
    problem id: the preferred sides of D_naive."""
    preferred: dict[str, Solution] = {}
    dispreferred: set[str] = set()
    for solution in solutions:
        name = solution.problem_id
        if is_preferred(solution):
            first = preferred.get(name)
            if first is None or (solution.attempt, solution.id) < (first.attempt, first.id):
                preferred[name] = solution
        elif is_dispreferred(solution):
            dispreferred.add(name)
    return [preferred[name] for name in sorted(preferred) if name in dispreferred]


def branch_points(solution: Solution, config: BranchConfig) -> list[int]:
    """The branch steps k of a solution: at least one step shared, at least one left."""
    return list(range(1, len(solution.steps) - config.skip_last))


def mean_new_logp(steps: Sequence[Step], k: int) -> float | None:
    """Mean log-prob per sampled token (nats) of the steps after the first k."""
    scored = [(s.mean_logp, len(s.token_ids)) for s in steps[k:] if s.mean_logp is not None]
    tokens = sum(n for _, n in scored)
    return sum(mean * n for mean, n in scored) / tokens if tokens else None


def count_branches(branches: Iterable[Solution]) -> dict[str, int | float]:
    """Counts as for naive solutions, with the mean log-prob of kept negatives."""
    logps: list[float] = []

    def noted() -> Iterable[Solution]:
        for solution in branches:
            value = mean_new_logp(solution.steps, solution.branch_step)
            if value is not None and is_dispreferred(solution):
                logps.append(value)
            yield solution

    counts = count_solutions(noted())
    if logps:
        counts["negatives_mean_logp"] = round(sum(logps) / len(logps), 4)
    return counts


def _parent(
    solution: Solution, known: Mapping[str, Problem], config: BranchConfig, shop: Workshop
) -> _Parent:
    problem = known.get(solution.problem_id) or Problem(
        id=solution.problem_id,
        dataset=solution.dataset,
        question=solution.question,
        answer=solution.answer or "",
    )
    ks = branch_points(solution, config)
    if config.branch_steps == "random":
        random.Random(derive_seed(config.seed, "branch steps", solution.id)).shuffle(ks)
    ids = solution.prompt_ids or shop.engine.encode(solution.prompt, start=True)
    return _Parent(solution, problem, ids, config.negatives_for(solution.dataset), ks)


def _tries_had(solutions: Iterable[Solution]) -> dict[str, list[_Try]]:
    """What became of every parent's tries, in order; far smaller than the rows."""
    found: dict[str, dict[int, _Try]] = {}
    for solution in solutions:
        found.setdefault(solution.parent or "", {})[solution.attempt] = _try(solution)
    return {name: [tries[n] for n in sorted(tries)] for name, tries in found.items()}


def _try(solution: Solution) -> _Try:
    return _Try(is_dispreferred(solution), REPLAY_DIFFERS in solution.flags)


def _of(tries: Iterable[Solution]) -> list[_Try]:
    return [_try(solution) for solution in tries]


def _stop_at(tries: Sequence[_Try], parent: _Parent, config: BranchConfig) -> int | None:
    """How many tries the stop rule takes, or None when it wants more of them."""
    if not parent.ks or parent.wanted == 0:
        return 0
    kept = 0
    for taken, one in enumerate(tries, 1):
        kept += one.kept
        if kept >= parent.wanted or taken >= config.max_attempts or one.differs:
            return taken
    return None


def _so_far(report: Progress, before: int, total: int) -> Callable[[int], None]:
    return lambda n: report(before + n, total)


async def _branch_chunk(
    parents: list[_Parent], config: BranchConfig, shop: Workshop, done: Callable[[int], None]
) -> None:
    """Give the parents at least the tries that the stop rule takes."""
    shop.engine.clear()
    while unsettled := [p for p in parents if _stop_at(_of(p.tries), p, config) is None]:
        done(len(parents) - len(unsettled))
        share = max(1, config.rows // len(unsettled))
        batch = [
            (parent, attempt)
            for parent in unsettled
            for attempt in range(
                len(parent.tries), min(len(parent.tries) + share, config.max_attempts)
            )
        ]
        for start in range(0, len(batch), config.rows):
            await _continue(batch[start : start + config.rows], config, shop)


async def _continue(batch: list[tuple[_Parent, int]], config: BranchConfig, shop: Workshop) -> None:
    """Draw these tries and add them to their parents'."""
    draws = [_draw(parent, attempt, config) for parent, attempt in batch]
    rollouts = []
    for (parent, _), draw in zip(batch, draws, strict=True):
        prefix = parent.solution.steps[: draw.branch_step]
        task = Task(parent.prompt_ids, config.schedule, draw.seed, prefix)
        rollouts.append(rollout(task, shop.form, config.limits, shop.engine.encode))
    starts = await _starts(batch, draws, shop)
    outcomes = await drive(
        rollouts, shop.engine, shop.sandbox, sessions=[start.session for start in starts]
    )
    solutions = solutions_of(draws, outcomes, shop)
    for (parent, _), start, solution in zip(batch, starts, solutions, strict=True):
        flags = (*solution.flags, *_flags(solution, start, config))
        parent.tries.append(solution.model_copy(update={"flags": flags}))


def _draw(parent: _Parent, attempt: int, config: BranchConfig) -> Draw:
    name = parent.solution.id
    return Draw(
        id=f"{name}@{attempt}",
        problem=parent.problem,
        prompt=parent.solution.prompt,
        prompt_ids=parent.solution.prompt_ids,
        attempt=attempt,
        seed=derive_seed(config.seed, "branch", name, attempt),
        parent=name,
        branch_step=parent.ks[attempt % len(parent.ks)],
    )


async def _starts(
    batch: list[tuple[_Parent, int]], draws: list[Draw], shop: Workshop
) -> list[Start]:
    """The state that each try of the batch goes on from, in order."""
    solutions = {parent.solution.id: parent.solution for parent, _ in batch}
    indices: dict[str, list[int]] = {}
    for i, draw in enumerate(draws):
        indices.setdefault(draw.parent or "", []).append(i)
    starts: dict[int, Start] = {}

    async def walk(name: str) -> None:
        ks = [draws[i].branch_step for i in indices[name]]
        async with turns:
            found = await starts_at(solutions[name], ks, shop.form, shop.sandbox)
            starts.update(zip(indices[name], found, strict=True))

    turns = asyncio.Semaphore(WALKS)
    try:
        await all_of(walk(name) for name in indices)
    except BaseException:
        await close_starts(starts.values())
        raise
    return [starts[i] for i in range(len(draws))]


def _flags(solution: Solution, start: Start, config: BranchConfig) -> tuple[str, ...]:
    value = mean_new_logp(solution.steps, solution.branch_step)
    floor = config.min_mean_logp
    unlikely = floor is not None and value is not None and value < floor
    return (UNLIKELY,) * unlikely + (REPLAY_DIFFERS,) * start.differs
