"""Two policies compared question by question, from every kind of rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from scdpo.errors import DataError, InputError
from scdpo.evaluation.answered import TOGETHER, UNNAMED, compare_answered, read_answered
from scdpo.evaluation.significance import mcnemar_exact
from scdpo.records import Evaluation, Verdict
from scdpo.store import RunFolder, write_jsonl
from small_runs import fail, succeed

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths belong to the test."""
    monkeypatch.chdir(tmp_path)


def answered(dataset: str, right: Sequence[int], n: int = 8) -> list[Evaluation]:
    """`n` questions, of which those in `right` are answered correctly."""
    return [
        Evaluation(
            problem_id=f"{dataset}/{i}",
            dataset=dataset,
            policy="p",
            gold=str(i),
            answer="1",
            verdict=Verdict(name="correct" if i in right else "wrong"),
            finish="finished",
            n_steps=1,
            n_tokens=1,
            text="",
        )
        for i in range(n)
    ]


def write_folder(path: str, *, finish: bool = True, **rows: list[Evaluation]) -> Path:
    """A folder as `scdpo evaluate` writes it."""
    with RunFolder(Path(path)) as folder:
        for name, found in rows.items():
            stage = folder.stage(f"evaluations/{name}").open({})
            stage.append(found)
            if finish:
                stage.finish()
    return Path(path)


def graded(right: Sequence[int], n: int = 8, *, ids: bool = True) -> list[dict[str, Any]]:
    """Rows as `scdpo grade` writes them."""
    rows = [
        {"answer": i, "prediction": 1, "verdict": "correct" if i in right else "wrong"}
        for i in range(n)
    ]
    return [{"id": i, **row} for i, row in enumerate(rows)] if ids else rows


def test_folders_are_compared_on_the_benchmarks_that_both_have() -> None:
    a = write_folder(
        "a",
        gsm8k=answered("gsm8k", [0, 1, 2, 3]),
        math=answered("math", [0]),
        svamp=answered("svamp", []),
    )
    b = write_folder("b", gsm8k=answered("gsm8k", [0, 4]), math=answered("math", [0]))
    found = compare_answered(read_answered(a), read_answered(b))
    assert [one.benchmark for one in found] == ["gsm8k", "math", TOGETHER]
    gsm8k, math, both = (one.comparison for one in found)
    assert (gsm8k.only_a, gsm8k.only_b, gsm8k.difference) == (3, 1, 0.25)
    assert (math.n, math.difference, math.p) == (8, 0, 1)
    assert (both.n, both.only_a, both.only_b) == (16, 3, 1)
    assert both.p == mcnemar_exact(3, 1)
    one = compare_answered(read_answered(a / "evaluations/gsm8k"), read_answered(b))
    assert [compared.benchmark for compared in one] == ["gsm8k"]


def test_files_of_evaluations() -> None:
    write_jsonl("a.jsonl", answered("gsm8k", [0, 1]))
    b = write_folder("b", gsm8k=answered("gsm8k", [0])[::-1])
    [one] = compare_answered(read_answered(Path("a.jsonl")), read_answered(b))
    assert (one.benchmark, one.comparison.only_a, one.comparison.only_b) == ("gsm8k", 1, 0)


@pytest.mark.parametrize(("a_ids", "b_ids"), [(True, True), (False, False), (True, False)])
def test_graded_files_are_paired_by_id_or_by_place(a_ids: bool, b_ids: bool) -> None:
    write_jsonl("a.jsonl", graded([0, 1], ids=a_ids))
    b = graded([0], ids=b_ids)
    write_jsonl("b.jsonl", b[::-1] if a_ids and b_ids else b)
    [one] = compare_answered(read_answered(Path("a.jsonl")), read_answered(Path("b.jsonl")))
    assert (one.benchmark, one.comparison.n, one.comparison.only_a) == (UNNAMED, 8, 1)


