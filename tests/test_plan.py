"""`scdpo plan`: its arithmetic against models, simulations, and the figures of the paper."""

from __future__ import annotations

import importlib.util
import json
import random
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM

from scdpo.errors import InputError
from scdpo.pipeline.planning.expected import fitted, stopped
from scdpo.pipeline.planning.hardware import Hardware, hardware
from scdpo.pipeline.planning.memory import layer_bytes
from scdpo.pipeline.planning.plan import Plan, plan_recipe
from scdpo.pipeline.planning.shapes import SHAPES, Shape, shape_from_config, shape_of
from scdpo.pipeline.recipe import Recipe, load_recipe
from small_runs import fail, succeed

ROOT = Path(__file__).resolve().parents[1]
RECIPES = (
    *("mistral-7b-ours", "mathcoder-mistral-7b", "metamath-mistral-7b", "internlm2-20b"),
    *("qwen2.5-math-1.5b", "qwen3-1.7b", "smollm2-135m", "embedded"),
)


def benchmark(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", ROOT / f"benchmarks/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# ---- shapes

# As the models' authors count them, in millions.
PARAMETERS = {
    "mistralai/Mistral-7B-v0.1": 7241.7,
    "internlm/internlm2-20b": 19861.1,
    "Qwen/Qwen2.5-Math-1.5B-Instruct": 1543.7,
    "Qwen/Qwen3-1.7B": 1720.6,
    "Qwen/Qwen3-0.6B": 596.0,
    "meta-llama/Llama-3.2-1B-Instruct": 1235.8,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134.5,
}


@pytest.mark.parametrize(("policy", "millions"), PARAMETERS.items())
def test_parameters_of_published_models(policy: str, millions: float) -> None:
    assert shape_of(policy).parameters / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_parameters_and_activations_are_those_of_the_model(family: str, tmp_path: Path) -> None:
    memory = benchmark("memory")
    config = memory.small(family, hidden_size=96, num_attention_heads=4, vocab_size=200)
    config.save_pretrained(tmp_path)
    shape = shape_from_config(tmp_path / "config.json")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    for bf16, rank in ((False, 0), (True, 0), (True, 8)) if family == "llama" else ((True, 0),):
        one, two = (
            memory.kept_bytes(
                AutoConfig.from_pretrained(tmp_path, num_hidden_layers=n), 50, bf16, rank
            )
            for n in (1, 2)
        )
        assert layer_bytes(shape, bf16, rank) == (two - one) / 50


def test_names_and_folders_of_policies(tmp_path: Path) -> None:
    assert shape_of("policies/internlm2-20b") == SHAPES["internlm/internlm2-20b"]
    assert shape_of("mistralai/mistral-7b-v0.1") == SHAPES["mistralai/Mistral-7B-v0.1"]
    assert shape_of("Qwen/Qwen2.5-Math-1.5B") == SHAPES["Qwen/Qwen2.5-Math-1.5B-Instruct"]
    with pytest.raises(InputError, match="its shape is not known; give --shape"):
        shape_of("owner/model")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    with pytest.raises(InputError, match="so not a model of Llama's kind"):
        shape_of(str(tmp_path))


@pytest.mark.parametrize("text", ["8xT1000", "x", "", "0xH100", "H100x8", "8 H100"])
def test_hardware_that_is_not_known(text: str) -> None:
    with pytest.raises(InputError, match="expected a number and a kind, such as 8xH100"):
        hardware(text)


def test_hardware_by_name() -> None:
    assert hardware("8xh100").count == 8
    assert hardware("A100").name == hardware("2xA100-80GB").name == "A100-80GB"
    assert hardware("A100-40GB").memory == 40 * 2**30
    assert hardware("16xcpu").flops == 4 * hardware("4xcpu").flops
    assert not hardware("cpu").gpu


# ---- attempts and pairs


@pytest.mark.parametrize(("right", "wrong", "most"), [(1, 1, 100), (2, 2, 30), (0, 3, 8)])
def test_expected_attempts_are_those_of_a_simulation(right: int, wrong: int, most: int) -> None:
    draw, trials = random.Random(1), 6000
    a, b = 1.2, 0.7
    attempts = both = any_right = 0
    for _ in range(trials):
        p, found = draw.betavariate(a, b), [0, 0]
        while sum(found) < most and (found[0] < right or found[1] < wrong):
            found[draw.random() >= p] += 1
            attempts += 1
        while sum(found) < most:  # `both` and `any_right` are about all that may be sampled
            found[draw.random() >= p] += 1
        both += min(found) > 0
        any_right += found[0] > 0
    expected = stopped(a, b, right, wrong, most)
    assert expected.attempts == pytest.approx(attempts / trials, rel=0.04)
    assert expected.both == pytest.approx(both / trials, abs=0.02)
    assert expected.any_right == pytest.approx(any_right / trials, abs=0.02)


@pytest.mark.parametrize(("accuracy", "both"), [(0.8, 0.9), (0.3, 0.6), (0.5, 0.99)])
def test_the_fitted_distribution_has_the_given_share(accuracy: float, both: float) -> None:
    a, b = fitted(accuracy, both, 100)
    assert a / (a + b) == pytest.approx(accuracy)
    assert stopped(a, b, 1, 1, 100).both == pytest.approx(both, abs=1e-6)


def test_the_figures_of_the_paper_are_met_within_ten_per_cent() -> None:
    """Also where a policy's pairs are predicted from those of the paper's other policies."""
    plan = benchmark("plan")
    lines = [*plan.against_paper(), *plan.from_the_others()]
    assert len(lines) == 34
    for line in lines:
        assert abs(line.off) < 0.1, line


def test_settings_of_the_paper_are_in_its_recipes() -> None:
    for name in RECIPES[:4]:
        recipe = load_recipe(name)
        sft, train = recipe.sft, recipe.train
        assert (sft.learning_rate, sft.epochs, sft.max_length) == (1e-5, 3, 2048)
        assert train.learning_rate == (1.5e-7 if name == "internlm2-20b" else 1e-7)
        assert train.beta == (0.5 if name.startswith("metamath") else 0.1)
        assert train.max_length == (2048 if name.startswith("metamath") else 1024)
        assert (train.epochs, train.batch_size, train.warmup_ratio) == (2, 64, 0.1)
        assert train.schedule == "cosine"
        assert recipe.sample.max_attempts == 100
        schedule = recipe.branch.schedule
        assert (schedule.start, schedule.increment, schedule.cap) == (1.1, 0.05, 1.4)


# ---- plans


def planned(name: str, machine: str, **changes: Any) -> Plan:
    return plan_recipe(load_recipe(name, changes), hardware(machine))


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("width", [80, 200])
def test_a_plan_is_printed_without_weights_and_network(
    name: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scdpo.cli.planning.console.width", width, raising=False)
    monkeypatch.setattr("socket.socket.connect", None)
    succeed("plan", name, "--gpus", "2xA100-40GB")
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= width
    for stage in ("solutions", "branches", "policies/dpo_equal", "evaluations"):
        assert len(re.findall(rf"^ {stage}  ", shown, re.MULTILINE)) == 2


def test_sft_is_planned_where_the_recipe_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    succeed("plan", "metamath-mistral-7b", "--json")
    stages = [stage["stage"] for stage in json.loads(capsys.readouterr().out)["stages"]]
    assert stages[0] == "sft"
    succeed("plan", "qwen3-1.7b", "--json")
    stages = [stage["stage"] for stage in json.loads(capsys.readouterr().out)["stages"]]
    assert stages[0] == "solutions"


@pytest.mark.parametrize("machine", ["RTX4090", "2xA100-40GB", "8xH100"])
@pytest.mark.parametrize("name", ["mistral-7b-ours", "internlm2-20b", "qwen2.5-math-1.5b"])
def test_what_is_advised_fits(name: str, machine: str) -> None:
    """Every change that is a change of the recipe: planned again with it, the stage fits."""
    plan = planned(name, machine)
    for stage in plan.stages:
        assert stage.fits == (stage.memory.total <= plan.usable)
        for advice in stage.advice:
            assert advice.total <= plan.usable
            if "devices" in advice.change:
                count, *rest = advice.change.split(" devices, sharded")
                again = planned(name, f"{count}x{plan.hardware.name}", **changes_in(rest[0]))
            else:
                again = planned(name, machine, **changes_in(advice.change))
            (same,) = (s for s in again.stages if s.stage == stage.stage)
            assert same.fits
            assert same.memory.total <= advice.total * 1.001


def changes_in(text: str) -> dict[str, Any]:
    """The recipe's keys in an advice: `a.b: 1, c: {d: 2, e: 3}`."""
    parts = re.findall(r"([\w.]+): (\{[^}]*\}|[^,]+)", text)
    return {key: yaml.safe_load(value) for key, value in parts}


def test_assumptions_change_what_they_are_about() -> None:
    def seconds(plan: Plan) -> dict[str, float]:
        return {stage.stage: stage.seconds for stage in plan.stages}

    base = seconds(planned("qwen3-1.7b", "A100"))
    faster = seconds(planned("qwen3-1.7b", "A100", **{"plan.training_share": 0.7}))
    slower = seconds(planned("qwen3-1.7b", "A100", **{"plan.layer_ms": 1.2}))
    assert faster["policies/scdpo"] == pytest.approx(base["policies/scdpo"] / 2)
    assert faster["solutions"] == base["solutions"]
    assert slower["solutions"] > 1.5 * base["solutions"]
    two = seconds(planned("qwen3-1.7b", "2xA100"))
    assert two["policies/scdpo"] == pytest.approx(base["policies/scdpo"] / 2)
    assert two["solutions"] == base["solutions"]  # sampling is on one device


def test_limits_of_the_recipe_limit_its_plan() -> None:
    whole = planned("mistral-7b-ours", "8xH100")
    part = planned(
        "mistral-7b-ours", "8xH100", **{"problems.train.limit": 100, "sft.data.limit": 9}
    )
    assert part.stages[0].rows == 9
    assert part.stages[1].rows == pytest.approx(whole.stages[1].rows * 200 / 14973, rel=0.01)


def test_what_cannot_be_planned_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail(capsys, "plan", "mistral-7b-ours", "--gpus", "8xQ9").startswith(
        "--gpus 8xQ9: expec"
    )
    line = fail(capsys, "plan", "mistral-7b-ours", "--shape", tmp_path)
    assert line == f"{tmp_path}/config.json: cannot be read: No such file or directory"
    recipe = yaml.safe_load((ROOT / "recipes/metamath-mistral-7b.yaml").read_text())
    del recipe["plan"]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    line = fail(capsys, "plan", tmp_path / "r.yaml")
    assert line == "sft.data: the rows of meta-math/MetaMathQA are not known; give plan.sft_rows"


def test_a_plan_of_ones_own_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from scdpo.policies import policy_path

    recipe: Recipe = load_recipe("embedded")
    machine: Hardware = hardware("2xcpu")
    shape: Shape = shape_from_config(Path(policy_path("embedded")) / "config.json")
    assert plan_recipe(recipe, machine) == plan_recipe(recipe, machine, shape=shape)
