"""Fine-tuning on one's own data: on its own, and as the first stage of a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from scdpo.cli.app import policy_in_words
from scdpo.errors import InputError
from scdpo.pairs import PairConfig, naive_pairs
from scdpo.pipeline.finetuning import FineTuning, fine_tuning_recipe
from scdpo.pipeline.recipe import make_recipe
from scdpo.pipeline.run import Run
from scdpo.pipeline.services import Silent
from scdpo.pipeline.trained import FineTunedPolicy
from scdpo.policies import add_tokens, load_policy, load_tokenizer, policy_hash, save_policy
from scdpo.records import Pair, Solution
from scdpo.training.sft_config import SFTReport
from scdpo.training.supervised import sft
from scdpo.waiting import Progress, silent
from small_runs import LIMITS, fail, recipe, succeed, write_recorded
from tiny_pairs import make_policy


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from threads that share busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Questions and solutions in words that the tiny policy knows."""
    file = tmp_path / "rows.jsonl"
    rows = [{"question": f"w{n} w1", "solution": f"w2 w{n}\nw5"} for n in range(12)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def settings(policy: Path, data: Path, **changes: Any) -> dict[str, Any]:
    return {
        "policy": str(policy),
        "threads": 1,
        "format": {"name": "plain", "template": "{question}\n"},
        "sft": {
            "data": {"path": str(data)},
            "epochs": 3,
            "batch_size": 4,
            "micro_batch_size": 4,
            "learning_rate": 5e-3,
            "heldout_share": 0.2,
            "save_steps": 1,
        }
        | changes,
        "evaluate": {"limits": {"max_steps": 2, "step_tokens": 4, "context": 64}},
    }


def tuned(path: Path, config: dict[str, Any], out: Path, watcher: Any = None) -> SFTReport:
    file = path / "recipe.yaml"
    file.write_text(yaml.safe_dump(config))
    with FineTuning(fine_tuning_recipe(str(file)), out, watcher or Silent()) as tuning:
        return tuning.run()


class Stopping(Silent):
    """Stops the training, as Ctrl-C does, after a number of steps."""

    def __init__(self, step: int):
        self.step = step

    def progress(self, name: str) -> Progress:
        def report(done: int, total: int) -> None:
            if done >= self.step:
                raise KeyboardInterrupt

        return report if name == "sft" else silent


def test_a_training_that_is_stopped_and_resumed_gives_the_same_policy(
    policy: Path, data: Path, tmp_path: Path
) -> None:
    config = settings(policy, data)
    whole = tuned(tmp_path, config, tmp_path / "whole")
    assert whole.n_examples + whole.n_heldout == 12
    assert whole.n_heldout
    assert [loss.epochs for loss in whole.heldout] == [0, 1, 2, 3]
    assert whole.heldout[-1].loss < whole.heldout[0].loss
    for step in (whole.steps // 2, whole.steps):
        with pytest.raises(KeyboardInterrupt):
            tuned(tmp_path, config, tmp_path / f"{step}", Stopping(step))
        again = tuned(tmp_path, config, tmp_path / f"{step}")
        assert again.heldout == whole.heldout
        assert policy_hash(tmp_path / f"{step}" / "policy") == policy_hash(whole.policy)
    before = policy_hash(whole.policy)
    assert tuned(tmp_path, config, tmp_path / "whole") == whole
    assert policy_hash(whole.policy) == before


def test_held_out_questions_are_not_trained_on(policy: Path, data: Path, tmp_path: Path) -> None:
    """Every solution of a question is held out with it."""
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    twice = rows + [row | {"solution": "w7 w7\nw5"} for row in rows]
    data.write_text("".join(json.dumps(row) + "\n" for row in twice))
    report = tuned(tmp_path, settings(policy, data, epochs=1), tmp_path / "out")
    assert report.n_heldout % 2 == 0
    assert 0 < report.n_heldout < 24


def test_the_best_epoch_is_kept(policy: Path, data: Path, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"question": "w1 w1", "answer": "7"}) + "\n")
    config = settings(policy, data, keep_best=True, learning_rate=5.0)
    config["problems"] = {"validation": {"source": "jsonl", "path": str(questions)}}
    report = tuned(tmp_path, config, tmp_path / "out")
    losses = {loss.epochs: loss.loss for loss in report.heldout if loss.epochs}
    best = min(losses, key=lambda epoch: losses[epoch])
    assert best < 3, losses  # at such a learning rate it gets worse
    assert not (tmp_path / "out" / "epochs").exists()
    # The policy that was kept has the loss of the best epoch.
    after = tuned(tmp_path, settings(tmp_path / "out" / "policy", data), tmp_path / "next")
    assert after.heldout[0].loss == pytest.approx(losses[best], rel=1e-5)
    assert tuned(tmp_path, config, tmp_path / "out") == report
    with pytest.raises(InputError, match=r"sft\.keep_best needs questions to choose on"):
        tuned(tmp_path, settings(policy, data, keep_best=True), tmp_path / "none")


