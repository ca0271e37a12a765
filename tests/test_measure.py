"""A policy on benchmarks: where their files are, what is kept, refused and continued."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from scdpo.errors import DataError, InputError, RecipeError
from scdpo.pipeline.measure import measuring_recipe, policy_name
from scdpo.problems.benchmarks import load_problems
from scdpo.problems.places import PAPER, places
from scdpo.records import Evaluation
from scdpo.store import RunFolder
from small_runs import LIMITS, copy_policy, fail, succeed

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths, such as the default folder, belong to the test."""
    monkeypatch.chdir(tmp_path)


def question(n: int) -> str:
    return f"Ann has {n} apples and finds 2 more. How many apples does Ann have?"


def write_data(folder: str = "data", n: int = 5) -> Path:
    """A folder with a few questions of GSM8K and of MATH in it."""
    gsm8k, math = Path(folder) / "gsm8k", Path(folder) / "math"
    for path in (gsm8k, math):
        path.mkdir(parents=True, exist_ok=True)
    rows = [{"question": question(i), "answer": f"2 more.\n#### {i + 2}"} for i in range(n)]
    (gsm8k / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = [
        {
            "problem": question(i),
            "answer": str(i + 2),
            "level": i % 2 + 1,
            "subject": ("Algebra", "Geometry")[i % 2],
        }
        for i in range(3)
    ]
    (math / "math500.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return Path(folder)


def write_recipe(**sections: object) -> str:
    """A recipe that only says how to evaluate: two questions at a time."""
    base = {
        "threads": 1,
        "format": {"name": "blocks", "system": ""},
        "evaluate": {"limits": LIMITS, "rows": 2},
    }
    Path("my.yaml").write_text(yaml.safe_dump(base | sections))
    return "my.yaml"


def answers(out: str, benchmark: str) -> list[Evaluation]:
    with RunFolder(Path(out), write=False) as folder:
        return list(folder.stage(f"evaluations/{benchmark}").rows(Evaluation))


# ---- where benchmarks are


SHARED = {
    "gsm8k": "gsm8k/test.jsonl",
    "math": "math/test.jsonl",
    "math500": "math/math500.jsonl",
    "ape210k": "ape210k/test.ape.json",
    "cmath": "cmath/deepseek_cmath_test.jsonl",
    "mgsm_zh": "mgsm/mgsm_zh.tsv",
    "mgsm_en": "mgsm/mgsm_en.tsv",
    "svamp": "svamp/SVAMP.json",
    "asdiv": "asdiv/qwen_asdiv_test.jsonl",
    "mawps": "mawps/test.jsonl",
    "simuleq": "mathcoder_ood/simuleq_test_post.jsonl",
    "mathematics": "mathcoder_ood/mathematics_test_post.jsonl",
}


@pytest.mark.parametrize(("name", "path"), SHARED.items(), ids=SHARED)
def test_files_as_they_are_published(name: str, path: str, tmp_path: Path) -> None:
    file = tmp_path / "data" / path
    file.parent.mkdir(parents=True)
    file.write_text("")
    [place] = places(name, [str(tmp_path / "data")])
    assert place.path == str(file)


def test_all_of_the_papers(shared_data: Path) -> None:
    found = places("all,gsm8k", [str(shared_data)])
    assert tuple(place.name for place in found) == PAPER
    for place in found:
        assert len(load_problems(place.name, place.path, limit=2)) == 2


@pytest.mark.parametrize(
    "path", ["math500/test.jsonl", "math500/any_test.json", "math500.jsonl", "math500_test.jsonl"]
)
def test_a_benchmarks_own_folder_or_file(path: str, tmp_path: Path) -> None:
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    file.write_text("")
    (tmp_path / "math").mkdir()
    (tmp_path / "math" / "test.jsonl").write_text("")  # all of MATH is not MATH-500
    assert places("math500", [str(tmp_path)])[0].path == str(file)


def test_places_that_are_named_and_those_on_the_hub() -> None:
    data = write_data()
    found = places("gsm8k, math500", [str(data), "gsm8k=my.jsonl"])
    assert [place.path for place in found] == ["my.jsonl", "data/math/math500.jsonl"]
    assert places("gsm8k")[0].path == "openai/gsm8k"
    with pytest.raises(
        DataError, match="simuleq: no hub data set is known for it; give --data sim"
    ):
        places("simuleq")
    with pytest.raises(DataError, match=r"svamp: not in data \(looked for svamp/, svamp.jsonl, SV"):
        places("svamp", ["data"])
    with pytest.raises(InputError, match="--data svamp=…: svamp is not among --benchmarks"):
        places("gsm8k", ["data", "svamp=x"])
    with pytest.raises(
        InputError, match=r"unknown benchmark 'gsm9k'; known: gsm8k, math, .*, jsonl, all"
    ):
        places("gsm8k,gsm9k", ["data"])
    with pytest.raises(
        InputError, match="--data nowhere: expected a folder or NAME=PATH, found not"
    ):
        places("gsm8k", ["nowhere"])
    with pytest.raises(InputError, match="--benchmarks: no names given"):
        places(" ,")


# ---- settings


def test_settings_are_a_recipes_without_its_problems() -> None:
    path = write_recipe(policy="models/mine")
    found = measuring_recipe(path, "embedded", format="fenced", end=["<|im_end|>"], rows=7)
    assert (found.policy, found.format.name, found.format.end) == (
        "embedded",
        "fenced",
        ("<|im_end|>",),
    )
    assert (found.evaluate.rows, found.evaluate.limits.max_steps) == (7, LIMITS["max_steps"])
    assert measuring_recipe(path, None).policy == "models/mine"
    assert measuring_recipe(None, "embedded").format.system == ""
    assert measuring_recipe(None, "x/y", format="plain").format.name == "plain"
    with pytest.raises(InputError, match="--policy is needed"):
        measuring_recipe(None, None)
    with pytest.raises(InputError, match="policy x/y: its solution format is not known"):
        measuring_recipe(None, "x/y")
    with pytest.raises(RecipeError, match="unknown format 'latex'; known: blocks, fenced, plain"):
        measuring_recipe(None, "x/y", format="latex")


@pytest.mark.parametrize(
    ("policy", "name"),
    [
        ("embedded", "embedded"),
        ("runs/a/policies/scdpo/policy", "scdpo"),
        ("mistralai/Mistral-7B-v0.1", "Mistral-7B-v0.1"),
        ("my model (2)/", "my-model-2"),
    ],
)
def test_what_a_policy_is_called(policy: str, name: str) -> None:
    assert policy_name(policy) == name


# ---- measuring


def test_a_policy_on_two_benchmarks(capsys: Capture) -> None:
    data = write_data()
    command = ("evaluate", "--policy", "embedded", "--benchmarks", "gsm8k,math500", "--data", data)
    command += ("--recipe", write_recipe())
    succeed(*command)
    out = "evaluations/embedded"
    found = capsys.readouterr()
    assert "Accuracy on math500 by level, %" in found.out
    assert "Accuracy on math500 by subject, %" in found.out
    assert "Accuracy of embedded, greedy decoding" in found.out
    assert "Accuracy of embedded" in Path(out, "report.md").read_text()
    rows = answers(out, "gsm8k")
    assert [row.gold for row in rows] == ["2", "3", "4", "5", "6"]
    assert {(row.dataset, row.policy) for row in rows} == {("gsm8k", "embedded")}
    assert [row.level for row in answers(out, "math500")] == ["1", "2", "1"]

    before = Path(out, "evaluations/gsm8k/rows-00000.jsonl").stat().st_mtime_ns
    succeed(*command)
    assert "sandbox" not in capsys.readouterr().err, "nothing is left to do"
    assert Path(out, "evaluations/gsm8k/rows-00000.jsonl").stat().st_mtime_ns == before
    succeed(*command, "--redo")
    assert answers(out, "gsm8k") == rows
    assert Path(out, "evaluations/gsm8k/rows-00000.jsonl").stat().st_mtime_ns != before


def test_what_has_changed_is_named_before_anything_is_generated(capsys: Capture) -> None:
    data = write_data()
    policy = copy_policy(Path("mine"))
    command = ("evaluate", "--benchmarks", "gsm8k", "--data", data, "--out", "out", "--limit", 2)
    own = (*command, "--policy", policy, "--recipe", write_recipe())
    succeed(*own)
    rows = answers("out", "gsm8k")
    begun = "stage evaluations/gsm8k in out was started with other values: "
    changed = write_recipe(evaluate={"limits": LIMITS, "rows": 1})
    assert fail(capsys, *own).startswith(f"{begun}evaluate.rows 2 → 1; use another run folder")
    assert fail(capsys, *own, "--format", "plain").startswith(f"{begun}evaluate.rows 2 → 1, format")
    assert changed == write_recipe()
    config = json.loads((policy / "config.json").read_text())
    (policy / "config.json").write_text(json.dumps(config | {"extra": 1}))
    assert fail(capsys, *own).startswith(f"{begun}input policy ")
    (policy / "config.json").write_text(json.dumps(config))
    shutil.rmtree(policy)
    copy_policy(policy)
    more = [part if part != 2 else 3 for part in own]
    assert "limit 2 → 3" in fail(capsys, *more)
    file = data / "gsm8k" / "test.jsonl"
    text = file.read_text()
    file.write_text(text.replace("#### 2", "#### 7"))
    assert "input data " in fail(capsys, *own)
    file.write_text(text)
    succeed(*own)
    assert answers("out", "gsm8k") == rows


def test_a_bad_file_of_any_benchmark_is_found_first(capsys: Capture) -> None:
    data = write_data()
    with (data / "math" / "math500.jsonl").open("a") as file:
        file.write('{"problem": "Q"}\n')
    command = ("evaluate", "--policy", "embedded", "--benchmarks", "gsm8k,math500", "--data", data)
    message = fail(capsys, *command)
    assert message.startswith("data/math/math500.jsonl, line 4: no answer")
    assert (
        fail(capsys, *command, "--data", "math500=no.jsonl") == "no.jsonl: no such file or folder"
    )
    assert not Path("evaluations").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected a run folder, or --policy and --benchmarks; found neither"),
        (
            ("run", "--benchmarks", "gsm8k"),
            "--benchmarks applies only without a run folder, but run",
        ),
        (("run", "--limit", "3"), "--limit applies only without a run folder, but run is given"),
        (("--benchmarks", "gsm8k", "--data", "data"), "--policy is needed: embedded, a folder, or"),
        (
            ("--policy", "embedded", "--benchmarks", "x"),
            "unknown benchmark 'x'; known: gsm8k, math, ",
        ),
        (
            ("--policy", "./no", "--benchmarks", "gsm8k", "--data", "data", "--format", "plain"),
            "no: no such policy folder",
        ),
        (
            ("--policy", "embedded", "--benchmarks", "gsm8k", "--data", "data", "--limit", "0"),
            "limit 0: must be at least 1",
        ),
        (
            ("--policy", "embedded", "--benchmarks", "gsm8k", "--data", "data", "--by", "level"),
            "--by level: the questions of gsm8k have no level",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_arguments(arguments: tuple[str, ...], message: str, capsys: Capture) -> None:
    write_data()
    assert fail(capsys, "evaluate", *arguments).startswith(message)
    assert not Path("evaluations").exists()


def test_a_killed_measurement_goes_on_to_the_same_rows() -> None:
    data, recipe = write_data(n=5), write_recipe()
    command = ("evaluate", "--policy", "embedded", "--benchmarks", "gsm8k,math500", "--data", data)
    command += ("--recipe", recipe)
    line = [sys.executable, "-c", "from scdpo.cli import main; main()", *map(str, command)]
    rows = Path("out/evaluations/gsm8k/rows-00000.jsonl")
    with subprocess.Popen([*line, "--out", "out"], stderr=subprocess.DEVNULL) as process:
        while not rows.exists() or rows.stat().st_size < 100:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    kept = len(rows.read_text().splitlines())
    succeed(*command, "--out", "out")
    succeed(*command, "--out", "whole")
    assert 0 < kept < 5
    for name in ("gsm8k", "math500"):
        assert answers("out", name) == answers("whole", name)
