"""Recorded solutions become graded rows, and their programs run again."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from scdpo.errors import DataError
from scdpo.grading import Grader
from scdpo.pairs import PairConfig, naive_pairs
from scdpo.problems import problem_id
from scdpo.records import Solution
from scdpo.sampling import count_solutions
from scdpo.sampling.recorded import BATCH, Reproduced, recorded_solutions
from scdpo.sandbox import ProcessSandbox, SandboxConfig
from scdpo.store import RunFolder
from scripted_policies import by_id

Case = dict[str, Any]
CASES: dict[str, list[Case]] = json.loads(
    (Path(__file__).parent / "cases" / "recorded.json").read_text()
)


SIDES = {"preferred": "chosen", "dispreferred": "rejected", "neither": None}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ProcessSandbox]:
    with ProcessSandbox(SandboxConfig(deadline=5)) as opened:
        yield opened


def row_of(layout: str, case: Case) -> Case:
    """A line of a file of this layout."""
    question, gold = case["question"], case["gold"]
    if layout == "tora":
        return {"question": question, "gt": gold, "code": [case["code"]], "pred": [case["pred"]]}
    blocks = [("system", "Solve it."), ("user", question), *case["blocks"]]
    return {
        "messages": [{"role": "user", "content": [{"type": "text", "content": question}]}],
        "ground_truth": {"answer": gold, "solution": ""},
        "debug_result": [{"role": role, "content": content} for role, content in blocks],
        "completion": case["blocks"][-1][1],
    }


def imported(
    file: Path,
    layout: str,
    sandbox: ProcessSandbox,
    run: Path,
    before: Sequence[Solution] = (),
) -> tuple[list[Solution], dict[str, int | float]]:
    with RunFolder(run) as folder, Grader() as grader:
        stage = folder.stage(f"imports/{file.stem}").open({})
        stage.append(before)
        reproduced = Reproduced()

        async def keep() -> None:
            async for rows in recorded_solutions(file, layout, "toy", grader, sandbox, reproduced):
                stage.append_new(rows)

        asyncio.run(keep())
        rows = list(stage.rows(Solution))
        return rows, count_solutions(rows) | reproduced.counts()


@pytest.mark.parametrize("layout", CASES)
def test_recorded_solutions_become_graded_rows(
    layout: str, sandbox: ProcessSandbox, tmp_path: Path
) -> None:
    cases = CASES[layout]
    file = tmp_path / "model.jsonl"
    file.write_text("".join(json.dumps(row_of(layout, case)) + "\n" for case in cases))
    rows, counts = imported(file, layout, sandbox, tmp_path / "run")
    assert [row.question for row in rows] == [case["question"] for case in cases]
    for row, case in zip(rows, cases, strict=True):
        assert row.problem_id == problem_id("toy", case["question"]), case["why"]
        assert (row.verdict.name, row.side()) == (case["verdict"], SIDES[case["side"]]), case["why"]
        assert row.id == f"{row.problem_id}#model.{row.attempt}"
    attempts: Counter[str] = Counter()
    for row in rows:
        assert row.attempt == attempts[row.problem_id]
        attempts[row.problem_id] += 1
    assert counts["code_blocks"] == sum(case["same"] + sum(case["rest"].values()) for case in cases)
    assert counts["reproduced"] == sum(case["same"] for case in cases)
    rest = sum((Counter(case["rest"]) for case in cases), Counter[str]())
    name = "not_reproduced:"
    assert {k.removeprefix(name): n for k, n in counts.items() if k.startswith(name)} == rest


def test_rows_keep_the_recorded_text(sandbox: ProcessSandbox, tmp_path: Path) -> None:
    case = CASES["mathcoder"][4]
    file = tmp_path / "model.jsonl"
    file.write_text(json.dumps(row_of("mathcoder", case)))
    row = imported(file, "mathcoder", sandbox, tmp_path / "run")[0][0]
    blocks = "".join(f"<|{role}|>{content}<|endofblock|>" for role, content in case["blocks"][:-1])
    assert row.text == blocks + "<|endofmessage|>"
    assert "Solve it." in row.prompt


def test_two_files_on_the_same_questions_pair_up(sandbox: ProcessSandbox, tmp_path: Path) -> None:
    rows = []
    for name, case in zip(("right", "wrong"), CASES["mathcoder"], strict=False):
        file = tmp_path / f"{name}.jsonl"
        file.write_text(json.dumps(row_of("mathcoder", case)))
        rows += imported(file, "mathcoder", sandbox, tmp_path / "run")[0]
    made = naive_pairs(rows, PairConfig(heldout_share=0))
    assert [(pair.chosen_id, pair.rejected_id) for pair in made.pairs] == [(rows[0].id, rows[1].id)]


def test_an_import_stopped_after_any_row_ends_with_the_same_rows(
    sandbox: ProcessSandbox, tmp_path: Path
) -> None:
    lines = [json.dumps(row_of("mathcoder", case)) for case in CASES["mathcoder"][:3]]
    file = tmp_path / "model.jsonl"
    file.write_text("\n".join(itertools.islice(itertools.cycle(lines), BATCH + 3)))
    whole, counts = imported(file, "mathcoder", sandbox, tmp_path / "whole")
    assert len(whole) == BATCH + 3
    for n in (1, BATCH, len(whole)):
        again, counts_again = imported(
            file, "mathcoder", sandbox, tmp_path / str(n), before=whole[:n]
        )
        assert by_id(again) == by_id(whole)
        assert counts_again == counts


def test_an_empty_file_is_an_error(sandbox: ProcessSandbox, tmp_path: Path) -> None:
    file = tmp_path / "model.jsonl"
    file.write_text("\n")
    with pytest.raises(DataError, match=r"model\.jsonl: no solutions"):
        imported(file, "mathcoder", sandbox, tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "layout"), [("MathCoder-L-7b_GSM8K", "mathcoder"), ("ToRA-70b_GSM8K", "tora")]
)
def test_real_recordings_are_reproduced_and_graded_as_their_authors_did(
    name: str, layout: str, sandbox: ProcessSandbox, shared_data: Path, tmp_path: Path
) -> None:
    lines = (shared_data / "solutions" / f"{name}.jsonl").read_text().splitlines()[:40]
    file = tmp_path / f"{name}.jsonl"
    file.write_text("\n".join(lines))
    rows, counts = imported(file, layout, sandbox, tmp_path / "run")
    assert len(rows) == 40
    assert counts["code_blocks"] >= 40
    assert counts["reproduced"] == counts["code_blocks"]
    if layout == "mathcoder":  # these come from the authors' file of right ones
        assert counts["correct"] == 40
        return
    recorded = [json.loads(line) for line in lines]
    # ToRA takes a bare last number as the answer ("60% of the students …"), which says too little.
    assert [i for i, row in enumerate(rows) if row.answer is None] == [14]
    for row, record in zip(rows, recorded, strict=True):
        if row.answer is not None:
            assert (row.verdict.name == "correct") == (record["pred"][0] == record["gt"])
