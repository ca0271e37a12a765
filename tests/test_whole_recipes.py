"""Every recipe runs whole: with a tiny random policy of its architecture, in its own format.

What is changed is where policy and data come from, sizes, and what a random policy needs to learn
anything from 16 solutions (learning rate and epochs of SFT). Recipes that begin with an instruct
model begin here with one that `scdpo sft` has made in the recipe's format.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scdpo.pipeline.recipe import dump_recipe, load_recipe
from scdpo.pipeline.recipe_files import recipe_names
from scdpo.records import Evaluation, Pair
from scdpo.store import read_jsonl
from small_runs import succeed
from tiny_recipes import (
    FAMILIES,
    make_policy,
    texts_of,
    write_demonstrations,
    write_problems,
)

RECIPES = {
    "mistral-7b-ours": "mistral",
    "mathcoder-mistral-7b": "mistral",
    "metamath-mistral-7b": "mistral",
    "internlm2-20b": "internlm2",
    "qwen2.5-math-1.5b": "qwen2",
    "qwen3-1.7b": "qwen3",
    "smollm2-135m": "llama",
}
LIMITS = {"max_steps": 6, "step_tokens": 64, "context": 256}
LEARN = {
    "sft.learning_rate": 7e-3,
    "sft.epochs": 34,
    "sft.batch_size": 8,
    "sft.micro_batch_size": 8,
    "sft.warmup_ratio": 0.1,
    "sft.save_steps": 1000,
}
SMALL = {
    "threads": 1,
    "grading.workers": 1,
    "engine.dtype": "float32",
    "sandbox.deadline": 20,
    "sample.max_attempts": 16,
    "sample.chunk": 4,
    "sample.limits": LIMITS,
    "branch.max_attempts": 10,
    "branch.chunk": 4,
    "branch.limits": LIMITS,
    "evaluate.limits": LIMITS,
    "pairs.heldout_share": 0,
}


def settings(**values: object) -> list[str]:
    return [
        part for key, value in values.items() for part in ("--set", f"{key}={json.dumps(value)}")
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_whole(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe, family = load_recipe(name), FAMILIES[RECIPES[name]]
    policy = make_policy(tmp_path / "policy", family, texts_of(recipe))
    data = write_demonstrations(tmp_path / "learn.jsonl", recipe.format.name)
    taught = {"path": str(data), "layout": "question-steps", "columns": {}, "limit": None}
    changes: dict[str, object] = dict(SMALL)
    for part in ("train", "test"):
        sources = recipe.problems.sources(part)
        for number, source in enumerate(sources):
            place = f"problems.{part}.{number}" if len(sources) > 1 else f"problems.{part}"
            changes[f"{place}.path"] = str(write_problems(tmp_path, source.source))
    if recipe.sft.data is not None:
        changes |= LEARN | {"policy": str(policy), "sft.data": taught}
    else:
        made = load_recipe(name, LEARN | {"policy": str(policy), "sft.data": taught, "threads": 1})
        (tmp_path / "learn.yaml").write_text(dump_recipe(made))
        succeed("sft", "--recipe", "learn.yaml", "--out", tmp_path / "instruct")
        changes["policy"] = str(tmp_path / "instruct" / "policy")
    succeed("run", name, "--out", "run", *settings(**changes))
    check(tmp_path / "run", {source.source for source in recipe.problems.sources("test")})


def check(run: Path, datasets: set[str]) -> None:
    """All stages are done, with right answers, and pairs of both kinds."""
    pairs = [p for part in ("naive", "step_controlled") for p in rows(run / "pairs" / part, Pair)]
    assert {pair.kind for pair in pairs} == {"naive", "step_controlled"}
    assert all(pair.shared for pair in pairs if pair.kind == "step_controlled")
    for policy in ("sft", "dpo", "dpo_equal", "scdpo"):
        answers = rows(run / "evaluations" / policy, Evaluation)
        right = [a for a in answers if a.finish == "finished" and a.verdict.name == "correct"]
        assert len(right) >= len(answers) / 4  # an untrained policy has none
        assert {answer.dataset for answer in answers} == datasets
    assert (run / "report_by_dataset.jsonl").exists() == (len(datasets) > 1)


def rows(folder: Path, kind: type) -> list:
    return [row for path in sorted(folder.glob("*.jsonl")) for row in read_jsonl(path, kind)]


def test_the_recipes_of_the_paper_and_of_today_are_all_here() -> None:
    assert {*RECIPES, "embedded", "import", "smoke"} == set(recipe_names())
