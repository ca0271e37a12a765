"""Runs: the stages in order, what is kept of them, and what a kill may not change."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from scdpo.errors import InputError
from scdpo.pipeline.provenance import SHAPED_BY, settings
from scdpo.pipeline.recipe import Recipe, make_recipe
from scdpo.pipeline.run import Run
from scdpo.store import is_full_disk
from small_runs import LIMITS, recipe, write_recipe, write_recorded


def load_benchmark(name: str) -> ModuleType:
    """A module of the folder `benchmarks`, which is no package."""
    path = Path(__file__).resolve().parents[1] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_a_run_that_is_killed_and_resumed_makes_the_same_rows(tmp_path: Path) -> None:
    resume = load_benchmark("resume")
    train = {"source": "embedded", "split": "train", "limit": 6}
    limits = LIMITS | {"max_steps": 12}
    path = write_recipe(
        tmp_path / "tiny.yaml",
        problems={"train": train},
        # Warm, so that the policy is surely both right and wrong on some of them.
        sample={"temperature": 1.3, "max_attempts": 6, "chunk": 3, "limits": limits},
        branch={"chunk": 2, "limits": limits},
        pairs={"heldout_share": 0.0},
        methods=["scdpo"],
    )
    resume.finish(path, tmp_path / "undisturbed")
    made = resume.manifests(tmp_path / "undisturbed")
    assert list(made) == [
        *("problems/train", "problems/test", "solutions", "branches"),
        *("pairs/naive", "pairs/step_controlled", "pairs/data_equal"),
        *("policies/scdpo", "evaluations/sft", "evaluations/scdpo"),
    ]
    for stage in ("solutions", "branches", "policies/scdpo"):
        aim = resume.Aim(stage, 0.1 * made[stage].seconds, once_kept=True)
        kill = resume.kill_in(path, tmp_path / "killed", aim, list(made))
        assert kill.left == ()
    resume.finish(path, tmp_path / "killed")
    killed = resume.manifests(tmp_path / "killed")
    assert sum(manifest.resumes for manifest in killed.values()) > 0
    assert resume.hashes(tmp_path / "killed") == resume.hashes(tmp_path / "undisturbed")


# ---- provenance

SMALL = make_recipe(recipe())
CHANGES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "format": (
        {"format": {"system": "Think."}},
        {
            "demonstrations",
            "solutions",
            "imports",
            "branches",
            "pilot",
            "validation",
            "evaluations",
        },
    ),
    "engine": (
        {"engine": {"dtype": "bfloat16"}},
        {"solutions", "branches", "pilot", "validation", "evaluations"},
    ),
    "threads": (
        {"threads": 2},
        {"sft", "solutions", "branches", "pilot", "policies", "validation", "evaluations"},
    ),
    "grading": (
        {"grading": {"deadline": 9}},
        {
            "demonstrations",
            "solutions",
            "imports",
            "branches",
            "pilot",
            "validation",
            "evaluations",
        },
    ),
    "sandbox": (
        {"sandbox": {"memory_mb": 100}},
        {
            "demonstrations",
            "solutions",
            "imports",
            "branches",
            "pilot",
            "validation",
            "evaluations",
        },
    ),
    "sample": ({"sample": {"temperature": 0.5}}, {"solutions"}),
    "branch": ({"branch": {"skip_last": 1}}, {"branches"}),
    "pairs": ({"pairs": {"heldout_share": 0.5}}, {"pairs"}),
    "train": ({"train": {"beta": 0.5}}, {"policies"}),
    "evaluate": ({"evaluate": {"rows": 7}}, {"validation", "evaluations"}),
    "sft": ({"sft": {"epochs": 1}}, {"sft"}),
    "sft data": ({"sft": {"data": {"path": "rows.jsonl"}}}, {"demonstrations"}),
    "seed": ({"seed": 1}, {"sft", "solutions", "branches", "pairs", "policies"}),
    "how many at once": ({"grading": {"workers": 1}, "sandbox": {"parallel": 1}}, set()),
    "methods": ({"methods": ["dpo"]}, set()),
}


@pytest.mark.parametrize(("changes", "shaped"), CHANGES.values(), ids=CHANGES)
def test_a_setting_belongs_to_the_stages_whose_rows_it_shapes(
    changes: dict[str, Any], shaped: set[str]
) -> None:
    changed = make_recipe(recipe(**changes))
    stages = {f"{kind}/test" if kind == "problems" else f"{kind}/x" for kind in SHAPED_BY}
    found = {name.split("/")[0] for name in stages if _differ(SMALL, changed, name)}
    assert found == shaped


def _differ(one: Recipe, other: Recipe, stage: str) -> bool:
    return settings(one, stage) != settings(other, stage)


def test_a_run_without_pairs_says_what_to_look_at(tmp_path: Path) -> None:
    held_out = make_recipe(recipe(pairs={"heldout_share": 1 - 1e-9}))
    file = Path(write_recorded(tmp_path / "apples.jsonl", 2))
    with Run(held_out, tmp_path / "run") as run:
        run.import_solutions(file, "tora", "apples")
        run.pair()
        with pytest.raises(InputError, match=r"dpo has no pairs to train on; `scdpo report "):
            run.train("dpo")


def test_files_of_one_name_are_two_imports_only_if_they_differ(tmp_path: Path) -> None:
    file = Path(write_recorded(tmp_path / "all apples (2).jsonl", 2))
    with Run(SMALL, tmp_path / "run") as run:
        first = run.import_solutions(file, "tora", "apples")
        again = run.import_solutions(file, "tora", "apples")
    assert first == again
    assert first.stage == "imports/all_apples_2"
    assert first.rows == 4


@pytest.mark.parametrize(
    ("stage", "command"), [("solutions", "sample"), ("imports/apples", "import")]
)
def test_an_unfinished_stage_names_the_command_that_goes_on(
    stage: str, command: str, tmp_path: Path
) -> None:
    with Run(SMALL, tmp_path / "run") as run:
        run.folder.stage(stage).open({})
        with pytest.raises(InputError, match=f"{stage} is not finished; run `scdpo {command}`"):
            run.pair()


def test_a_stage_that_made_nothing_is_done_all_the_same(tmp_path: Path) -> None:
    file = Path(write_recorded(tmp_path / "apples.jsonl", 1))
    with Run(SMALL, tmp_path / "run") as run:
        run.import_solutions(file, "tora", "apples")
        run.pair()
    with Run(SMALL, tmp_path / "run") as run:
        before = {m.stage: m for m in run.manifests()}
        assert before["pairs/step_controlled"].rows == 0
        run.pair()
        assert {m.stage: m for m in run.manifests()} == before


# ---- full disks


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(28, "No space left on device"), True),
        (OSError(122, "Disk quota exceeded"), True),
        (RuntimeError("basic_ios::clear: iostream error"), True),
        (Exception("Error while serializing: I/O error: No space left on device"), True),
        (OSError(13, "Permission denied"), False),
        (RuntimeError("shapes do not match"), False),
    ],
)
def test_a_full_disk_is_told_from_other_failures(error: Exception, full: bool) -> None:
    assert is_full_disk(error) is full
    wrapped = ValueError("while doing something else")
    wrapped.__context__ = error
    assert is_full_disk(wrapped) is full
