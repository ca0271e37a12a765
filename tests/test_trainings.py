"""Several trainings on the same pairs, `--set`, and what is said before time is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from hand_made import branch, make_paired, make_run, solution, write_tiny_recipe
from scdpo.errors import InputError, RecipeError, StoreError
from scdpo.pipeline.changes import parse_changes
from scdpo.pipeline.recipe import dump_recipe, load_recipe, make_recipe
from scdpo.pipeline.run import Run
from scdpo.pipeline.shortages import pairs_lack, solutions_lack
from scdpo.policies import policy_hash
from scdpo.records import WRONG, Solution, undecided
from scdpo.store import file_hash
from scdpo.training import train
from scdpo.training.dpo_config import TrainingReport
from small_runs import fail, recipe, succeed
from tiny_pairs import make_pair, make_policy

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with pairs and two trainings; tests copy it."""
    run = make_paired(tmp_path_factory.mktemp("trainings"))
    with Run(load_recipe(run / "recipe.yaml"), run) as opened:
        assert opened.train() == "scdpo"
        assert opened.train("scdpo", "lr1e-4", {"train.learning_rate": 1e-4}) == "lr1e-4"
    return run


@pytest.fixture
def run(paired: Path, tmp_path: Path) -> Path:
    """A copy of that run, for the test alone."""
    return Path(shutil.copytree(paired, tmp_path / "run"))


def report(run: Path, name: str) -> TrainingReport:
    path = run / "policies" / name / "report.json"
    return TrainingReport.model_validate_json(path.read_bytes())


def kept(run: Path, name: str) -> dict[str, Any]:
    """The settings in the manifest of a training."""
    manifest = json.loads((run / "policies" / name / "manifest.json").read_text())
    config: dict[str, Any] = manifest["config"]
    return config


# ---- several trainings


def test_trainings_are_kept_apart_and_share_the_reference(paired: Path) -> None:
    first, second = report(paired, "scdpo"), report(paired, "lr1e-4")
    assert first.references_computed == 2 * 6
    assert (second.references_computed, second.references_reused) == (0, 12)
    assert second.n_pairs == first.n_pairs == 6
    weights = {policy_hash(paired / "policies" / name / "policy") for name in ("scdpo", "lr1e-4")}
    assert len(weights) == 2
    assert set(kept(paired, "scdpo")) == {"train", "threads"}, "as runs of earlier versions have it"
    own = kept(paired, "lr1e-4")
    assert (own["method"], own["own"]) == ("scdpo", ["learning_rate"])
    assert own["train"] == kept(paired, "scdpo")["train"] | {"learning_rate": 1e-4}
    assert yaml.safe_load((paired / "recipe.yaml").read_text())["train"]["learning_rate"] == 1e-3


def test_the_pairs_of_a_training_are_exported_by_its_name(
    run: Path, tmp_path: Path, capsys: Capture
) -> None:
    by_name, by_method = tmp_path / "name.jsonl", tmp_path / "method.jsonl"
    succeed("export", run, "--out", by_name, "--name", "lr1e-4")
    succeed("export", run, "--out", by_method, "--method", "scdpo")
    assert by_name.read_text() == by_method.read_text() != ""
    assert fail(capsys, "export", run, "--out", by_name, "--name", "lr") == (
        f"{run}: no training 'lr'; its trainings: scdpo, lr1e-4"
    )
    assert fail(
        capsys, "export", run, "--out", by_name, "--name", "lr1e-4", "--method", "dpo"
    ).startswith("--method dpo: training lr1e-4 takes the pairs of scdpo")
    options = ("--out", by_name, "--name", "lr1e-4", "--as", "prm")
    assert fail(capsys, "export", run, *options).startswith("--method and --name choose pairs")


def test_no_log_prob_of_the_reference_is_written_again(run: Path) -> None:
    before = (run / "references.npz").stat().st_mtime_ns
    succeed("train", run, "--name", "beta", "--set", "train.beta=0.5")
    assert report(run, "beta").references_computed == 0
    assert (run / "references.npz").stat().st_mtime_ns == before


