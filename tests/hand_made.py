"""Runs whose solutions were written by hand, so that nothing has to be sampled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from scdpo.pipeline.recipe import load_recipe
from scdpo.pipeline.run import Run
from scdpo.records import CORRECT, WRONG, Solution, Step, Verdict
from scdpo.sampling import count_branches, count_solutions
from small_runs import recipe
from tiny_pairs import EOS, make_policy, text

PROBLEM = "gsm_symbolic/train/0"


def solution(problem: int, attempt: int, verdict: Verdict = CORRECT, **changes: Any) -> Solution:
    """A solution of two steps; attempts of a problem begin alike."""
    steps = (
        Step(kind="text", text=text(10 * problem, 4), temperature=1.0, mean_logp=-0.5),
        Step(kind="text", text=text(1000 * problem + attempt, 6) + EOS, temperature=1.0),
    )
    fields: dict[str, Any] = {
        "id": f"gsm_symbolic/train/{problem}#{attempt}",
        "problem_id": f"gsm_symbolic/train/{problem}",
        "dataset": "gsm_symbolic",
        "question": "How many?",
        "format": "plain",
        "policy": "sft",
        "prompt": text(500 + problem, 5),
        "steps": steps,
        "finish": "finished",
        "answer": "4" if verdict.correct else "5",
        "verdict": verdict,
        "attempt": attempt,
        "seed": attempt,
    }
    return Solution.model_validate(fields | changes)


def branch(problem: int, attempt: int) -> Solution:
    """A continuation of a problem's first solution from its first step, which goes wrong."""
    parent = f"gsm_symbolic/train/{problem}#0"
    changes = {"id": f"{parent}@{attempt}", "parent": parent, "branch_step": 1}
    return solution(problem, 50 + attempt, WRONG, **changes)


def write_tiny_recipe(folder: Path, **changes: Any) -> Path:
    """A recipe for a random policy of a few thousand weights."""
    policy = folder / "tiny"
    if not policy.exists():
        make_policy(policy)
    base = recipe(
        policy=str(policy),
        format={"name": "plain", "system": None},
        pairs={"heldout_share": 0.0},
        train={"learning_rate": 1e-3, "max_length": 64},
        evaluate={"limits": {"max_steps": 1, "step_tokens": 4, "context": 100}, "rows": 2},
    )
    for key, value in changes.items():
        base[key] = base.get(key, {}) | value if isinstance(value, dict) else value
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(base))
    return path


def make_run(
    path: Path,
    recipe: Path,
    solutions: Sequence[Solution],
    branches: Sequence[Solution] | None = None,
) -> Path:
    """A run folder with these solutions and branches, as if they had been sampled."""
    with Run(load_recipe(recipe), path) as run:
        run.problems("train")
        stage = run.open("solutions", ["problems/train"], policy=True)
        stage.append_new(solutions)
        stage.finish(count_solutions(solutions))
        if branches is not None:
            stage = run.open("branches", ["solutions"], policy=True)
            stage.append_new(branches)
            stage.finish(count_branches(branches))
    return path


def make_paired(folder: Path, questions: int = 3, **changes: Any) -> Path:
    """A run with pairs: a naive and a step-controlled one for each question."""
    numbers = range(questions)
    solutions = [s for n in numbers for s in (solution(n, 0), solution(n, 1, WRONG))]
    source = write_tiny_recipe(folder, **changes)
    run = make_run(folder / "run", source, solutions, [branch(n, 0) for n in numbers])
    with Run(load_recipe(run / "recipe.yaml"), run) as opened:
        opened.pair()
    return run
