"""Benchmark loaders: gold answers, ids that join across files, counts, and bad rows."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from scdpo.errors import DataError, InputError, MissingDependency
from scdpo.formats import read_recorded
from scdpo.problems.benchmarks import BENCHMARKS, load_problems
from scdpo.problems.files import hub_rows
from scdpo.problems.gold import problem_id

CASES = json.loads((Path(__file__).parent / "cases" / "gold.json").read_text())

SETS = [
    ("gsm8k", "gsm8k", "train", 7473),
    ("gsm8k", "gsm8k", "test", 1319),
    ("math", "math", "train", 7500),
    ("math", "math", "test", 5000),
    ("math500", "math", "test", 500),
    ("ape210k", "ape210k", "valid", 5000),
    ("ape210k", "ape210k", "test", 5000),
    ("cmath", "cmath", "test", 1098),
    ("mgsm_zh", "mgsm", "test", 250),
    ("mgsm_en", "mgsm", "test", 250),
    ("svamp", "svamp", "test", 1000),
    ("asdiv", "asdiv", "test", 2215),
    ("mawps", "mawps", "test", 2065),
    ("simuleq", "mathcoder_ood", "test", 514),
    ("mathematics", "mathcoder_ood", "test", 1000),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["why"])
def test_gold_answer_of_a_row(tmp_path: Path, case: dict[str, Any]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(case["row"]) + "\n")
    (problem,) = load_problems(case["benchmark"], path)
    found = problem.model_dump(mode="json")
    expected = {key: value for key, value in case.items() if key not in ("why", "benchmark", "row")}
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(("name", "folder", "split", "count"), SETS)
def test_published_sets(shared_data: Path, name: str, folder: str, split: str, count: int) -> None:
    problems = load_problems(name, shared_data / folder, split=split)
    assert len(problems) == len({problem.id for problem in problems}) == count
    assert {problem.dataset for problem in problems} == {name}
    assert all(problem.question.strip() and problem.answer.strip() for problem in problems)
    assert load_problems(name, shared_data / folder, split=split, limit=3) == problems[:3]


def test_levels_and_subjects(shared_data: Path) -> None:
    math = load_problems("math", shared_data / "math", split="train")
    assert Counter(p.level for p in math)[None] == 2
    assert {p.level for p in math} == {"1", "2", "3", "4", "5", None}
    assert len({p.subject for p in math}) == 7
    assert {p.level for p in load_problems("cmath", shared_data / "cmath")} == set("123456")
    mawps = Counter(p.subject for p in load_problems("mawps", shared_data / "mawps"))
    assert mawps == {"addsub": 395, "multiarith": 600, "singleeq": 508, "singleop": 562}


def test_math_500_is_part_of_math_with_the_same_answers(shared_data: Path) -> None:
    whole = {p.question: p.answer for p in load_problems("math", shared_data / "math")}
    part = load_problems("math500", shared_data / "math")
    assert [whole[p.question] for p in part] == [p.answer for p in part]


@pytest.mark.parametrize(
    ("file", "name", "folder"),
    [
        ("MathCoder-L-7b_GSM8K", "gsm8k", "gsm8k"),
        ("MathCoder-L-13b_GSM8K", "gsm8k", "gsm8k"),
        ("ToRA-70b_GSM8K", "gsm8k", "gsm8k"),
        ("MathCoder-L-7b_MATH_correct", "math", "math"),
        ("MathCoder-CL-7b_SVAMP", "svamp", "svamp"),
        ("MathCoder-CL-7b_simuleq", "simuleq", "mathcoder_ood"),
        ("MathCoder-CL-7b_mathematics", "mathematics", "mathcoder_ood"),
    ],
)
def test_recorded_solutions_join_with_problems(
    shared_data: Path, file: str, name: str, folder: str
) -> None:
    problems = {p.id: p for p in load_problems(name, shared_data / folder)}
    layout = "tora" if file.startswith("ToRA") else "mathcoder"
    recorded = list(read_recorded(shared_data / "solutions" / f"{file}.jsonl", layout))
    joined = {problem_id(name, solution.question) for solution in recorded}
    assert len(joined) == len(recorded)
    assert joined <= problems.keys()
    if name != "math":
        assert joined == problems.keys()


def test_ids_ignore_blanks_and_commas_only() -> None:
    assert problem_id("a", "He ate 9., How many?") == problem_id("a", "He ate 9.\nHow many?")
    assert problem_id("a", "What is 2-1?") != problem_id("a", "What is 2+1?")
    assert problem_id("a", "Q") != problem_id("b", "Q")


def test_repeated_questions_get_numbered_ids(tmp_path: Path) -> None:
    path = tmp_path / "mine.v1.jsonl"
    path.write_text('{"question": "Q", "answer": 1}\n{"question": "Q", "answer": 1}\n')
    first, second = load_problems("jsonl", path)
    assert (first.id, second.id) == (problem_id("mine", "Q"), problem_id("mine", "Q") + "-2")


ROW = '{"question": "Q", "answer": "1"}\n'


@pytest.mark.parametrize(
    ("name", "text", "line", "message"),
    [
        ("jsonl", ROW + '{"question": "Q"}\n', 2, "no answer (looked for answer"),
        ("jsonl", ROW + '{"question": "Q", "answer": null}\n', 2, "no answer"),
        ("jsonl", ROW + '{"question": "Q", "answer": []}\n', 2, "no answer"),
        ("jsonl", '\n{"question": " ", "answer": "1"}\n', 2, "no question"),
        ("jsonl", ROW + '{"question": "Q", "ans', 2, "malformed JSON"),
        ("jsonl", ROW + "3\n", 2, "expected a JSON object"),
        ("jsonl", '{"id": 1, "question": "Q", "answer": 1}\n' * 2, 2, "id '1' is already taken"),
        ("jsonl", '{"question": "Q", "answer": 1, "alternatives": 2}', 1, "must be a list"),
        ("jsonl", "", None, "no problems in it"),
        ("gsm8k", ROW, 1, "has no '####'"),
        ("math", '{"problem": "Q", "solution": "2"}', 1, r"no \boxed"),
        ("math", r'{"problem": "Q", "solution": "\\boxed{}"}', 1, r"\boxed is empty"),
        ("math", r'{"problem": "Q", "solution": "\\boxed{{2}"}', 1, "not closed"),
        ("math", '{"problem": "Q"}', 1, "no answer"),
        ("svamp", '[\n{"Body": "B", "Question": "Q"}]', None, "row 1: no answer"),
        ("svamp", '[\n{"Body"}]', 2, "malformed JSON"),
        ("svamp", "[1]", None, "row 1: expected a JSON object"),
        ("simuleq", ROW, 1, "no single user message"),
    ],
)
def test_bad_rows_are_named_with_their_line(
    tmp_path: Path, name: str, text: str, line: int | None, message: str
) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        load_problems(name, path)
    assert caught.value.line == line
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_tsv_rows_have_two_columns(tmp_path: Path) -> None:
    path = tmp_path / "mgsm_zh.tsv"
    path.write_text("问\t2,125\r\n问二\t1\n")
    assert [p.answer for p in load_problems("mgsm_zh", tmp_path)] == ["2125", "1"]
    path.write_text("Q\t1\nQ\n")
    with pytest.raises(DataError, match="line 2: expected 2 columns, found 1"):
        load_problems("mgsm_zh", path)


def test_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROW.encode() + b'{"question": "\xff"}\n')
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        load_problems("jsonl", path)


def test_wrong_names_and_places_say_what_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(", ".join(BENCHMARKS))):
        load_problems("gsm9k", tmp_path)
    with pytest.raises(InputError, match="limit 0"):
        load_problems("gsm8k", tmp_path, limit=0)
    with pytest.raises(DataError, match="no such file or folder"):
        load_problems("gsm8k", tmp_path / "test.jsonl")
    with pytest.raises(DataError, match=r"no test\.jsonl or .* in it \(it holds nothing\)"):
        load_problems("gsm8k", tmp_path)
    for file in ("a_test.jsonl", "b_test.jsonl"):
        (tmp_path / file).write_text(ROW)
    with pytest.raises(DataError, match="several files for split 'test'"):
        load_problems("gsm8k", tmp_path)


def test_hub_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    folder = tmp_path / "owner" / "gsm"
    for config in ("main", "socratic"):
        (folder / config).mkdir(parents=True)
        (folder / config / "test.jsonl").write_text(f'{{"question": "{config}?", "answer": "1"}}\n')
    (folder / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: main\n  data_files:\n  - split: test\n    path: main/test.jsonl\n"
        "- config_name: socratic\n  data_files:\n  - split: test\n    path: socratic/test.jsonl\n"
        "---\n"
    )
    monkeypatch.chdir(tmp_path)
    assert list(hub_rows("owner/gsm", ("main",), "test")) == [
        (1, {"question": "main?", "answer": "1"})
    ]
    questions = [row["question"] for _, row in hub_rows("owner/gsm", ("main", "socratic"), "test")]
    assert questions == ["main?", "socratic?"]
    with pytest.raises(DataError, match="has configurations main, socratic; expected zh"):
        list(hub_rows("owner/gsm", ("zh",), "test"))
    with pytest.raises(DataError, match="split 'train' cannot be read"):
        list(hub_rows("owner/gsm", ("main",), "train"))


def test_hub_without_the_extra_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependency, match=re.escape("pip install 'scdpo[datasets]'")):
        load_problems("gsm8k", "openai/gsm8k")