def test_a_training_goes_on_with_the_settings_that_it_has(run: Path) -> None:
    shutil.rmtree(run / "policies/lr1e-4/policy")
    manifest = run / "policies/lr1e-4/manifest.json"
    manifest.write_text(manifest.read_text().replace('"done"', '"running"'))
    (run / "policies/lr1e-4/report.json").unlink()
    with Run(load_recipe(run / "recipe.yaml"), run) as opened:
        assert opened.train(name="lr1e-4") == "lr1e-4"
        (line,) = [json.dumps(t.train["learning_rate"]) for t in opened.trainings().values()][1:]
    assert line == "0.0001"
    rates = (run / "policies/lr1e-4/log.jsonl").read_text()
    assert max(json.loads(row)["learning_rate"] for row in rates.splitlines()) == 1e-4


def test_names_and_settings_that_belong_to_another_training(run: Path, capsys: Capture) -> None:
    changed = fail(capsys, "train", run, "--name", "lr1e-4", "--set", "train.learning_rate=2e-4")
    assert changed == (
        f"{run}/policies/lr1e-4 was trained with other settings: train.learning_rate 0.0001 → "
        "0.0002; give this training a --name of its own, or do that one again with --redo"
    )
    assert 'method "scdpo" → "dpo"' in fail(
        capsys, "train", run, "--name", "lr1e-4", "--method", "dpo"
    )
    assert fail(capsys, "train", run, "--name", "dpo", "--method", "scdpo") == (
        "--name dpo: the training with --method dpo has that name"
    )
    assert fail(capsys, "train", run, "--name", "sft").startswith("--name sft: the initial policy")
    for name in ("a/b", "../x", "", "x" * 65, ".hidden"):
        if name:
            assert "letters, digits and _ . - only" in fail(capsys, "train", run, "--name", name)
    assert not (run / "policies/dpo").exists()
    with Run(load_recipe(run / "recipe.yaml"), run) as opened:
        with pytest.raises(InputError, match=r"^pairs\.seed: a training has settings of its own"):
            opened.train("dpo", "x", {"pairs.seed": 3})
        with pytest.raises(StoreError, match="was trained with other settings"):
            opened.train("scdpo", changes={"train.beta": 3})


def test_a_training_that_is_done_again_may_have_other_settings(
    run: Path, tmp_path: Path, capsys: Capture
) -> None:
    succeed("train", run, "--name", "lr1e-4", "--redo", "--set", "train.learning_rate=2e-4")
    assert kept(run, "lr1e-4")["train"]["learning_rate"] == 2e-4
    succeed("train", run, "--name", "lr1e-4", "--redo")
    assert kept(run, "lr1e-4")["train"]["learning_rate"] == 2e-4, "it keeps what it has"

    other = yaml.safe_load((run / "recipe.yaml").read_text())
    other["train"]["learning_rate"] = 5e-4
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(other))
    refused = fail(capsys, "train", run, "--recipe", path)
    assert refused == (
        f"{run} was started with another recipe: train.learning_rate 0.001 → 0.0005; use another "
        "folder, or give one training its own: scdpo train --name NAME --set KEY=VALUE"
    )
    succeed("train", run, "--recipe", path, "--redo")
    assert kept(run, "scdpo")["train"]["learning_rate"] == 5e-4
    assert kept(run, "lr1e-4")["train"]["learning_rate"] == 2e-4, "that is its own"
    other["train"]["beta"] = 0.3
    path.write_text(yaml.safe_dump(other))
    assert "train.beta 0.1 → 0.3" in fail(capsys, "train", run, "--recipe", path, "--redo"), (
        "the other training has the recipe's beta"
    )


