"""Several sources of problems: in a recipe, in a run, and in its tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from scdpo.errors import InputError, RecipeError
from scdpo.pipeline.recipe import dump_recipe, make_recipe
from scdpo.pipeline.run import Run
from scdpo.records import Evaluation, Verdict
from small_runs import recipe, succeed

EMBEDDED = {"source": "embedded", "split": "train", "limit": 2}


def own(path: Path, *questions: str, **row: object) -> dict[str, Any]:
    rows = [{"question": question, "answer": 1, **row} for question in questions]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"source": "jsonl", "path": str(path)}


def test_a_part_may_have_one_source_or_several() -> None:
    parts = {"train": [EMBEDDED, EMBEDDED | {"split": "test"}], "test": EMBEDDED}
    made = make_recipe(recipe(problems=parts))
    assert [source.split for source in made.problems.sources("train")] == ["train", "test"]
    assert [source.split for source in made.problems.sources("test")] == ["train"]
    written = yaml.safe_load(dump_recipe(made))
    assert isinstance(written["problems"]["test"], dict)  # as recipes of earlier runs have it
    assert make_recipe(written) == made


FAULTS: dict[str, tuple[object, str]] = {
    "empty": ([], "problems.train: the list of sources is empty"),
    "unknown key": (
        [EMBEDDED, {"sorce": 1}],
        "unknown key 'problems.train.1.sorce' (did you mean source?); known here: ",
    ),
    "no path": ([{"source": "gsm8k"}], "problems.train.0: source 'gsm8k' needs a path"),
    "number": ([3], "problems.train.0: input should be a valid dictionary"),
    "limit": ([EMBEDDED | {"limit": 0}], "problems.train.0.limit: input should be greater than"),
    "of one": (EMBEDDED | {"limit": 0}, "problems.train.limit: input should be greater than"),
}


@pytest.mark.parametrize(("sources", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_in_a_list_is_named_by_its_place(sources: object, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        make_recipe(recipe() | {"problems": {"train": sources, "test": EMBEDDED}})
    assert str(error.value).startswith(f"recipe: {message}")


def test_a_run_reads_all_sources_in_their_order(tmp_path: Path) -> None:
    sources = [own(tmp_path / "b.jsonl", "One?", "Two?"), own(tmp_path / "a.jsonl", "One?")]
    made = make_recipe(recipe(problems={"train": sources, "test": EMBEDDED}))
    with Run(made, tmp_path / "run") as run:
        found = [(problem.dataset, problem.question) for problem in run.problems("train")]
    assert found == [("b", "One?"), ("b", "Two?"), ("a", "One?")]


def test_sources_with_a_question_in_common_are_refused(tmp_path: Path) -> None:
    sources = [own(tmp_path / f"{n}.jsonl", "One?", id="same") for n in range(2)]
    made = make_recipe(recipe(problems={"train": sources, "test": EMBEDDED}))
    with (
        pytest.raises(InputError, match=r"problems\.train: two of its sources have question same"),
        Run(made, tmp_path / "run") as run,
    ):
        run.problems("train")
    assert not (tmp_path / "run").exists()


def evaluated(number: int, dataset: str, verdict: str) -> Evaluation:
    return Evaluation(
        problem_id=f"{dataset}/{number}",
        dataset=dataset,
        policy="sft",
        level=str(number),
        gold="1",
        answer="1",
        verdict=Verdict.model_validate({"name": verdict}),
        finish="finished",
        n_steps=1,
        n_tokens=3,
        text="1",
    )


def test_accuracies_are_reported_for_each_data_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Levels too: those of two data sets have nothing to do with each other."""
    answers = {"gsm8k": ["correct", "correct"], "math": ["wrong", "correct", "wrong", "wrong"]}
    rows = [evaluated(n, name, v) for name, vs in answers.items() for n, v in enumerate(vs)]
    path = tmp_path / "run"
    with Run(make_recipe(recipe()), path) as run:
        stage = run.stage("evaluations/sft")
        stage.open({}, {})
        stage.append_new(rows, "problem_id")
        stage.finish()
        reports = run.report_by_dataset()
    assert {name: (of[0].n, of[0].accuracy) for name, of in reports.items()} == {
        "gsm8k": (2, 1.0),
        "math": (4, 0.25),
    }
    written = [json.loads(r) for r in (path / "report_by_dataset.jsonl").read_text().splitlines()]
    assert [row["dataset"] for row in written] == ["gsm8k", "math"]
    succeed("report", path)
    shown = capsys.readouterr().out
    titles = [line.strip() for line in shown.splitlines() if line.startswith(" Accuracy")]
    assert titles == [
        "Accuracy on gsm8k by level, %",
        "Accuracy on math by level, %",
        "Accuracy on gsm8k, greedy decoding",
        "Accuracy on math, greedy decoding",
        "Accuracy on all data sets, greedy decoding",
    ]
