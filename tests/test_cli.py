"""The console script: what it prints, and one line with exit code 2 for whatever is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from scdpo.records import Pair, Problem
from scdpo.store import RunFolder
from small_runs import copy_policy, fail, recipe, succeed, write_recipe, write_recorded

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths, such as the default `runs/NAME`, belong to the test."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of imported solutions, paired; tests copy it."""
    folder = tmp_path_factory.mktemp("paired")
    path = write_recipe(folder / "my.yaml", pairs={"heldout_share": 0.0})
    file = write_recorded(folder / "apples.jsonl", 6)
    run = folder / "run"
    succeed(
        "import", file, "--layout", "tora", "--out", run, "--dataset", "apples", "--recipe", path
    )
    succeed("pair", run)
    return run


@pytest.fixture
def run(paired: Path, tmp_path: Path) -> Path:
    """A copy of the paired run, for the test alone."""
    return Path(shutil.copytree(paired, tmp_path / "run"))


# ---- the real console script


def scdpo(*arguments: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run the console script in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from scdpo.cli import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        **settings,
    )


def test_help_lists_the_commands() -> None:
    done = scdpo("--help")
    assert done.returncode == 0
    for command in ("run", "recipe", "sample", "branch", "pair", "train", "evaluate", "import"):
        assert f" {command} " in done.stdout


def test_a_wrong_recipe_ends_the_process_with_one_line_and_exit_code_2(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "my.yaml", sample={"temprature": 1})
    done = scdpo("run", path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(
        f"scdpo: {path}: unknown key 'sample.temprature' (did you mean temperature?); known here: "
    )
    assert not (tmp_path / "runs").exists(), "nothing is begun with a recipe that is wrong"


def test_tables_go_to_stdout_and_everything_else_to_stderr(run: Path) -> None:
    done = scdpo("pair", run)
    assert done.returncode == 0, done.stderr
    assert "pairs/naive" in done.stdout
    assert f"scdpo train {run} --method scdpo" in done.stderr
    assert "next" not in done.stdout


def test_a_mistyped_folder_that_could_be_on_the_hub_fails_soon(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "my.yaml", policy="models/mistrall")
    start = time.perf_counter()
    # An address that nothing listens on: refused at once, as a machine without network is.
    done = scdpo("sample", "out", "--recipe", path, env={**os.environ, "HF_ENDPOINT": DEAD_END})
    assert time.perf_counter() - start < 30
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "scdpo: models/mistrall: no such folder, and not available from the Hugging Face hub: "
    )
    assert done.stderr.count("\n") == 1


DEAD_END = "http://127.0.0.1:9"


# ---- bad input, in this process


def test_a_missing_recipe_names_those_in_the_package(capsys: Capture) -> None:
    assert fail(capsys, "run", "nothing.yaml") == (
        "nothing.yaml: no such recipe file (in the package: embedded, import, internlm2-20b, "
        "mathcoder-mistral-7b, metamath-mistral-7b, mistral-7b-ours, qwen2.5-math-1.5b, "
        "qwen3-1.7b, smoke, smollm2-135m)"
    )


@pytest.mark.parametrize(
    "command",
    [
        ("sample", "out"),
        ("branch", "out"),
        ("pair", "out"),
        ("train", "out"),
        ("evaluate", "out"),
        ("report", "out"),
        ("export", "out", "--out", "x.jsonl"),
    ],
    ids=lambda command: command[0],
)
def test_a_folder_without_a_run(command: tuple[str, ...], capsys: Capture, tmp_path: Path) -> None:
    message = fail(capsys, *command)
    assert message == "out: not a run folder (it has no recipe.yaml); start one with --recipe"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "RUN", "--method", "ppo"), "unknown method 'ppo'; known: dpo, dpo_equal, scdpo"),
        (("export", "RUN", "--out", "x", "--method", "ppo"), "unknown method 'ppo'; known: dpo, "),
        (
            ("evaluate", "RUN", "--policy", "x"),
            "unknown policy 'x'; known: sft, dpo, dpo_equal, scdpo",
        ),
        (
            ("evaluate", "RUN", "--policy", "dpo"),
            "RUN: policies/dpo is missing; run `scdpo train --method dpo` first",
        ),
        (("report", "RUN", "--by", "level"), "RUN: its questions have no level, or no policy"),
        (
            ("import", "x.jsonl", "--layout", "latex", "--out", "RUN"),
            "unknown layout 'latex'; known: mathcoder, tora",
        ),
        (("import", "x.jsonl", "--layout", "tora", "--out", "RUN"), "x.jsonl: no such file"),
        (("make-policy", "x.yaml", "--out", "y"), "x.yaml: no such recipe file"),
        (("make-policy", "smoke", "--out", "y"), "recipe smoke: unknown key 'problems'; known"),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, tuple) else "",
)
def test_wrong_arguments(
    arguments: tuple[str, ...], message: str, run: Path, capsys: Capture
) -> None:
    assert fail(capsys, *(a.replace("RUN", run.name) for a in arguments)).startswith(
        message.replace("RUN", run.name)
    )