def test_trainings_are_evaluated_and_reported_by_name(run: Path, capsys: Capture) -> None:
    assert fail(capsys, "evaluate", run, "--policy", "lr") == (
        "unknown policy 'lr'; known: sft, dpo, dpo_equal, scdpo, lr1e-4"
    )
    for policy in ("sft", "lr1e-4"):
        succeed("evaluate", run, "--policy", policy)
    capsys.readouterr()
    succeed("report", run, "--by", "dataset")
    out = capsys.readouterr().out
    assert "Accuracy by dataset" in out
    assert "lr1e-4: scdpo, learning_rate 0.0001." in out
    lines = [json.loads(line) for line in (run / "report.jsonl").read_text().splitlines()]
    assert [line["policy"] for line in lines] == ["sft", "lr1e-4"]
    assert lines[1]["pairs"] == 6
    assert lines[1]["vs_sft"] is not None
    succeed("compare", run / "evaluations/lr1e-4", run / "evaluations/sft")
    assert "lr1e-4" in capsys.readouterr().out


# ---- --set


def test_what_is_set_is_kept_unless_it_would_invalidate_rows(run: Path, capsys: Capture) -> None:
    before = (run / "recipe.yaml").read_text()
    message = fail(capsys, "pair", run, "--set", "pairs.seed=3", "--set", "sandbox.deadline=9")
    assert message == (
        f"{run} was started with another recipe: sandbox.deadline 20.0 → 9.0, pairs.seed 0 → 3; "
        "use another folder"
    )
    assert (run / "recipe.yaml").read_text() == before
    succeed("train", run, "--name", "other", "--set", "train.epochs=2")
    assert (run / "recipe.yaml").read_text() == before, "a training's own settings are its own"
    succeed("pair", run, "--redo", "--set", "pairs.seed=3")
    assert yaml.safe_load((run / "recipe.yaml").read_text())["pairs"]["seed"] == 3


def test_commands_that_take_a_recipe_take_changes(tmp_path: Path, capsys: Capture) -> None:
    succeed("recipe", "smoke", "--set", "train.lora.rank=4", "--set", "methods=[dpo]")
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["train"]["lora"]["rank"] == 4
    assert shown["methods"] == ["dpo"]
    for command in (
        ("run", "smoke"),
        ("recipe", "smoke"),
        ("sample", "x", "--recipe", "smoke"),
        ("branch", "x", "--recipe", "smoke"),
        ("pair", "x", "--recipe", "smoke"),
        ("train", "x", "--recipe", "smoke"),
        ("sft", "x", "--recipe", "smoke", "--out", "y"),
        ("sft", "x", "--recipe", "smoke"),
        ("sft", "--data", "f", "--policy", "embedded", "--recipe", "smoke", "--out", "y"),
        ("plan", "smoke"),
        ("evaluate", "x", "--recipe", "smoke"),
        ("evaluate", "--policy", "embedded", "--benchmarks", "gsm8k", "--recipe", "smoke"),
        ("import", "f", "--layout", "tora", "--out", "x", "--recipe", "smoke"),
    ):
        message = fail(capsys, *command, "--set", "sample.temprature=1")
        if "gsm8k" not in command:  # its file is looked for first
            assert message.startswith("--set: unknown key 'sample.temprature' (did you mean temp")
    message = fail(capsys, "make-policy", "embedded-policy", "--out", "x", "--set", "sft.lr=1")
    assert message.startswith("--set: unknown key 'sft.lr'")
    assert not Path("x").exists()


SETS: dict[str, tuple[list[str], str]] = {
    "no value": (["train.beta"], "--set 'train.beta': expected KEY=VALUE, such as train.learning_"),
    "no key": (["=1"], "--set '=1': expected KEY=VALUE"),
    "twice": (["train.beta=1", "train.beta=2"], "--set train.beta is given twice"),
    "no YAML": (["train.beta=[1"], "--set train.beta: '[1' is not YAML (expected ',' or ']'"),
    "unknown section": (["trian.beta=1"], "--set: unknown key 'trian' (did you mean train?)"),
    "below a text": (["policy.x=1"], "--set policy.x: policy is 'embedded' and has no keys; set"),
    "below a number": (
        ["branch.negatives.math=3"],
        "--set branch.negatives.math: branch.negatives is 1 and has no keys; set it as a whole",
    ),
    "out of range": (["train.beta=-1"], "--set: train.beta: input should be greater than 0"),
    "not a number": (["train.beta=x"], "--set: train.beta: input should be a valid number"),
    "no engine": (["engine.name=x"], "--set: unknown engine 'x'; known: local"),
    "two keys that do not fit": (["sample.rows=9999"], "--set: sample.rows needs 9999 sandbox"),
    "no preset": (["preset=x"], "--set: preset: input should be 'paper' or 'released-code'"),
}


