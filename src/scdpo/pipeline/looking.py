"""A dry look: what the policy writes to the first problems of a recipe, before a long run."""

from __future__ import annotations

from collections.abc import Sequence

from scdpo.evaluation import SFT
from scdpo.pipeline.recipe import Recipe
from scdpo.pipeline.services import Services, Silent, Watcher
from scdpo.pipeline.sources import read_problems
from scdpo.records import Problem, Solution
from scdpo.sampling import count_solutions, sample_solutions
from scdpo.waiting import run

ATTEMPTS = 2
"""Solutions of each problem."""


def look(
    recipe: Recipe, limit: int, watcher: Watcher | None = None, *, policy: str | None = None
) -> tuple[list[Problem], list[Solution]]:
    """The first `limit` training problems of a recipe and two solutions of each (or fewer, where
    `sample.max_attempts` says so) by its `policy`, or another one.

    They are drawn as the run draws its first ones, with the same seeds, and nothing is kept: a run
    that was not begun is not begun by this, and one that was goes on as it would have. Raises what
    sampling raises.
    """
    problems = read_problems(recipe, "train", limit)
    attempts = min(ATTEMPTS, recipe.sample.max_attempts)
    config = recipe.sample.model_copy(
        update={"correct": attempts, "wrong": attempts, "max_attempts": attempts}
    )
    watcher = watcher or Silent()
    services = Services(recipe, watcher)

    async def draw() -> list[Solution]:
        chunks = sample_solutions(problems, sampler, config, progress=watcher.progress("look"))
        return [solution async for chunk in chunks for solution in chunk]

    try:
        with services.sampler(policy or recipe.policy, SFT) as sampler:
            return problems, run(draw())
    finally:
        services.close()


def look_figures(solutions: Sequence[Solution], seconds: float) -> str:
    """What a dry look found, in a line."""
    counts = count_solutions(solutions)
    kinds = ("correct", "wrong", "undecided")
    why = [key for key in counts if key.startswith(("cut:", "undecided:"))]
    listed = ", ".join(f"{counts[key]:g} {key}" for key in (*kinds, *why) if counts[key])
    steps = [step for solution in solutions for step in solution.steps]
    tokens = sum(len(step.token_ids) for step in steps)
    n = max(len(solutions), 1)
    return (
        f"{len(solutions)} solutions in {seconds:.0f} s: {listed}; {len(steps) / n:.1f} steps and "
        f"{tokens / n:.0f} tokens each; nothing is kept"
    )
