"""What a run hands on: model cards, uploads to the hub, step labels."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from hub_server import TOKEN, hub_server
from scdpo.pairs import PairConfig, step_labels
from scdpo.pipeline.recipe import load_recipe
from scdpo.pipeline.run import Run
from scdpo.policies import policy_hash
from scdpo.records import CORRECT, WRONG, Solution, Step, undecided
from scdpo.training import sft, train
from scdpo.training.card import policy_label, read_card, with_section
from small_runs import fail, succeed, write_recipe, write_recorded
from tiny_pairs import make_pair, make_policy

Capture = pytest.CaptureFixture[str]


# ---- model cards


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one trained policy, made of recorded solutions, and its evaluations."""
    folder = tmp_path_factory.mktemp("sharing")
    path = folder / "run"
    recipe = write_recipe(folder / "r.yaml", pairs={"heldout_share": 0})
    rows = write_recorded(folder / "rows.jsonl", 4)
    with Run(load_recipe(recipe), path) as made:
        made.import_solutions(Path(rows), "tora", "gsm8k")
        made.pair()
        made.train("dpo")
        made.evaluate("dpo")
        made.evaluate("sft")
        made.report()
    return path


def card_of(path: Path) -> ModelCard:
    return ModelCard.load(path / "README.md")


def test_a_run_writes_what_it_knows_into_the_card(run: Path) -> None:
    card = card_of(run / "policies/dpo/policy")
    assert card.text.startswith("\n# DPO\n")
    sections = [line for line in card.text.splitlines() if line.startswith("## ")]
    wanted = ["Base policy", "Evaluation", "Method", "Data", "Problems", "Settings"]
    assert sections == [f"## {name}" for name in wanted]
    assert "`embedded`" in card.text
    assert "4 naive and 0 step-controlled pairs" in card.text
    assert "| gsm8k | 4 | 4 | 0 |" in card.text
    assert "- 8 recorded solutions of gsm8k" in card.text
    assert "learning_rate: 2.0e-05" in card.text
    assert str(run.parent) not in str(card)
    [found] = card.data.eval_results
    report = json.loads((run / "report.jsonl").read_text().splitlines()[-1])
    assert found.metric_value == report["accuracy"]
    assert (found.metric_args["n"], found.metric_args["high"]) == (2, round(report["high"], 4))
    # SFT was evaluated after it, and the difference is there all the same.
    assert found.metric_args["vs_sft"]["p"] == 1
    assert "| embedded | test | 2 |" in card.text


def test_a_card_does_not_change_the_hash(run: Path) -> None:
    rows = (run / "policies/dpo/rows-00000.jsonl").read_text()
    assert json.loads(rows)["weights"] == policy_hash(run / "policies/dpo/policy")


def test_measuring_a_policy_adds_to_its_card(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    shutil.copytree(run / "policies/dpo/policy", folder)
    row = {"question": "What is 1 + 1?", "answer": "2"}
    (tmp_path / "own.jsonl").write_text(json.dumps(row) + "\n")
    measure = ["evaluate", "--policy", folder, "--benchmarks", "jsonl", "--recipe", "embedded"]
    measure += ["--data", f"jsonl={tmp_path / 'own.jsonl'}", "--out", tmp_path / "out"]
    succeed(*measure)
    known, added = card_of(folder).data.eval_results
    assert known.dataset_name == "embedded"
    assert (added.dataset_name, added.metric_args["n"]) == ("jsonl", 1)


@pytest.mark.parametrize("text", ["# Mine\n", "---\ntags: [dpo]\n---\n# Mine\n", "---\n: :\n---\n"])
def test_a_card_that_somebody_else_wrote_is_not_ours_to_change(text: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text)
    assert read_card(tmp_path) is None


def test_cards_of_trainings_in_python(tmp_path: Path) -> None:
    base = make_policy(tmp_path / "base")
    examples = [([1, 2, 3, 63], [False, True, True, True])] * 2
    sft(base, examples, tmp_path / "sft", epochs=1, batch_size=2)
    tuned = tmp_path / "sft" / "policy"
    card = card_of(tuned)
    assert card.data.tags == ["scdpo", "sft"]
    assert card.data.get("base_model") is None
    assert "| given as token ids | 2 |" in card.text
    card.data["base_model"] = "owner/base"
    card.save(tuned / "README.md")
    pairs = [make_pair(i, branch=i % 2) for i in range(4)]
    train(tuned, pairs, tmp_path / "dpo", epochs=1, batch_size=4, learning_rate=1e-3)
    card = card_of(tmp_path / "dpo" / "policy")
    assert card.data.tags == ["scdpo", "dpo"]
    assert card.data["base_model"] == "owner/base"  # the hub knows no local folder
    assert "2 naive and 2 step-controlled pairs" in card.text


def test_sections_are_replaced_and_the_rest_is_kept() -> None:
    before = "\n# A\n\n## X\n\nx\n\nMy own words.\n\n## Z\n\nz\n"
    assert with_section(before, "X", "new") == "\n# A\n\n## X\n\nnew\n\n## Z\n\nz\n"
    assert with_section(before, "Y", "y", before="Z") == before.replace("## Z", "## Y\n\ny\n\n## Z")
    assert with_section(before, "Q", "q") == f"{before}\n## Q\n\nq\n"


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("owner/model", "owner/model"),
        ("/home/ann/run/policies/scdpo/policy", "scdpo"),
        ("/cache/models--owner--some-model/snapshots/abc", "owner/some-model"),
        ("LlamaForCausalLM", "LlamaForCausalLM"),
    ],
)
def test_names_of_base_policies(name: str, label: str) -> None:
    assert policy_label(name) == label