def test_a_table_and_json(capsys: Capture) -> None:
    write_folder("a", gsm8k=answered("gsm8k", range(7)), math=answered("math", [0]))
    write_folder("b", gsm8k=answered("gsm8k", [0]))
    capsys.readouterr()
    succeed("compare", "a", "b")
    found = capsys.readouterr()
    assert "gsm8k" in found.out
    assert "+75.0" in found.out
    assert "p=0.031" in found.out
    assert found.err == "left out  math: only in a\n"
    succeed("compare", "a", "b", "--json")
    [line] = json.loads(capsys.readouterr().out)
    assert (line["benchmark"], line["n"], line["only_a"], line["only_b"]) == ("gsm8k", 8, 6, 0)
    assert line["p"] == mcnemar_exact(6, 0)


def test_different_questions_and_those_in_common(capsys: Capture) -> None:
    write_folder("a", gsm8k=answered("gsm8k", [0, 1], 8), math=answered("math", [0], 2))
    write_folder("b", gsm8k=answered("gsm8k", [0], 5), math=answered("math", [0], 2))
    assert fail(capsys, "compare", "a", "b") == (
        "gsm8k: different questions: 5 in both, 3 only in a and 0 only in b; --common "
        "compares those in both"
    )
    found = compare_answered(*(read_answered(Path(side)) for side in "ab"), common=True)
    assert [one.comparison.n for one in found] == [5, 2, 7]


def test_an_evaluation_that_is_not_finished() -> None:
    a = write_folder("a", gsm8k=answered("gsm8k", [0], 3), finish=False)
    b = write_folder("b", gsm8k=answered("gsm8k", [0], 8))
    with pytest.raises(InputError, match="a/evaluations/gsm8k: not finished; run `scdpo"):
        compare_answered(read_answered(a), read_answered(b))
    [one] = compare_answered(read_answered(a), read_answered(b), common=True)
    assert one.comparison.n == 3


def test_gold_answers_that_differ() -> None:
    write_jsonl("a.jsonl", graded([0]))
    write_jsonl("b.jsonl", [*graded([0])[:-1], {**graded([])[-1], "answer": 99}])
    with pytest.raises(InputError, match="question 7 of rows has gold answer '7' in the first"):
        compare_answered(read_answered(Path("a.jsonl")), read_answered(Path("b.jsonl")))


BAD: dict[str, tuple[str | None, str]] = {
    "missing": (None, "x.jsonl: no such file or folder"),
    "empty": ("\n", "x.jsonl: no rows in it"),
    "not JSON": ("{", "x.jsonl, line 1: not JSON: "),
    "something else": ('{"a": 1}', "x.jsonl, line 1: verdict: expected one of correct, w"),
    "not graded": (
        '{"id": 1, "answer": 1, "verdict": "wrong"}\n{"id": 2, "answer": 1}',
        "x.jsonl, line 2: verdict: expected one of correct, wrong, undecided; found None",
    ),
    "no gold": (
        '{"verdict": "wrong"}',
        "x.jsonl, line 1: no 'answer' (the gold answer, which both",
    ),
    "twice": (
        '{"id": 1, "answer": 1, "verdict": "wrong"}\n' * 2,
        "question 1 of rows was evaluated more than once",
    ),
    "torn row": (
        '{"problem_id": "a", "dataset": 3}',
        "x.jsonl, line 1: Evaluation: ",
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_files_that_cannot_be_compared(text: str | None, message: str, capsys: Capture) -> None:
    if text is not None:
        Path("x.jsonl").write_text(text)
    assert fail(capsys, "compare", "x.jsonl", "x.jsonl").startswith(message)


def test_folders_that_cannot_be_compared(capsys: Capture) -> None:
    a = write_folder("a", gsm8k=answered("gsm8k", [0]))
    write_folder("b", math=answered("math", [0]))
    write_folder("run", sft=answered("gsm8k", [0]), dpo=answered("gsm8k", [0]))
    Path("run/recipe.yaml").write_text("")
    Path("empty").mkdir()
    assert fail(capsys, "compare", a, "b") == (
        "nothing to compare: the sides share no benchmark (a/evaluations/gsm8k has gsm8k; "
        "b/evaluations/math has math)"
    )
    assert fail(capsys, "compare", "run", "b") == (
        "run is a run; name one of run/evaluations/dpo, run/evaluations/sft"
    )
    succeed("compare", "run/evaluations/dpo", "run/evaluations/sft")
    with pytest.raises(DataError, match="empty: no evaluation in it"):
        read_answered(Path("empty"))
