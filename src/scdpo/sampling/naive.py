"""Naive sampling: solutions of every question at temperature 1 until it has both kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from scdpo.records import Problem, Solution
from scdpo.sampling.config import SampleConfig, Schedule
from scdpo.sampling.driver import drive
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

Progress = Callable[[int, int], None]


async def sample_naive(
    problems: Sequence[Problem],
    config: SampleConfig,
    shop: Workshop,
    stage: Stage,
    progress: Progress | None = None,
) -> dict[str, int | float]:
    """Sample solutions of all problems into `stage`; returns the counts of the whole stage.

    Which attempts a problem gets is decided by the stop rule over its attempts in order, so it
    does not depend on what ran side by side. `progress` is called with problems done and all.
    """
    done = _by_problem(stage.rows(Solution))
    finished = 0
    for chunk in chunks(problems, config.chunk):
        if not all(satisfied(done.get(p.id, []), config) for p in chunk):
            rows = await _sample_chunk(chunk, config, shop)
            stage.append_new(rows)
        finished += len(chunk)
        if progress is not None:
            progress(finished, len(problems))
    return count_solutions(stage.rows(Solution))


def satisfied(attempts: Iterable[Solution], config: SampleConfig) -> bool:
    """Whether the stop rule leaves a question with these attempts alone (in attempt order)."""
    return _stop_at(sorted(attempts, key=lambda s: s.attempt), config) is not None


def count_solutions(solutions: Iterable[Solution]) -> dict[str, int | float]:
    """Solutions by verdict, by reason for being cut, and by flag."""
    counts: Counter[str] = Counter()
    for solution in solutions:
        counts["attempts"] += 1
        counts[solution.verdict.name] += 1
        if solution.finish != "finished":
            counts[f"cut:{solution.finish}"] += 1
        elif solution.verdict.name == "undecided":
            counts[f"undecided:{solution.verdict.reason.split(':')[0][:40]}"] += 1
        for flag in solution.flags:
            counts[flag] += 1
        counts["preferred"] += is_preferred(solution)
        counts["dispreferred"] += is_dispreferred(solution)
    return dict(counts)


def chunks(items: Sequence[Problem], size: int) -> Iterator[Sequence[Problem]]:
    """Consecutive parts of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _stop_at(attempts: Sequence[Solution], config: SampleConfig) -> int | None:
    """How many attempts the stop rule takes, or None when it wants more of them."""
    correct = wrong = 0
    for taken, solution in enumerate(attempts, 1):
        correct += is_preferred(solution)
        wrong += is_dispreferred(solution)
        if (correct >= config.correct and wrong >= config.wrong) or taken >= config.max_attempts:
            return taken
    return None


async def _sample_chunk(
    problems: Sequence[Problem], config: SampleConfig, shop: Workshop
) -> list[Solution]:
    """All attempts that the stop rule takes on these problems, in problem order."""
    shop.engine.clear()
    attempts: dict[str, list[Solution]] = {problem.id: [] for problem in problems}
    while open_problems := [p for p in problems if _stop_at(attempts[p.id], config) is None]:
        draws = _next_draws(open_problems, attempts, config)
        for solution in await _roll_out(draws, config, shop):
            attempts[solution.problem_id].append(solution)
    return [s for p in problems for s in attempts[p.id][: _stop_at(attempts[p.id], config)]]


def _next_draws(
    problems: Sequence[Problem], attempts: dict[str, list[Solution]], config: SampleConfig
) -> list[Draw]:
    """The next attempts: as many a problem as surely needed, more only where rows are free."""
    share = max(1, config.rows // len(problems))
    draws = []
    for problem in problems:
        start = len(attempts[problem.id])
        for attempt in range(start, min(start + share, config.max_attempts)):
            name = f"{problem.id}#{attempt}"
            seed = derive_seed(config.seed, "naive", problem.id, attempt)
            draws.append(Draw(id=name, problem=problem, attempt=attempt, seed=seed))
    return draws


async def _roll_out(draws: list[Draw], config: SampleConfig, shop: Workshop) -> list[Solution]:
    schedule = Schedule(start=config.temperature, increment=0, cap=config.temperature)
    prompts = {d.problem.id: shop.form.prompt(d.problem.question) for d in draws}
    ids = {name: shop.engine.encode(prompt, start=True) for name, prompt in prompts.items()}
    rows: list[Solution] = []
    for start in range(0, len(draws), config.rows):
        part = draws[start : start + config.rows]
        rollouts = [
            rollout(
                Task(prompt_ids=ids[d.problem.id], schedule=schedule, seed=d.seed),
                shop.form,
                config.limits,
                shop.engine.encode,
            )
            for d in part
        ]
        outcomes = await drive(rollouts, shop.engine, shop.sandbox)
        rows += solutions_of(
            part, outcomes, shop, error_words_in_question=config.error_words_in_question
        )
    return rows


def _by_problem(solutions: Iterable[Solution]) -> dict[str, list[Solution]]:
    found: dict[str, list[Solution]] = {}
    for solution in solutions:
        found.setdefault(solution.problem_id, []).append(solution)
    return found