# ---- the hub


def push(endpoint: str, *arguments: object, token: str | None = TOKEN) -> tuple[int, str, str]:
    """`scdpo push` in a process of its own, since the hub's address is read on import."""
    hidden = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE")
    env = {key: value for key, value in os.environ.items() if key not in hidden}
    env |= {"HF_ENDPOINT": endpoint, "HF_HOME": "/nonexistent", "HF_HUB_DISABLE_XET": "1"}
    if token is not None:
        env["HF_TOKEN"] = token
    done = subprocess.run(
        [sys.executable, "-m", "scdpo", "push", *map(str, arguments)],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert TOKEN not in done.stdout + done.stderr
    return done.returncode, done.stdout, done.stderr


def test_a_policy_is_pushed_whole(run: Path) -> None:
    folder = run / "policies/dpo/policy"
    with hub_server() as hub:
        code, _, err = push(hub.endpoint, run, "--policy", "dpo", "--to", "ann/try", "--private")
        assert code == 0, err
        assert f"{hub.endpoint}/ann/try/commit/1" in err
        assert hub.private == {"ann/try": True}
        pushed = hub.repositories["ann/try"]
        assert pushed.keys() == {file.name for file in folder.iterdir()}
        for name in pushed.keys() - {"README.md"}:
            assert pushed[name] == (folder / name).read_bytes()
        card = ModelCard(pushed["README.md"].decode())
        assert card.data.model_name == "try"
        assert card.text == card_of(folder).text
        # The same repository again: it is not made twice, and it may not turn out to be public.
        assert push(hub.endpoint, folder, "--to", "ann/try")[0] == 0
        assert hub.calls.count("POST /api/repos/create") == 1
        hub.private["ann/try"] = False
        code, _, err = push(hub.endpoint, folder, "--to", "ann/try", "--private")
        assert code == 2
        assert err.endswith(
            "scdpo: --private: ann/try exists and is public; make it private on the hub, or choose"
            " another name\n"
        )


@pytest.mark.parametrize(
    ("token", "reachable", "message"),
    [
        (None, True, "no token for the Hugging Face hub: set HF_TOKEN, or run `hf auth login`"),
        ("hf_wrong", True, "ann/try: not pushed: Invalid credentials in Authorization header"),
        (TOKEN, False, "ann/try: not pushed: [Errno 111] Connection refused"),
    ],
)
def test_a_push_that_fails_says_why_in_one_line(
    run: Path, token: str | None, reachable: bool, message: str
) -> None:
    with hub_server() as hub:
        endpoint = hub.endpoint if reachable else "http://127.0.0.1:9"
        code, _, err = push(endpoint, run, "--policy", "dpo", "--to", "ann/try", token=token)
        assert (code, err.splitlines()[-1]) == (2, f"scdpo: {message}")
        assert not hub.repositories


def test_what_cannot_be_pushed(run: Path, tmp_path: Path, capsys: Capture) -> None:
    names = "trained policies of this run: dpo"
    assert fail(capsys, "push", run, "--to", "a/b") == f"{run}: --policy is needed; {names}"
    assert fail(capsys, "push", run, "--to", "a/b", "--policy", "scdpo") == (
        f"{run}: no trained policy 'scdpo'; {names}"
    )
    assert fail(capsys, "push", tmp_path, "--to", "a/b") == (
        f"{tmp_path}: no run, training or policy folder"
    )
    assert fail(capsys, "push", run / "policies/dpo", "--to", "name").startswith("--to name: ")


# ---- step labels


def solution(n: int, steps: str, verdict: str, **changes: object) -> Solution:
    """A solution whose steps are single letters."""
    named = {"right": CORRECT, "wrong": WRONG, "open": undecided("no")}
    fields: dict[str, object] = {
        "id": f"s{n}",
        "problem_id": "q",
        "dataset": "d",
        "question": "?",
        "format": "plain",
        "policy": "sft",
        "prompt": "Q: ?\n",
        "steps": tuple(Step(kind="text", text=f"{letter}\n") for letter in steps),
        "finish": "finished",
        "answer": "1",
        "verdict": named[verdict],
        "attempt": n,
        "seed": n,
    }
    return Solution.model_validate(fields | changes)


TREE = [
    solution(0, "abcd", "right"),
    solution(1, "xyz", "wrong"),
    solution(2, "abef", "wrong", parent="s0", branch_step=2),
    solution(3, "abeg", "right", parent="s0", branch_step=2),
    solution(4, "abhi", "wrong", parent="s0", branch_step=2),
    solution(5, "abhj", "open", parent="s0", branch_step=2),
    solution(6, "abk", "wrong", parent="s0", branch_step=2, finish="max_steps"),
    solution(7, "abcd", "right"),
]
NOTHING_HELD_OUT = PairConfig(heldout_share=0)


def test_only_labels_that_are_known() -> None:
    made = step_labels(TREE, NOTHING_HELD_OUT)
    found = {"".join(row["completions"]): row for row in made.rows}
    assert {key: row["labels"] for key, row in found.items()} == {
        "abcd": [True] * 4,
        "abeg": [True] * 4,
        "x\ny\nz": [False],
        "abef": [True, True, True, False],  # step e also leads to a right answer
        "abh\ni": [True, True, False],
    }
    assert found["abef"]["right"] == [2, 2, 1, 0]
    assert found["abef"]["tried"] == [4, 4, 2, 1]
    assert found["abh\ni"]["tried"] == [4, 4, 1]
    assert (made.right, made.wrong, made.unlabelled) == (2, 3, 3)
    assert all(row["prompt"] == "Q: ?\n" for row in made.rows)


def test_estimated_labels_part_the_rest() -> None:
    made = step_labels(TREE, NOTHING_HELD_OUT, "estimated")
    found = {"".join(row["completions"]): row["labels"] for row in made.rows}
    assert found["abhi"] == [True, True, False, False]
    assert found["xyz"] == [False] * 3
    assert made.unlabelled == 0


def test_held_out_questions_have_no_labels() -> None:
    assert step_labels(TREE, PairConfig(heldout_share=0.999999)).rows == []


def test_step_labels_are_read_as_trl_wants_them(run: Path, tmp_path: Path) -> None:
    from datasets import Dataset, Value

    out = tmp_path / "prm.jsonl"
    succeed("export", run, "--as", "prm", "--out", out)
    data = Dataset.from_list([json.loads(line) for line in out.read_text().splitlines()])
    assert data.features["completions"].feature == Value("string")
    assert data.features["labels"].feature == Value("bool")
    assert data.features["prompt"] == Value("string")
    assert len(data) == 8
    assert all(len(row["completions"]) == len(row["labels"]) for row in data)
    assert [row["labels"] for row in data] == [[True, True, True], [True, False]] * 4


def test_pairs_are_exported_by_default(run: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "dpo.jsonl"
    succeed("export", run, "--method", "dpo", "--out", out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [set(row) for row in rows] == [{"prompt", "chosen", "rejected"}] * 4
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "recipe.yaml").write_text((run / "recipe.yaml").read_text())
    assert fail(capsys, "export", empty, "--as", "prm", "--out", out).startswith(
        f"{empty}: no right or wrong solutions to label"
    )
