"""A policy made from the solutions of a run: another model's, with another tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from scdpo.errors import RecipeError
from scdpo.pipeline.make_policy import MakePolicyConfig, load_make_policy, make_policy
from scdpo.policies import load_policy, policy_hash
from small_runs import fail, succeed, write_recipe, write_recorded


def test_policy_from_imported_solutions(tmp_path: Path) -> None:
    """Only right solutions are learned from, and the policy holds the format's end marker."""
    recorded = write_recorded(tmp_path / "tora.jsonl", questions=6)
    recipe = write_recipe(tmp_path / "recipe.yaml", format={"name": "fenced"})
    run = tmp_path / "run"
    succeed("import", recorded, "--layout", "tora", "--out", run, "--recipe", recipe)
    config = MakePolicyConfig.model_validate(
        {
            "solutions": str(run),
            "format": "fenced",
            "policy": {"hidden_size": 32, "layers": 1, "heads": 2, "intermediate_size": 32},
            "sft": {"epochs": 1, "batch_size": 2, "learning_rate": 1e-3},
        }
    )
    report = make_policy(config, tmp_path / "out")
    assert report.n_examples == 6  # one right and one wrong solution a question
    policy = load_policy(report.policy)
    assert len(policy.encode("<|endofmessage|>")) == 1


def test_sft_on_the_run_s_own_solutions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = write_recorded(tmp_path / "tora.jsonl", questions=4)
    settings = {"learning_rate": 1e-4, "epochs": 1, "batch_size": 2, "max_length": 512}
    recipe = write_recipe(tmp_path / "recipe.yaml", sft=settings)
    run, out = tmp_path / "run", tmp_path / "out"
    succeed("import", recorded, "--layout", "tora", "--out", run, "--recipe", recipe)
    succeed("sft", run, "--out", out)
    assert policy_hash(out / "policy") != policy_hash("embedded")
    assert "not a run folder" in fail(capsys, "sft", tmp_path / "none", "--out", out)


@pytest.mark.parametrize("sources", [{}, {"demonstrations": 2, "solutions": "run"}])
def test_one_source_is_needed(tmp_path: Path, sources: dict[str, object]) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump({"format": "blocks"} | sources))
    with pytest.raises(RecipeError, match="either demonstrations"):
        load_make_policy(path)
