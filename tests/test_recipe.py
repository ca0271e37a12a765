"""Recipes: presets, what a user's keys override, and one line for everything that is wrong."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from scdpo.errors import RecipeError
from scdpo.pipeline.recipe import PRESETS, Recipe, dump_recipe, load_recipe, make_recipe
from small_runs import recipe

PACKAGED = (
    *("embedded", "smoke", "import"),
    *("mistral-7b-ours", "mathcoder-mistral-7b", "metamath-mistral-7b", "internlm2-20b"),
    *("qwen2.5-math-1.5b", "qwen3-1.7b", "smollm2-135m"),
)

# What arXiv 2407.00782 says, and what the code released with it does.
PRESET_VALUES: dict[str, tuple[Any, Any]] = {
    "branch.schedule.start": (1.1, 1.1),
    "branch.schedule.increment": (0.05, 0.1),
    "branch.schedule.cap": (1.4, 1.4),
    "branch.branch_steps": ("random", "every"),
    "branch.skip_last": (0, 1),
    "sample.temperature": (1.0, 1.0),
    "sample.correct": (1, 4),
    "sample.wrong": (1, 4),
    "sample.max_attempts": (100, 100),
    "sample.error_words_in_question": (False, True),
    "sample.limits.max_steps": (64, 64),
    "sample.limits.step_tokens": (512, 512),
    "sample.limits.context": (3072, 3072),
    "evaluate.limits.max_steps": (24, 24),
    "pairs.duplicates": ("exact", "released-code"),
    "pairs.truncated_is_wrong": (False, True),
    "pairs.step_controlled_per_question.gsm8k": (2, 2),
    "pairs.step_controlled_per_question.math": (3, 3),
    "pairs.heldout_share": (0.01, 0.01),
    "train.score_output": (False, True),
    "train.beta": (0.1, 0.1),
    "train.learning_rate": (1e-7, 1e-7),
    "train.epochs": (2, 2),
    "train.batch_size": (64, 64),
    "train.max_length": (1024, 1024),
    "train.warmup_ratio": (0.1, 0.1),
}

PROBLEMS = {"train": {"split": "train"}, "test": {"split": "test"}}


def value_of(recipe: Recipe, key: str) -> Any:
    found: Any = yaml.safe_load(dump_recipe(recipe))
    for part in key.split("."):
        found = found[part]
    return found


@pytest.mark.parametrize(("key", "values"), PRESET_VALUES.items())
def test_the_presets_have_the_values_of_the_paper_and_of_its_code(
    key: str, values: tuple[Any, Any]
) -> None:
    for preset, value in zip(("paper", "released-code"), values, strict=True):
        made = make_recipe({"preset": preset, "problems": PROBLEMS})
        assert value_of(made, key) == value


def test_the_negatives_of_the_released_code_are_those_it_meant_to_keep() -> None:
    made = make_recipe({"preset": "released-code", "problems": PROBLEMS})
    found = {name: made.branch.negatives_for(name) for name in ("gsm8k", "math", "ape210k", "x")}
    assert found == {"gsm8k": 2, "math": 3, "ape210k": 1, "x": 2}


def test_a_users_keys_go_before_the_presets() -> None:
    made = make_recipe(
        {
            "preset": "released-code",
            "problems": PROBLEMS,
            "sample": {"correct": 2},
            "branch": {"schedule": {"cap": 1.3}, "negatives": {"default": 5}},
        }
    )
    assert (made.sample.correct, made.sample.wrong) == (2, 4)
    assert (made.branch.schedule.increment, made.branch.schedule.cap) == (0.1, 1.3)
    assert made.branch.negatives == {"default": 5}, "a value that is no section is replaced whole"
    assert PRESETS["released-code"]["branch"]["schedule"]["cap"] == 1.4


def test_the_seed_goes_to_every_stage_that_has_none_of_its_own() -> None:
    made = make_recipe({"seed": 7, "problems": PROBLEMS, "branch": {"seed": 3}})
    stages = (made.sample, made.branch, made.pairs, made.train)
    assert [stage.seed for stage in stages] == [7, 3, 7, 7]


@pytest.mark.parametrize("name", PACKAGED)
def test_a_resolved_recipe_says_everything_and_reads_as_the_same(name: str, tmp_path: Path) -> None:
    made = load_recipe(name)
    written = tmp_path / "recipe.yaml"
    written.write_text(dump_recipe(made))
    assert load_recipe(written) == made
    assert set(yaml.safe_load(written.read_text())) == set(Recipe.model_fields)


def test_every_recipe_in_the_package_is_valid() -> None:
    folder = resources.files("scdpo") / "recipes"
    names = {file.name.removesuffix(".yaml") for file in folder.iterdir() if file.is_file()}
    assert names == {*PACKAGED, "embedded-policy"}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": (
        recipe(smaple={}),
        "unknown key 'smaple' (did you mean sample?); known here: branch, engine, evaluate, "
        "format, grading, methods, pairs, plan, policy, preset, problems, sample, sandbox, seed, "
        "sft, threads, train, truncated_is_wrong",
    ),
    "unknown nested key": (
        recipe(branch={"schedule": {"stop": 1}}),
        "unknown key 'branch.schedule.stop'; known here: cap, increment, start",
    ),
    "mistyped nested key": (
        recipe(branch={"schedule": {"strat": 1}}),
        "unknown key 'branch.schedule.strat' (did you mean start?); known here: cap, increment,",
    ),
    "unknown key of a source": (
        recipe(problems={"train": {"file": "x"}}),
        "unknown key 'problems.train.file'; known here: ids, limit, offset, path, source, split",
    ),
    "missing key": ({"policy": "embedded"}, "key 'problems' is missing"),
    "missing nested key": ({"problems": {"train": {}}}, "key 'problems.test' is missing"),
    "wrong type": (
        recipe(train={"beta": "high"}),
        "train.beta: input should be a valid number, unable to parse string as a number "
        "(found 'high')",
    ),
    "wrong value": (
        recipe(train={"epochs": 0}),
        "train.epochs: input should be greater than or equal to 1 (found 0)",
    ),
    "not a section": (recipe() | {"train": 3}, "train: input should be"),
    "one of several types": (
        recipe(branch={"negatives": "many"}),
        "branch.negatives: input should be a valid integer, unable to parse string as an integer "
        "or input should be a valid dictionary (found 'many')",
    ),
    "unknown preset": (
        recipe(preset="fast"),
        "preset: input should be 'paper' or 'released-code' (found 'fast')",
    ),
    "preset of a wrong type": (recipe(preset=["paper"]), "preset: input should be"),
    "unknown method": (
        recipe(methods=["dpo", "ppo"]),
        "methods.1: input should be 'dpo', 'dpo_equal' or 'scdpo' (found 'ppo')",
    ),
    "negative seed": (recipe(seed=-1), "seed: input should be greater than or equal to 0"),
    "schedule that falls": (
        recipe(branch={"schedule": {"start": 1.5}}),
        "branch.schedule: cap 1.4 is below start 1.5",
    ),
    "unknown format": (
        recipe(format={"name": "boxes"}),
        "format: unknown format 'boxes'; known: blocks, fenced, plain",
    ),
    "unknown source": (
        recipe(problems={"test": {"source": "gsm9k", "path": "x"}}),
        "problems.test: unknown source 'gsm9k'; known: embedded, gsm8k, math",
    ),
    "source without a path": (
        recipe(problems={"test": {"source": "gsm8k"}}),
        "problems.test: source 'gsm8k' needs a path (a file, folder or hub name)",
    ),
    "path that is not read": (
        recipe(problems={"test": {"path": "x.jsonl"}}),
        "problems.test: source 'embedded' takes no path",
    ),
    "unknown split": (
        recipe(problems={"test": {"split": "dev"}}),
        "problems.test: split 'dev': embedded has train, validation, test",
    ),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_in_a_recipe_is_one_line(data: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        make_recipe(data, "my.yaml")
    text = str(error.value)
    assert text.startswith(f"my.yaml: {message}")
    assert "\n" not in text
    assert len(text) < 400


FILES: dict[str, tuple[bytes | None, str]] = {
    "no file": (
        None,
        "no such recipe file (in the package: embedded, import, internlm2-20b, mathcoder",
    ),
    "not YAML": (b"a: [1, 2\nb: 3", "not YAML: while parsing a flow sequence"),
    "a tab": (b"train:\n\tbeta: 1", "not YAML: "),
    "a key given twice": (b"seed: 1\nseed: 2", "not YAML: key 'seed' is given twice"),
    "empty": (b"", "expected a mapping of keys, found nothing"),
    "a list": (b"- seed", "expected a mapping of keys, found list"),
    "a text": (b"seed", "expected a mapping of keys, found str"),
    "not UTF-8": (b"policy: \xff", "not UTF-8 (byte 9)"),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES)
def test_a_file_that_is_no_recipe_is_one_line(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "my.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Is a directory"):
        load_recipe(tmp_path)