# ---- tokens


@pytest.mark.parametrize("tied", [False, True])
def test_new_tokens_start_as_the_mean(policy: Path, tied: bool, tmp_path: Path) -> None:
    loaded = load_policy(policy, device="cpu")
    if tied:
        loaded.model.config.tie_word_embeddings = True
        loaded.model.tie_weights()
    before = loaded.model.get_input_embeddings().weight.detach().clone()
    ids = add_tokens(loaded, ["<|a|>", "<eos>", "<|b|>", "<|a|>"])
    assert ids == (len(before), len(before) + 1)
    assert add_tokens(loaded, ["<|a|>"]) == ()
    assert loaded.encode("w1 <|a|>w2<|b|>") == (1, ids[0], 2, ids[1])
    inputs = loaded.model.get_input_embeddings().weight
    outputs = loaded.model.get_output_embeddings().weight
    assert torch.equal(inputs[: len(before)], before)
    assert torch.allclose(inputs[list(ids)], before.mean(0))
    assert (inputs is outputs) == tied
    assert torch.allclose(outputs[ids[0]], outputs[: len(before)].mean(0))
    save_policy(loaded, tmp_path)
    again = load_policy(tmp_path, device="cpu")
    assert torch.equal(again.model.get_output_embeddings().weight, outputs)
    assert again.decode(ids) == "<|a|> <|b|>"


