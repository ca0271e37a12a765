"""Naive sampling: solutions of every question at temperature 1 until it has both kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from scdpo.records import Problem, Solution
from scdpo.sampling.config import SampleConfig, Schedule
from scdpo.sampling.driver import Progress, drive
from scdpo.sampling.rollout import Task, rollout
from scdpo.sampling.solutions import (
    Draw,
    Fate,
    Workshop,
    derive_seed,
    fate,
    is_dispreferred,
    is_preferred,
    solutions_of,
)
from scdpo.store import Stage


@dataclass(slots=True)
class _Question:
    """A problem under work: its prompt, and its attempts so far, in order."""

    problem: Problem
    prompt: str
    prompt_ids: tuple[int, ...]
    attempts: list[Solution] = field(default_factory=list)


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
    report = progress or (lambda done, total: None)
    have = _fates(stage.rows(Solution))
    for start in range(0, len(problems), config.chunk):
        part = problems[start : start + config.chunk]
        if any(_stop_at(have.get(p.id, []), config) is None for p in part):
            questions = [_question(problem, shop) for problem in part]
            done = _so_far(report, start, len(problems))
            await _sample_chunk(questions, config, shop, done)
            stage.append_new(
                s for q in questions for s in q.attempts[: _stop_at(_of(q.attempts), config)]
            )
        report(start + len(part), len(problems))
    return count_solutions(stage.rows(Solution))


def count_solutions(solutions: Iterable[Solution]) -> dict[str, int | float]:
    """Solutions by verdict and by side of a pair, then by what kept them from either."""
    sums = ("attempts", "correct", "wrong", "undecided", "preferred", "dispreferred")
    counts: Counter[str] = Counter(dict.fromkeys(sums, 0))
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
    reasons = sorted(counts.keys() - set(sums))
    return {name: counts[name] for name in (*sums, *reasons)}


def _fates(solutions: Iterable[Solution]) -> dict[str, list[Fate]]:
    """What became of every problem's attempts, in order; far smaller than the rows."""
    found: dict[str, dict[int, Fate]] = {}
    for solution in solutions:
        found.setdefault(solution.problem_id, {})[solution.attempt] = fate(solution)
    return {name: [fates[n] for n in sorted(fates)] for name, fates in found.items()}


def _of(attempts: Iterable[Solution]) -> list[Fate]:
    return [fate(solution) for solution in attempts]


def _stop_at(fates: Sequence[Fate], config: SampleConfig) -> int | None:
    """How many attempts the stop rule takes, or None when it wants more of them."""
    correct = wrong = 0
    for taken, one in enumerate(fates, 1):
        correct += one == "preferred"
        wrong += one == "dispreferred"
        if (correct >= config.correct and wrong >= config.wrong) or taken >= config.max_attempts:
            return taken
    return None


def _question(problem: Problem, shop: Workshop) -> _Question:
    prompt = shop.form.prompt(problem.question)
    return _Question(problem, prompt, shop.engine.encode(prompt, start=True))


def _so_far(report: Progress, before: int, total: int) -> Callable[[int], None]:
    return lambda n: report(before + n, total)


async def _sample_chunk(
    questions: Sequence[_Question],
    config: SampleConfig,
    shop: Workshop,
    done: Callable[[int], None],
) -> None:
    """Give the questions at least the attempts that the stop rule takes."""
    shop.engine.clear()
    while unsettled := [q for q in questions if _stop_at(_of(q.attempts), config) is None]:
        done(len(questions) - len(unsettled))
        draws = _next_draws(unsettled, config)
        by_id = {question.problem.id: question for question in unsettled}
        for start in range(0, len(draws), config.rows):
            for solution in await _roll_out(draws[start : start + config.rows], config, shop):
                by_id[solution.problem_id].attempts.append(solution)


def _next_draws(questions: Sequence[_Question], config: SampleConfig) -> list[Draw]:
    """The next attempts: one a question, more where rows are free (they may not be needed)."""
    share = max(1, config.rows // len(questions))
    return [
        Draw(
            id=f"{question.problem.id}#{attempt}",
            problem=question.problem,
            prompt=question.prompt,
            prompt_ids=question.prompt_ids,
            attempt=attempt,
            seed=derive_seed(config.seed, "naive", question.problem.id, attempt),
        )
        for question in questions
        for attempt in range(
            len(question.attempts), min(len(question.attempts) + share, config.max_attempts)
        )
    ]


async def _roll_out(draws: list[Draw], config: SampleConfig, shop: Workshop) -> list[Solution]:
    schedule = Schedule(start=config.temperature, increment=0, cap=config.temperature)
    rollouts = [
        rollout(
            Task(prompt_ids=draw.prompt_ids, schedule=schedule, seed=draw.seed),
            shop.form,
            config.limits,
            shop.engine.encode,
        )
        for draw in draws
    ]
    outcomes = await drive(rollouts, shop.engine, shop.sandbox)
    return solutions_of(
        draws, outcomes, shop, error_words_in_question=config.error_words_in_question
    )
