"""A policy's folder states in which format it writes, for whatever samples, measures, trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import scdpo
from scdpo.errors import InputError, PolicyError
from scdpo.pipeline.measure import measuring_recipe
from scdpo.policies import load_policy, policy_hash, save_policy, state_format, stated_format
from small_runs import copy_policy

LIMITS = {"max_steps": 1, "step_tokens": 4, "context": 512}


def test_the_embedded_policy_needs_no_format() -> None:
    problems = scdpo.load_problems("embedded", split="validation", limit=1)
    with scdpo.Engine("embedded") as engine:
        assert engine.solution_format == {"name": "blocks", "system": ""}
        by_default, given, named = (
            scdpo.sample(problems, engine, max_attempts=1, limits=LIMITS, **options)[0]
            for options in (
                {},
                {"format": scdpo.get_format("blocks", system="")},
                {"format": "blocks"},
            )
        )
    assert by_default == given
    assert "<|system|>" in named.prompt, "a format by name has its own defaults"


def test_what_is_stated_goes_into_policies_made_from_it(tmp_path: Path) -> None:
    mine = copy_policy(tmp_path / "mine")
    before = policy_hash(mine)
    state_format(mine, {"name": "plain", "system": "S", "end": None})
    assert policy_hash(mine) == before, "run folders do not depend on it"
    assert stated_format(mine) == {"name": "plain", "system": "S"}
    save_policy(load_policy(mine, device="cpu"), tmp_path / "copy")
    assert stated_format(tmp_path / "copy") == {"name": "plain", "system": "S"}
    (mine / "solution_format.json").unlink()
    save_policy(load_policy(mine, device="cpu"), tmp_path / "other")
    assert stated_format(tmp_path / "other") is None


def test_a_policy_is_measured_in_the_format_that_it_states(tmp_path: Path) -> None:
    mine = copy_policy(tmp_path / "mine")
    state_format(mine, {"name": "fenced", "system": "S", "end": ["<|im_end|>"]})
    found = measuring_recipe(None, str(mine)).format
    assert (found.name, found.system, found.end) == ("fenced", "S", ("<|im_end|>",))
    chosen = measuring_recipe(None, str(mine), format="plain").format
    assert (chosen.name, chosen.system) == ("plain", None), "what is given replaces it whole"
    (mine / "solution_format.json").unlink()
    with pytest.raises(InputError, match="its solution format is not known"):
        measuring_recipe(None, str(mine))


@pytest.mark.parametrize("content", ["[", "[]", '{"end": "x"}'])
def test_a_statement_that_cannot_be_read(content: str, tmp_path: Path) -> None:
    mine = copy_policy(tmp_path / "mine")
    (mine / "solution_format.json").write_text(content)
    with pytest.raises(PolicyError, match=r"its solution_format\.json (cannot be|has no key name)"):
        stated_format(mine)


def test_names_without_a_policy_state_nothing(tmp_path: Path) -> None:
    assert stated_format(tmp_path) is None
    assert stated_format("scripted") is None


def test_a_runs_trained_policy_states_the_recipes_format(tmp_path: Path) -> None:
    """The smallest run that trains: pairs of recorded solutions in the format `fenced`."""
    from scdpo.pipeline.recipe import make_recipe
    from scdpo.pipeline.run import Run
    from small_runs import recipe, write_recorded

    made = make_recipe(
        recipe(format={"name": "fenced", "system": "S"}, pairs={"heldout_share": 0.0})
    )
    recorded = Path(write_recorded(tmp_path / "tora.jsonl", 2))
    with Run(made, tmp_path / "run") as run:
        run.import_solutions(recorded, "tora", "mine")
        run.pair()
        run.train("dpo")
    policy = tmp_path / "run" / "policies" / "dpo" / "policy"
    assert stated_format(policy) == {"name": "fenced", "system": "S"}
    assert json.loads((policy / "solution_format.json").read_text())["name"] == "fenced"