def test_branching_without_solutions(tmp_path: Path, capsys: Capture) -> None:
    new = tmp_path / "new"
    said = fail(capsys, "branch", new, "--recipe", write_recipe(tmp_path / "recipe.yaml"))
    assert said.startswith(f"{new}: no solutions yet; run `scdpo sample` or `scdpo import` first")


def test_pairs_of_a_run_that_has_none_yet(tmp_path: Path, capsys: Capture) -> None:
    path = write_recipe(tmp_path / "my.yaml", methods=[])
    (tmp_path / "out").mkdir()
    shutil.copy(path, tmp_path / "out" / "recipe.yaml")
    for command in ("export", "train"):
        more = ("--out", "x.jsonl") if command == "export" else ()
        message = fail(capsys, command, "out", *more)
        assert message == "out: pairs/naive is missing; run `scdpo pair` first"
    assert fail(capsys, "pair", "out") == (
        "out: no solutions yet; run `scdpo sample` or `scdpo import` first"
    )


PROBLEM_FILES: dict[str, tuple[str | None, str]] = {
    "missing": (None, "problems.jsonl: no such file or folder"),
    "malformed": (
        '{"question": "1+1?", "answer": "2"}\n{"question": "2+2?",\n',
        "problems.jsonl, line 2: ",
    ),
    "without an answer": (
        '{"question": "1+1?", "answer": "2"}\n\n{"question": "2+2?"}\n',
        "problems.jsonl, line 3: no answer",
    ),
    "without a question": ('{"answer": "2"}\n', "problems.jsonl, line 1: no question"),
    "not objects": ("3\n", "problems.jsonl, line 1: "),
    "empty": ("", "problems.jsonl: no problems in it"),
}


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize(("content", "message"), PROBLEM_FILES.values(), ids=PROBLEM_FILES)
def test_a_bad_problem_file_is_found_before_anything_is_sampled(
    part: str, content: str | None, message: str, tmp_path: Path, capsys: Capture
) -> None:
    source = {"source": "jsonl", "path": "problems.jsonl"}
    path = write_recipe(tmp_path / "my.yaml", problems={part: source})
    if content is not None:
        (tmp_path / "problems.jsonl").write_text(content)
    assert fail(capsys, "run", path, "--out", "out").startswith(message)
    assert not (tmp_path / "out" / "solutions").exists()