@pytest.mark.parametrize("written_out", [False, True])
@pytest.mark.parametrize(("given", "message"), SETS.values(), ids=SETS)
def test_a_wrong_change_is_one_line(
    given: list[str], message: str, written_out: bool, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.yaml"
    changes = recipe(branch={"negatives": 1})
    path.write_text(dump_recipe(make_recipe(changes)) if written_out else yaml.safe_dump(changes))
    with pytest.raises(RecipeError) as error:
        load_recipe(path, parse_changes(given))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_seed_that_is_set_goes_where_the_recipes_went() -> None:
    """Also where every default is written out, as in the recipe of a run."""
    raw = recipe(seed=2, branch={"seed": 5})
    for data in (raw, make_recipe(raw).model_dump(mode="json")):
        made = make_recipe(data, changes={"seed": 7, "pairs.seed": 9})
        stages = (made, made.sample, made.branch, made.pairs, made.train)
        assert [stage.seed for stage in stages] == [7, 7, 5, 9, 7]


def test_a_preset_that_is_set_has_an_effect_or_is_refused() -> None:
    made = make_recipe(recipe(), changes={"preset": "released-code"})
    assert made.branch.schedule.increment == 0.1
    with pytest.raises(RecipeError, match=r"writes out every setting of its preset \(paper\)"):
        make_recipe(made.model_dump() | {"preset": "paper"}, changes={"preset": "released-code"})


def test_a_section_that_is_set_is_merged_and_what_is_none_can_get_keys() -> None:
    data = recipe(train={"lora": {"rank": 4, "alpha": 8}}, branch={"negatives": {"default": 2}})
    changes = {
        "train": {"beta": 0.5, "lora": {"rank": 2}},
        "branch.negatives.math": 3,
        "sample.limits": {"context": 100},
        "engine.max_rows": 7,
    }
    made = make_recipe(data, changes=changes)
    assert made.train.lora is not None
    assert (made.train.beta, made.train.lora.rank, made.train.lora.alpha) == (0.5, 2, 8)
    assert made.train.learning_rate == data["train"]["learning_rate"]
    assert made.branch.negatives == {"default": 2, "math": 3}
    assert (made.sample.limits.context, made.sample.limits.max_steps) == (100, 8)


# ---- said in time


def test_the_only_step_of_a_training_has_a_learning_rate(tmp_path: Path) -> None:
    policy = make_policy(tmp_path / "policy")
    settings: dict[str, Any] = {"learning_rate": 1e-3, "batch_size": 2, "micro_batch_size": 2}
    before = file_hash(policy / "model.safetensors")
    for n, rates in ((2, [1e-3]), (4, [0.0, 1e-3])):
        out = tmp_path / str(n)
        train(policy, [make_pair(i) for i in range(n)], out, epochs=1, **settings)
        log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        assert [row["learning_rate"] for row in log] == rates
        assert file_hash(out / "policy/model.safetensors") != before


@pytest.mark.parametrize("adapter", [False, True])
def test_a_training_that_changes_nothing_is_refused(adapter: bool, tmp_path: Path) -> None:
    if adapter:
        pytest.importorskip("peft", reason="peft is an extra")
    policy = make_policy(tmp_path / "policy")
    steps = make_pair(0).chosen
    pairs = [make_pair(i, chosen=steps, rejected=steps) for i in range(4)]
    settings: dict[str, Any] = {"batch_size": 2, "micro_batch_size": 2, "epochs": 1}
    for _ in range(2):  # also when it is found done
        with pytest.raises(InputError, match=r"is the initial policy, bit for bit: 2 optimizer"):
            lora = {"rank": 2} if adapter else None
            train(policy, pairs, tmp_path / "out", learning_rate=1e-3, lora=lora, **settings)
    assert (tmp_path / "out/policy/model.safetensors").exists()


UNFINISHED = {"finish": "context", "answer": None, "verdict": undecided("unfinished: context")}
LACKING: dict[str, tuple[list[Solution], str]] = {
    "both": ([solution(0, 0), solution(0, 1, WRONG)], ""),
    "all wrong": (
        [solution(0, n, WRONG) for n in range(3)],
        "no question has a preferred solution, so there are no pairs: 3 solutions of 1 questions, "
        "3 dispreferred; fine-tune the policy first (scdpo sft), take easier problems, or raise "
        "sample.max_attempts (2)",
    ),
    "all right": (
        [solution(n, 0) for n in range(3)],
        "no question has a dispreferred solution, so there are no pairs: 3 solutions of 3 "
        "questions, 3 preferred; take harder problems, or raise sample.temperature (1) or "
        "sample.max_attempts (2)",
    ),
    "on different questions": (
        [solution(0, 0), solution(1, 0, WRONG)],
        "no question has both kinds of solutions, so there are no pairs: 2 solutions of 2 "
        "questions, 1 preferred, 1 dispreferred; raise sample.max_attempts (2)",
    ),
    "cut": (
        [solution(0, 0, **UNFINISHED), solution(0, 1, **UNFINISHED), solution(0, 2, WRONG)],
        "2 unfinished; they were cut before their end: raise sample.limits, or let format.end",
    ),
    "undecided": (
        [solution(0, 0, undecided("no answer"))],
        "1 undecided; their answers cannot be judged: is format the one that the policy writes?",
    ),
    "flagged": (
        [solution(0, 0, flags=("error_word:error",))],
        "right ones are flagged error_word:error, which keeps them from pairs",
    ),
}


@pytest.mark.parametrize(("solutions", "message"), LACKING.values(), ids=LACKING)
def test_solutions_of_which_no_pair_can_come(solutions: list[Solution], message: str) -> None:
    found = solutions_lack(solutions, make_recipe(recipe()))
    assert message in found
    assert bool(found) == bool(message)


def test_sets_without_pairs_say_what_became_of_the_solutions() -> None:
    made = make_recipe(recipe(pairs={"heldout_share": 0.25}))
    assert pairs_lack("naive", {"pairs": 3, "heldout_pairs": 2}, made) == ""
    assert pairs_lack("naive", {"pairs": 2, "heldout_pairs": 2}, made) == (
        "no naive pairs to train on: all 2 are held out; lower pairs.heldout_share (0.25)"
    )
    counts = {"branches": 12, "correct": 10, "prefix_differs": 2, "pairs": 0, "heldout_pairs": 0}
    assert pairs_lack("step_controlled", counts, made) == (
        "no step-controlled pairs to train on: 12 continuations, 10 correct, 2 prefix_differs; "
        "raise branch.max_attempts (2) or branch.schedule (1.1 to 1.4)"
    )


def test_a_whole_run_stops_where_nothing_can_be_trained_on(tmp_path: Path, capsys: Capture) -> None:
    source = write_tiny_recipe(tmp_path)
    wrong = make_run(tmp_path / "wrong", source, [solution(n, 0, WRONG) for n in range(3)])
    assert fail(capsys, "run", source, "--out", wrong).startswith(
        f"{wrong}: no question has a preferred solution, so there are no pairs: 3 solutions of 3"
    )
    assert not (wrong / "branches").exists()
    succeed("sample", wrong)
    err = capsys.readouterr().err
    assert "warning   no question has a preferred solution" in err
    assert f"next      scdpo show {wrong}" in err

    held = write_tiny_recipe(tmp_path, pairs={"heldout_share": 1 - 1e-9})
    rows = [solution(0, 0), solution(0, 1, WRONG)]
    out = make_run(tmp_path / "held", held, rows, [branch(0, 0)])
    assert fail(capsys, "run", held, "--out", out) == (
        f"{out}: dpo has no naive pairs to train on: all 1 are held out; lower "
        "pairs.heldout_share (1)"
    )
    assert not (out / "policies").exists()
