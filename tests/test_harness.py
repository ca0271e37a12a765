"""Comparisons with samples of lm-evaluation-harness, and lists of what only one side got right."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from scdpo.errors import InputError
from scdpo.evaluation.answered import compare_answered, disagreements, read_answered
from scdpo.records import CORRECT, WRONG, Evaluation, Problem
from scdpo.store import RunFolder
from small_runs import fail, succeed

Capture = pytest.CaptureFixture[str]
OLD, NEW = "2026-01-02T03-04-05.678901", "2026-02-03T04-05-06.789012"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sample(i: int, right: bool, *, filter_: str = "strict-match", **changes: Any) -> dict[str, Any]:
    """A row as version 0.4.13 writes it."""
    solution = f"So it is {i}.\n#### {i}"
    row = {
        "doc_id": i,
        "doc": {"question": f"What is\n{i}?", "answer": solution},
        "target": solution,
        "arguments": {"gen_args_0": {"arg_0": f"Question: What is\n{i}?\nAnswer:"}},
        "resps": [[f"I say {i}"]],
        "filtered_resps": [str(i if right else -1)],
        "filter": filter_,
        "metrics": ["exact_match"],
        "doc_hash": f"{i:064x}",
        "prompt_hash": "0" * 64,
        "target_hash": "0" * 64,
        "exact_match": float(right),
    }
    return row | changes


def write(path: str, rows: Sequence[dict[str, Any]]) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def samples(right: Sequence[int], n: int = 6, **changes: Any) -> list[dict[str, Any]]:
    return [sample(i, i in right, **changes) for i in range(n)]


def test_two_sets_of_samples() -> None:
    a = write(f"a/samples_gsm8k_cot_{OLD}.jsonl", samples([0, 1, 2, 3]))
    b = write("b.jsonl", samples([0, 5])[::-1])
    sides = read_answered(a), read_answered(b)
    assert list(sides[0].rows) == ["gsm8k_cot"]
    [one] = compare_answered(*sides)
    assert (one.comparison.n, one.comparison.only_a, one.comparison.only_b) == (6, 3, 1)
    found = disagreements(*sides)
    assert [(d.only, d.question, d.a_answer, d.b_answer) for d in found] == [
        ("a", "What is\n1?", "1", "-1"),
        ("a", "What is\n2?", "2", "-1"),
        ("a", "What is\n3?", "3", "-1"),
        ("b", "What is\n5?", "-1", "5"),
    ]


def test_a_folder_has_the_newest_file_of_each_task() -> None:
    write(f"out/model/samples_gsm8k_{OLD}.jsonl", samples([]))
    write(f"out/model/samples_gsm8k_{NEW}.jsonl", samples([0, 1]))
    write(f"out/model/samples_svamp_{OLD}.jsonl", samples([2]))
    side = read_answered(Path("out"))
    right = {name: sum(row.verdict.correct for row in rows) for name, rows in side.rows.items()}
    assert right == {"gsm8k": 2, "svamp": 1}
    write(f"out/other/samples_gsm8k_{OLD}.jsonl", samples([]))
    assert fail_of("out") == "out has samples of several models; name one of out/model, out/other"


def fail_of(path: str, **options: str) -> str:
    with pytest.raises(InputError) as error:
        read_answered(Path(path), **options)
    return str(error.value)


def test_filters_and_metrics_have_to_be_chosen() -> None:
    rows = [*samples([0]), *samples([0, 1], filter_="flexible-extract")]
    write("f.jsonl", rows)
    assert fail_of("f.jsonl") == (
        "f.jsonl: choose with --filter one of strict-match, flexible-extract"
    )
    side = read_answered(Path("f.jsonl"), filter_="flexible-extract")
    assert sum(row.verdict.correct for row in side.rows["f"]) == 2
    both = {"metrics": ["acc", "acc_norm", "brier_score"], "acc": 1, "acc_norm": 0}
    write("m.jsonl", samples([0], brier_score=[0.1, 0.2], **both))
    assert fail_of("m.jsonl") == "m.jsonl: choose with --metric one of acc, acc_norm"
    assert fail_of("m.jsonl", metric="f1").startswith("m.jsonl: no metric 'f1'; choose with")
    side = read_answered(Path("m.jsonl"), metric="acc")
    assert all(row.verdict.correct for row in side.rows["m"])


def test_rows_of_older_versions_and_rows_that_are_neither_right_nor_wrong() -> None:
    old = [{k: v for k, v in row.items() if k not in ("metrics", "filter")} for row in samples([0])]
    write("old.jsonl", old)
    assert sum(row.verdict.correct for row in read_answered(Path("old.jsonl")).rows["old"]) == 1
    write("half.jsonl", [sample(0, True), sample(1, True, exact_match=0.5)])
    assert fail_of("half.jsonl") == (
        "half.jsonl, line 2: exact_match: expected 1 (right) or 0 (wrong), found 0.5"
    )
    write("torn.jsonl", [sample(0, True), {"doc_id": 3}])
    assert fail_of("torn.jsonl").startswith("torn.jsonl, line 2: not a row of lm-evaluation")


def ours(right: Sequence[int], n: int = 6) -> Path:
    """A measurement of ours on the same questions, whose ids and gold answers look otherwise."""
    with RunFolder(Path("ours")) as folder:
        problems = folder.stage("problems/gsm8k").open({})
        problems.append(
            Problem(id=f"gsm8k/{i}", dataset="gsm8k", question=f"What is {i}?", answer=str(i))
            for i in range(n)
        )
        problems.finish()
        rows = folder.stage("evaluations/gsm8k").open({})
        rows.append(
            Evaluation(
                problem_id=f"gsm8k/{i}",
                dataset="gsm8k",
                policy="p",
                gold=str(i),
                answer="7",
                verdict=CORRECT if i in right else WRONG,
                finish="finished",
                n_steps=1,
                n_tokens=1,
                text="",
            )
            for i in range(n)
        )
        rows.finish()
    return Path("ours")


def test_ours_and_theirs_are_paired_by_the_text_of_the_question() -> None:
    write(f"theirs/samples_gsm8k_local_{OLD}.jsonl", samples([1, 2], n=5)[::-1])
    sides = read_answered(ours([2, 3, 4])), read_answered(Path("theirs"))
    [one] = compare_answered(*sides, common=True)
    assert one.benchmark == "gsm8k"
    assert (one.comparison.n, one.comparison.only_a, one.comparison.only_b) == (5, 2, 1)
    found = disagreements(*sides, common=True)
    assert [(d.only, d.question, d.gold) for d in found] == [
        ("a", "What is 3?", "3"),
        ("a", "What is 4?", "4"),
        ("b", "What is 1?", "1"),
    ]


def test_other_questions_are_not_paired(capsys: Capture) -> None:
    ours([0])
    changed = [row | {"doc": {"question": f"Or {row['doc_id']}?"}} for row in samples([0])]
    write("x.jsonl", changed)
    assert fail(capsys, "compare", "ours", "x.jsonl").startswith("nothing to compare: the sides")


def test_the_list_on_the_terminal_and_as_json(capsys: Capture) -> None:
    ours([0, 1])
    write(f"samples_gsm8k_{OLD}.jsonl", samples([1, 2]))
    capsys.readouterr()
    succeed("compare", "ours", f"samples_gsm8k_{OLD}.jsonl", "--list")
    lines = capsys.readouterr().out.splitlines()
    assert "only A  gsm8k  gold 0  A 7  B -1" in lines
    assert "only B  gsm8k  gold 2  A 7  B 2" in lines
    assert lines[lines.index("only B  gsm8k  gold 2  A 7  B 2") + 1] == "What is 2?"
    succeed("compare", "ours", f"samples_gsm8k_{OLD}.jsonl", "--list", "--json")
    found = json.loads(capsys.readouterr().out)
    assert [(row["only"], row["question"]) for row in found] == [
        ("a", "What is 0?"),
        ("b", "What is 2?"),
    ]