def test_a_mended_problem_file_is_read_again(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "problems.jsonl"
    file.write_text('{"question": "1+1?"}\n')
    problems = {"test": {"source": "jsonl", "path": str(file)}}
    path = write_recipe(tmp_path / "my.yaml", problems=problems, evaluate={"rows": 4})
    assert "no answer" in fail(capsys, "evaluate", "out", "--recipe", path)
    assert not (tmp_path / "out").exists()  # nothing was made, so no folder is left behind
    file.write_text('{"question": "1+1?", "answer": "2"}\n')
    succeed("evaluate", "out", "--recipe", path)
    with RunFolder(tmp_path / "out", write=False) as folder:
        assert [p.answer for p in folder.stage("problems/test").rows(Problem)] == ["2"]


def test_a_folder_that_is_no_policy(tmp_path: Path, capsys: Capture) -> None:
    path = write_recipe(tmp_path / "my.yaml", policy="./policy")
    for make in (lambda f: f.mkdir(), lambda f: f.rmdir() or f.write_text("")):
        make(tmp_path / "policy")
        assert fail(capsys, "sample", "out", "--recipe", path).startswith("policy: ")


def test_a_mended_policy_is_taken(tmp_path: Path, capsys: Capture) -> None:
    policy = copy_policy(tmp_path / "policy")
    weights = policy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    path = write_recipe(tmp_path / "my.yaml", policy=str(policy))
    message = fail(capsys, "evaluate", "out", "--recipe", path)
    assert message.startswith(f"{policy}: its model cannot be read: Error while deserializing")
    shutil.rmtree(policy)
    copy_policy(policy)
    succeed("evaluate", "out", "--recipe", path)


# ---- run folders


def test_a_folder_that_another_process_works_on(run: Path, capsys: Capture) -> None:
    code = (
        "import sys, pathlib; from scdpo.store import RunFolder\n"
        "with RunFolder(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == b"held\n"
        message = fail(capsys, "pair", run)
        assert message.startswith(f"run folder {run} is in use by process {holder.pid} (host ")
        succeed("report", run)
        succeed("export", run, "--out", "dpo.jsonl", "--method", "dpo")
        holder.stdin.close()
    succeed("pair", run)


def test_an_export_has_the_training_pairs_of_a_method(
    run: Path, tmp_path: Path, capsys: Capture
) -> None:
    succeed("export", run, "--out", "dpo.jsonl", "--method", "dpo")
    assert fail(capsys, "export", run, "--out", run, "--method", "dpo").endswith(
        "a folder, not a file"
    )
    rows = [json.loads(line) for line in (tmp_path / "dpo.jsonl").read_text().splitlines()]
    with RunFolder(run, write=False) as folder:
        pairs = list(folder.stage("pairs/naive").rows(Pair))
    assert len(rows) == len(pairs) == 6
    assert rows[0].keys() == {"prompt", "chosen", "rejected"}


def test_another_recipe_names_the_keys_that_changed(
    run: Path, tmp_path: Path, capsys: Capture
) -> None:
    changes = {"heldout_share": 0.5, "duplicates": "released-code"}
    path = write_recipe(tmp_path / "other.yaml", pairs=changes, sandbox={"deadline": 3})
    before = (run / "recipe.yaml").read_text()
    assert fail(capsys, "pair", run, "--recipe", path) == (
        f"{run} was started with another recipe: sandbox.deadline 20.0 → 3.0, "
        'pairs.duplicates "exact" → "released-code", pairs.heldout_share 0.0 → 0.5; '
        "use another folder"
    )
    assert (run / "recipe.yaml").read_text() == before


def test_another_limit_on_problems_that_were_read(tmp_path: Path, capsys: Capture) -> None:
    succeed("evaluate", "out", "--recipe", write_recipe(tmp_path / "my.yaml"))
    more = {"test": {"source": "embedded", "split": "test", "limit": 4}}
    path = write_recipe(tmp_path / "more.yaml", problems=more)
    assert fail(capsys, "evaluate", "out", "--recipe", path) == (
        "out was started with another recipe: problems.test.limit 2 → 4; use another folder"
    )


def test_settings_that_have_shaped_nothing_yet_may_change(run: Path, tmp_path: Path) -> None:
    later = {"learning_rate": 1e-4, "epochs": 3}
    path = write_recipe(
        tmp_path / "other.yaml",
        pairs={"heldout_share": 0.0},
        train=recipe()["train"] | later,
        grading={"workers": 1},
    )
    succeed("pair", run, "--recipe", path)
    kept = yaml.safe_load((run / "recipe.yaml").read_text())
    assert kept["train"]["learning_rate"] == 1e-4
    assert kept["grading"]["workers"] == 1, "how many work at once shapes no rows"


def test_a_stage_done_again(run: Path, tmp_path: Path, capsys: Capture) -> None:
    file = write_recorded(tmp_path / "more.jsonl", 8)
    succeed("import", file, "--layout", "tora", "--out", run, "--dataset", "apples")
    message = fail(capsys, "pair", run)
    assert "input imports/more nothing → " in message
    succeed("pair", run, "--redo")
    with RunFolder(run, write=False) as folder:
        assert len(list(folder.stage("pairs/naive").rows(Pair))) == 8


def test_a_run_that_was_only_begun_can_be_reported(run: Path, capsys: Capture) -> None:
    capsys.readouterr()
    succeed("report", run)
    found = capsys.readouterr()
    assert "imports/apples" in found.out
    assert "no policy has been evaluated yet: scdpo evaluate" in found.err
    assert not (run / "report.md").exists(), "reporting only reads"


def test_sft_is_evaluated_when_nothing_else_is_there(tmp_path: Path, capsys: Capture) -> None:
    path = write_recipe(tmp_path / "my.yaml")
    succeed("evaluate", "out", "--recipe", path)
    found = capsys.readouterr()
    assert "Accuracy, greedy decoding" in found.out
    assert "SFT" in found.out
    notes = dict(line.split(maxsplit=1) for line in found.err.splitlines())
    assert notes["run"] == "out"
    assert notes["recipe"] == f"{path}, preset paper"
    assert notes["policy"] == "embedded"
    assert notes["device"].endswith("1 threads")
    row = json.loads((tmp_path / "out" / "environment.jsonl").read_text().splitlines()[-1])
    assert row["sandbox"] == notes["sandbox"]
    assert (row["stage"], row["threads"]) == ("evaluations/sft", 1)
    assert "Accuracy, greedy decoding" in (tmp_path / "out" / "report.md").read_text()

    succeed("report", "out", "--by", "subject")
    assert "Accuracy by subject, %" in capsys.readouterr().out
    succeed("report", "out", "--by", "level")
    assert "Accuracy by level, %" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("")
    path = write_recipe(tmp_path / "my.yaml")
    assert fail(capsys, "evaluate", "file/run", "--recipe", path).startswith("file/run: a file is ")
    with mounted(tmp_path / "disk", "size=1m,ro"):
        message = fail(capsys, "evaluate", "disk/run", "--recipe", path)
        assert message == "disk/run: Read-only file system"


# ---- a full disk


def test_a_disk_that_is_full_while_sampling(tmp_path: Path, capsys: Capture) -> None:
    train = {"source": "embedded", "split": "train", "limit": 4}
    sample = {"chunk": 1, "max_attempts": 2, "correct": 2, "wrong": 2}
    path = write_recipe(tmp_path / "my.yaml", problems={"train": train}, sample=sample)
    succeed("sample", "elsewhere", "--recipe", path)
    wanted = rows(tmp_path / "elsewhere", "solutions")
    pages = {p: -(-p.stat().st_size // 4096) for p in (tmp_path / "elsewhere").rglob("*")}
    half = sum(n // 2 if p.name.startswith("rows-") else n for p, n in pages.items() if p.is_file())

    with mounted(tmp_path / "disk", f"size={4 * half}k"):
        message = fail(capsys, "sample", "disk/run", "--recipe", path)
        assert "No space left on device" in message
        kept = rows(tmp_path / "disk" / "run", "solutions")
        resize(tmp_path / "disk", "size=4m")
        succeed("sample", "disk/run")
        assert rows(tmp_path / "disk" / "run", "solutions") == wanted
    assert kept == wanted[: len(kept)]
    assert 0 < len(kept) < len(wanted)


def test_a_disk_that_is_full_at_a_checkpoint(run: Path, tmp_path: Path, capsys: Capture) -> None:
    with mounted(tmp_path / "disk", "size=9m"):
        shutil.copytree(run, tmp_path / "disk" / "run")
        message = fail(capsys, "train", "disk/run", "--method", "dpo")
        assert "o space left" in message
        assert (tmp_path / "disk" / "run" / "policies" / "dpo" / "log.jsonl").exists()
        resize(tmp_path / "disk", "size=90m")
        succeed("train", "disk/run", "--method", "dpo")
        found = rows(tmp_path / "disk" / "run", "policies/dpo")
    succeed("train", run, "--method", "dpo")
    assert found == rows(run, "policies/dpo")
    assert json.loads(found[0])["n_pairs"] == 6


def test_a_disk_that_is_full_at_a_manifest(run: Path, tmp_path: Path, capsys: Capture) -> None:
    with mounted(tmp_path / "disk", "size=2m"):
        copy = Path(shutil.copytree(run, tmp_path / "disk" / "run"))
        shutil.rmtree(copy / "pairs")
        ballast = tmp_path / "disk" / "ballast"
        with ballast.open("wb") as file, pytest.raises(OSError, match="No space left"):
            while True:
                os.write(file.fileno(), bytes(1024))
        message = fail(capsys, "pair", copy)
        assert "No space left on device" in message
        assert "manifest.json" in message
        ballast.unlink()
        succeed("pair", copy)
        for name in ("pairs/naive", "imports/apples"):
            assert rows(copy, name) == rows(run, name)


def rows(run: Path, stage: str) -> list[str]:
    """The rows of a stage, whole ones, as text."""
    text = "".join(p.read_text() for p in sorted((run / stage).glob("rows-*.jsonl")))
    return text.split("\n")[:-1]


class mounted:  # noqa: N801 (reads as a statement)
    """A small disk of its own; skips the test where that takes rights we do not have."""

    def __init__(self, path: Path, options: str):
        self.path = path
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            pytest.skip(f"no small disk to fill: {error}")
        if done.returncode:
            pytest.skip(f"no small disk to fill: {done.stderr.strip()}")

    def __enter__(self) -> None: ...

    def __exit__(self, *exc: object) -> None:
        subprocess.run(["umount", str(self.path)], check=True)


def resize(path: Path, options: str) -> None:
    """Free some space on a `mounted` disk."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(path)], check=True)
