"""Branching: continuations of preferred solutions at a rising temperature, until wrong (Eq. 2)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from scdpo.errors import SandboxError
from scdpo.records import Problem, Solution, Step
from scdpo.sampling.config import BranchConfig
from scdpo.sampling.driver import OpenSession, drive
from scdpo.sampling.naive import Progress, count_solutions
from scdpo.sampling.rollout import Task, rollout
from scdpo.sampling.solutions import (
    Draw,
    Workshop,
    derive_seed,
    is_dispreferred,
    is_preferred,
    solutions_of,
)
from scdpo.sandbox.base import Session
from scdpo.sandbox.compare import same_output
from scdpo.store import Stage

UNLIKELY = "unlikely"
"""Flag of a negative whose new steps the initial policy would hardly write."""
REPLAY_DIFFERS = "replay_differs"
"""Flag of continuations whose parent's programs did not print again what they had printed, so
that they may have gone on from another state."""


@dataclass(slots=True)
class _Parent:
    solution: Solution
    problem: Problem
    wanted: int
    ks: list[int]
    tries: list[Solution] = field(default_factory=list)


async def sample_branches(
    parents: Sequence[Solution],
    config: BranchConfig,
    shop: Workshop,
    stage: Stage,
    progress: Progress | None = None,
) -> dict[str, int | float]:
    """Continue preferred solutions from branch steps into `stage`; returns counts of the stage.

    Every try is a row, the right ones too. The programs before a branch step are not trusted to
    print again what they had printed: where they do not, the parent's tries are flagged
    `replay_differs` and it gets no more of them.
    """
    done: dict[str, list[Solution]] = {}
    for row in stage.rows(Solution):
        done.setdefault(row.parent or "", []).append(row)
    finished = 0
    for start in range(0, len(parents), config.chunk):
        chunk = [_parent(s, config) for s in parents[start : start + config.chunk]]
        if any(_stop_at(_ordered(done.get(p.solution.id, [])), p, config) is None for p in chunk):
            await _branch_chunk(chunk, config, shop)
            stage.append_new(s for p in chunk for s in p.tries[: _stop_at(p.tries, p, config)])
        finished += len(chunk)
        if progress is not None:
            progress(finished, len(parents))
    return count_branches(stage.rows(Solution))


def first_preferred(solutions: Iterable[Solution]) -> list[Solution]:
    """The first preferred solution of every question that also has a dispreferred one."""
    preferred: dict[str, Solution] = {}
    dispreferred: set[str] = set()
    for solution in sorted(solutions, key=lambda s: (s.problem_id, s.attempt)):
        if is_preferred(solution):
            preferred.setdefault(solution.problem_id, solution)
        elif is_dispreferred(solution):
            dispreferred.add(solution.problem_id)
    return [s for name, s in preferred.items() if name in dispreferred]


def branch_points(solution: Solution, config: BranchConfig) -> list[int]:
    """The branch steps k of a solution: at least one step shared, at least one left."""
    return list(range(1, len(solution.steps) - config.skip_last))


def mean_new_logp(steps: Sequence[Step], k: int) -> float | None:
    """Mean log-prob per sampled token (nats) of the steps after the first k."""
    scored = [s for s in steps[k:] if s.mean_logp is not None and s.token_ids]
    tokens = sum(len(s.token_ids) for s in scored)
    if not tokens:
        return None
    return sum((s.mean_logp or 0.0) * len(s.token_ids) for s in scored) / tokens


def count_branches(branches: Iterable[Solution]) -> dict[str, int | float]:
    """Counts as for naive solutions, with the mean log-prob of kept negatives."""
    branches = list(branches)
    counts = count_solutions(branches)
    logps = [
        value
        for s in branches
        if is_dispreferred(s) and (value := mean_new_logp(s.steps, s.branch_step)) is not None
    ]
    if logps:
        counts["negatives_mean_logp"] = round(sum(logps) / len(logps), 4)
    return counts


def _parent(solution: Solution, config: BranchConfig) -> _Parent:
    problem = Problem(
        id=solution.problem_id,
        dataset=solution.dataset,
        question=solution.question,
        answer=solution.answer or "",
    )
    ks = branch_points(solution, config)
    if config.branch_steps == "random":
        draw = random.Random(derive_seed(config.seed, "branch steps", solution.id))
        draw.shuffle(ks)
    return _Parent(solution, problem, config.negatives_for(solution.dataset), ks)


def _stop_at(tries: Sequence[Solution], parent: _Parent, config: BranchConfig) -> int | None:
    """How many tries the stop rule takes, or None when it wants more of them."""
    if not parent.ks or parent.wanted == 0:
        return 0
    kept = 0
    for taken, solution in enumerate(tries, 1):
        kept += is_dispreferred(solution)
        enough = kept >= parent.wanted or taken >= config.max_attempts
        if enough or REPLAY_DIFFERS in solution.flags:
            return taken
    return None


def _ordered(solutions: Iterable[Solution]) -> list[Solution]:
    return sorted(solutions, key=lambda s: s.attempt)


async def _branch_chunk(parents: list[_Parent], config: BranchConfig, shop: Workshop) -> None:
    """Fill `tries` of the parents as far as the stop rule wants."""
    shop.engine.clear()
    bases = {p.solution.id: _Replay(p.solution, shop) for p in parents}
    try:
        while open_parents := [p for p in parents if _stop_at(p.tries, p, config) is None]:
            share = max(1, config.rows // len(open_parents))
            batch = [
                (p, attempt)
                for p in open_parents
                for attempt in range(len(p.tries), min(len(p.tries) + share, config.max_attempts))
            ]
            for start in range(0, len(batch), config.rows):
                await _try(batch[start : start + config.rows], bases, config, shop)
    finally:
        for base in bases.values():
            await base.close()


async def _try(
    batch: list[tuple[_Parent, int]],
    bases: dict[str, _Replay],
    config: BranchConfig,
    shop: Workshop,
) -> None:
    draws, rollouts, sessions = [], [], []
    for parent, attempt in batch:
        solution = parent.solution
        k = parent.ks[attempt % len(parent.ks)]
        name = f"{solution.id}@{attempt}"
        seed = derive_seed(config.seed, "branch", solution.id, attempt)
        draws.append(Draw(name, parent.problem, attempt, seed, parent=solution.id, branch_step=k))
        task = Task(solution.prompt_ids, config.schedule, seed, prefix=solution.steps[:k])
        rollouts.append(rollout(task, shop.form, config.limits, shop.engine.encode))
        sessions.append(bases[solution.id].opener(k))
    outcomes = await drive(rollouts, shop.engine, shop.sandbox, sessions=sessions)
    for (parent, _), solution in zip(batch, solutions_of(draws, outcomes, shop), strict=True):
        flags = _flags(solution, bases[parent.solution.id].differs, config)
        parent.tries.append(solution.model_copy(update={"flags": flags}))


def _flags(solution: Solution, differs: bool, config: BranchConfig) -> tuple[str, ...]:
    flags = solution.flags
    value = mean_new_logp(solution.steps, solution.branch_step)
    if config.min_mean_logp is not None and value is not None and value < config.min_mean_logp:
        flags += (UNLIKELY,)
    return (*flags, REPLAY_DIFFERS) if differs else flags


class _Replay:
    """The interpreter's state after each step of a preferred solution, made when first needed.

    A state is a session that ran the programs up to there; branches take clones of it. States
    grow from the nearest earlier one, so no program of the solution runs twice on the way to
    one branch step.
    """

    def __init__(self, solution: Solution, shop: Workshop):
        self._solution = solution
        self._sandbox = shop.sandbox
        self._form = shop.form
        self._states: dict[int, Session] = {}
        self._lock = asyncio.Lock()
        self.differs = False

    def opener(self, k: int) -> OpenSession:
        """Opens a session with the state after the first k steps."""

        async def opened() -> Session:
            async with self._lock:
                return await (await self._state(k)).clone()

        return opened

    async def _state(self, k: int) -> Session:
        if k not in self._states:
            nearest = max((j for j in self._states if j < k), default=None)
            session = await self._fresh() if nearest is None else await self._clone(nearest)
            self._states[k] = session
            for step in self._solution.steps[nearest or 0 : k]:
                await self._run(session, step)
        return self._states[k]

    async def _fresh(self) -> Session:
        if self._sandbox is None:
            raise SandboxError("a solution has code to run, but this run has no sandbox")
        return await self._sandbox.session()

    async def _clone(self, k: int) -> Session:
        return await self._states[k].clone()

    async def _run(self, session: Session, step: Step) -> None:
        if step.kind != "code":
            return
        code = self._form.code(step.text)
        if code is None:
            return
        execution = await session.run(code)
        self.differs |= not same_output(execution.output, step.output or "")

    async def close(self) -> None:
        """End every session."""
        for session in self._states.values():
            await session.close()
        self._states.clear()