@pytest.mark.parametrize("packed", [None, 64])
def test_an_adapter_trains_the_new_tokens_alone(
    policy: Path, packed: int | None, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    loaded = load_policy(policy, device="cpu")
    ids = add_tokens(loaded, ["<|a|>", "<|b|>"])
    loaded.model.config.attention_dropout = 0.0  # rows cannot be packed with it
    base = tmp_path / "base"
    save_policy(loaded, base)
    counts = [False, False, True, True, True, True]
    examples = [([n, 9, ids[0], 30, ids[1], 31], counts) for n in range(8)]
    report = sft(
        base,
        examples,
        tmp_path / "out",
        heldout=examples[:2],
        new_tokens=ids,
        keep_epochs=True,
        epochs=2,
        batch_size=4,
        micro_batch_size=4,
        learning_rate=1e-2,
        lora={"rank": 2},
        pack_length=packed,
    )
    after = load_policy(report.policy, device="cpu").model
    for name in ("get_input_embeddings", "get_output_embeddings"):
        old, new = getattr(loaded.model, name)().weight, getattr(after, name)().weight
        moved = (old != new).any(dim=1).nonzero().flatten().tolist()
        assert moved == list(ids), name
    # Merged, the policy computes what was trained; so does that of the first epoch.
    kept = {1: report.epochs[1], 2: report.policy}
    for epoch, path in kept.items():
        again = sft(
            path, examples, tmp_path / f"again{epoch}", heldout=examples[:2], epochs=1, batch_size=8
        )
        assert again.heldout[0].loss == pytest.approx(report.heldout[epoch].loss, rel=1e-4)


def test_markers_are_added_for_blocks(policy: Path, data: Path, tmp_path: Path) -> None:
    config = settings(policy, data) | {"format": {"name": "blocks", "system": ""}}
    with pytest.raises(InputError, match="add_tokens"):
        tuned(tmp_path, config, tmp_path / "without")
    config["sft"] |= {"add_tokens": True, "epochs": 1}
    report = tuned(tmp_path, config, tmp_path / "with")
    tokenizer = load_tokenizer(report.policy)
    assert len(tokenizer("<|text|><|endofmessage|>", add_special_tokens=False)["input_ids"]) == 2
    rows = (tmp_path / "with" / "demonstrations" / "rows-00000.jsonl").read_text().splitlines()
    assert "<|user|><|text|>w0 w1<|endofblock|>" in Solution.model_validate_json(rows[0]).prompt
    assert not (tmp_path / "with" / "initial").exists()
    assert report.policy == tuned(tmp_path, config, tmp_path / "with").policy


# ---- in a run


def test_a_run_begins_with_fine_tuning(tmp_path: Path) -> None:
    file = tmp_path / "gsm8k.jsonl"
    worked = "2 plus 2 is 2+2 = <<2+2=4>>4.\n#### 4"
    file.write_text(json.dumps({"question": "What is 2 plus 2?", "answer": worked}) + "\n")
    section = {"data": {"path": str(file), "layout": "gsm8k"}, "epochs": 1, "batch_size": 1}
    section |= {"micro_batch_size": 1}
    one = {"train": {"source": "embedded", "split": "train", "limit": 1}}
    made = make_recipe(recipe(sft=section, problems=one))
    assert policy_in_words(made, tmp_path / "run") == f"embedded, not yet fine-tuned on {file}"
    with Run(made, tmp_path / "run") as run:
        with pytest.raises(InputError, match="sft is missing; run `scdpo sft` first"):
            run.sample()
        run.fine_tune()
        tuned = f"{tmp_path / 'run' / 'sft' / 'policy'}, fine-tuned from embedded"
        assert policy_in_words(made, tmp_path / "run") == tuned
        assert run.initial_policy == str(tmp_path / "run" / "sft" / "policy")
        run.sample()
        stages = {m.stage: m for m in run.manifests()}
        (row,) = run.stage("sft").rows(FineTunedPolicy)
        (taught,) = run.stage("demonstrations").rows(Solution)
        (sampled, *_) = run.stage("solutions").rows(Solution)
    assert [name for name in stages if "/" not in name] == ["demonstrations", "sft", "solutions"]
    assert stages["demonstrations"].inputs["policy"] == policy_hash("embedded")
    assert stages["sft"].inputs["policy"] == policy_hash("embedded")
    assert stages["solutions"].inputs["policy"] == row.weights != policy_hash("embedded")
    assert row.n_examples == 1
    assert taught.text.startswith("<|text|>2 plus 2 is 2+2.<|endofblock|><|code|>a = 2 + 2\na<|end")
    assert taught.prompt.replace(taught.question, "?") == sampled.prompt.replace(
        sampled.question, "?"
    )
    with Run(made, tmp_path / "run") as run:  # done, so nothing happens
        run.fine_tune()
        assert {m.stage: m for m in run.manifests()} == stages


def test_data_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name with one slash may be on the hub; either way it is said what was not found."""
    file = tmp_path / "r.yaml"
    config = recipe(sft={"data": {"path": "dta/gsm8k", "layout": "gsm8k"}})
    file.write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "datasets", None)
        said = fail(capsys, "sft", tmp_path / "run", "--recipe", file, "--prepare")
    assert said == (
        "dta/gsm8k: no such file or folder; to read it as a data set on the hub, datasets is not "
        "installed: pip install 'scdpo[datasets]'"
    )
    assert not (tmp_path / "run").exists(), "nothing was made"


# ---- imports


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the embedded policy with imported solutions, right and wrong, and branches."""
    path = tmp_path_factory.mktemp("imported")
    file = Path(write_recorded(path / "apples.jsonl", 2))
    limits = LIMITS | {"max_steps": 3, "step_tokens": 16}
    branch = {"negatives": 1, "max_attempts": 1, "chunk": 4, "limits": limits}
    with Run(make_recipe(recipe(branch=branch)), path / "run") as run:
        run.import_solutions(file, "tora", "apples")
        run.branch()
    return path / "run"


def solutions(run: Path, stage: str) -> list[Solution]:
    lines = (run / stage / "rows-00000.jsonl").read_text().splitlines()
    return [Solution.model_validate_json(line) for line in lines]


def test_imports_are_in_the_runs_own_format(imported: Path) -> None:
    rows = solutions(imported, "imports/apples")
    assert [row.side() for row in rows] == ["chosen", "rejected"] * 2
    for row in rows:
        assert row.format == "blocks"
        question = f"<|user|><|text|>{row.question}<|endofblock|><|endofmessage|><|assistant|>"
        assert row.prompt == question
        assert row.text.startswith("<|text|>There are ")
        assert row.text.endswith("}$.<|endofblock|><|endofmessage|>")
        assert row.prompt_ids == load_policy("embedded", device="cpu").encode(question, start=True)


def test_an_imported_right_solution_is_preferred_to_a_sampled_wrong_one(imported: Path) -> None:
    right, wrong, *_ = solutions(imported, "imports/apples")
    ids = {"token_ids": (5,), "mean_logp": -1.0}
    steps = tuple(step.model_copy(update=ids) for step in wrong.steps)
    sampled = wrong.model_copy(update={"id": "sampled#0", "policy": "sft", "steps": steps})
    (pair,) = naive_pairs([sampled, right], PairConfig(heldout_share=0)).pairs
    assert (pair.chosen_id, pair.rejected_id) == (right.id, "sampled#0")


def test_imported_parents_are_continued(imported: Path) -> None:
    parents = {row.id: row for row in solutions(imported, "imports/apples")}
    branches = solutions(imported, "branches")
    assert {branch.parent for branch in branches} == {
        name for name, row in parents.items() if row.side() == "chosen"
    }
    for branch in branches:
        assert branch.parent is not None
        parent = parents[branch.parent]
        assert branch.steps[: branch.branch_step] == parent.steps[: branch.branch_step]
        assert branch.prompt_ids == parent.prompt_ids
        assert all(step.token_ids for step in branch.steps[branch.branch_step :])


def test_an_import_after_branching_changes_nothing(imported: Path, tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(imported, run)
    before = (run / "branches" / "rows-00000.jsonl").read_bytes()
    late = write_recorded(tmp_path / "late.jsonl", 1)
    succeed("import", late, "--layout", "tora", "--out", run)
    succeed("branch", run)
    assert (run / "branches" / "rows-00000.jsonl").read_bytes() == before
    succeed("pair", run)
    with Run(make_recipe(yaml.safe_load((run / "recipe.yaml").read_text())), run) as opened:
        assert [p.prompt for p in opened.stage("pairs/naive").rows(Pair)]


def test_an_import_of_before_imports_took_the_runs_format_still_opens(
    imported: Path, tmp_path: Path
) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(imported, run)
    shutil.rmtree(run / "branches")
    manifest = run / "imports" / "apples" / "manifest.json"
    old = json.loads(manifest.read_text())
    del old["config"]["format"]
    manifest.write_text(json.dumps(old))
    changed = yaml.safe_load((run / "recipe.yaml").read_text())
    changed["evaluate"]["rows"] = 7
    file = write_recorded(tmp_path / "apples.jsonl", 2)
    with Run(make_recipe(changed), run) as opened:
        assert opened.import_solutions(Path(file), "tora", "apples").rows == 4


def test_what_the_runs_format_cannot_hold_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_recorded(tmp_path / "apples.jsonl", 1)
    plain = tmp_path / "plain.yaml"
    plain.write_text(yaml.safe_dump(recipe() | {"format": {"name": "plain"}}))
    options = ("--layout", "tora", "--out", tmp_path / "run", "--recipe", plain)
    said = fail(capsys, "import", file, *options)
    assert "no solution that format 'plain' can hold: 2 code in a format without code" in said


# ---- the command


def test_the_command_without_a_run(
    policy: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "r.yaml"
    config = settings(policy, data, epochs=1)
    del config["policy"]
    config["sft"]["data"] = {"path": "elsewhere.jsonl", "limit": 8}
    file.write_text(yaml.safe_dump(config))
    options = ("--policy", policy, "--data", data, "--recipe", file, "--out", tmp_path / "out")
    succeed("sft", *options, "--prepare", "--set", "sft.max_length=5")
    said = capsys.readouterr().err
    assert "8 of 8 rows used" in said
    assert (
        "sft       trains on 0 of 4 solutions (0 tokens), not on 4 with more than 5 tokens "
        "(max_length); 4 held out"
    ) in said
    assert not (tmp_path / "out" / "policy").exists()
    succeed("sft", *options)
    said = capsys.readouterr().err
    assert said.index("sft       trains on 4 of 4 solutions") < said.index("sft: 1 of 1")
    assert (tmp_path / "out" / "policy" / "model.safetensors").exists()
    data.write_text(data.read_text().replace("w5", "w6"))
    assert "started with other values: input rows.jsonl" in fail(capsys, "sft", *options)
    succeed("sft", *options, "--redo")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sft"], "expected a run folder, or --data and --out; found neither"),
        (["sft", "run", "--data", "x"], "--data applies only without a run folder"),
        (["sft", "--data", "x", "--out", "o"], "--recipe is needed"),
        (["sft", "--recipe", "smoke", "--out", "o"], "no data to fine-tune on"),
        (
            ["sft", "--recipe", "smoke", "--out", "o", "--data", "x", "--layout", "y"],
            "sft.data.layout: input should be 'question-solution'",
        ),
        (["sft", "--recipe", "smoke", "--out", "o", "--data", "x"], "x: no such file or folder"),
    ],
)
def test_a_command_that_lacks_something(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert said in fail(capsys, *arguments)
