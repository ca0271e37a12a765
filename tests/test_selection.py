"""Which problems of a source are taken: offset, limit, ids; and questions that two sets share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scdpo.errors import DataError, InputError, RecipeError
from scdpo.pipeline.recipe import make_recipe
from scdpo.pipeline.run import Run
from scdpo.pipeline.services import Silent
from scdpo.problems import load_problems, shared_questions
from small_runs import recipe


def write(path: Path, questions: list[str]) -> str:
    rows = [{"question": q, "answer": "1"} for q in questions]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def asked(path: str, **which: Any) -> list[str]:
    return [problem.question for problem in load_problems("jsonl", path, **which)]


def test_offset_and_limit_cut_a_source_into_parts_that_share_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", list("abcde"))
    assert asked(path, limit=2) + asked(path, offset=2, limit=2) + asked(path, offset=4) == list(
        "abcde"
    )
    assert asked(path, offset=3, limit=9) == list("de")
    with pytest.raises(DataError, match="offset 5: there are only 5 problems"):
        asked(path, offset=5)
    with pytest.raises(InputError, match="offset -1: must not be negative"):
        asked(path, offset=-1)


def test_the_id_of_a_repeated_question_does_not_depend_on_the_offset(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", ["a", "b", "a"])
    whole = load_problems("jsonl", path)
    assert whole[2].id == f"{whole[0].id}-2"
    assert load_problems("jsonl", path, offset=1) == whole[1:]


def test_embedded_problems_have_an_offset_too() -> None:
    whole = load_problems("embedded", split="validation", limit=5)
    assert load_problems("embedded", split="validation", offset=3, limit=2) == whole[3:]
    chosen = [whole[4].id, whole[1].id]
    assert load_problems("embedded", split="validation", ids=chosen) == [whole[1], whole[4]]


@pytest.mark.parametrize(
    "lines",
    [
        lambda ids: [*ids, ""],
        lambda ids: [json.dumps({"id": i, "question": "?"}) for i in ids],
        lambda ids: [json.dumps({"id": f"{i}#0", "problem_id": i}) for i in ids],
    ],
    ids=["one a line", "problems", "solutions"],
)
def test_ids_come_from_a_list_or_a_file(lines: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", list("abcd"))
    ids = [problem.id for problem in load_problems("jsonl", path)]
    file = tmp_path / "ids"
    file.write_text("\n".join(lines([ids[3], ids[1]])))
    for given in (file, str(file), [ids[3], ids[1]]):
        assert asked(path, ids=given) == ["b", "d"]
    assert asked(path, ids=file, limit=1, offset=1) == ["d"], "of those that the ids leave"
    stage = tmp_path / "solutions"
    stage.mkdir()
    (stage / "manifest.json").write_text("{}")
    file.rename(stage / "rows-00000.jsonl")
    assert asked(path, ids=stage) == ["b", "d"]


def test_ids_that_are_not_there_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", list("ab"))
    with pytest.raises(DataError, match="no problem with id x1, x2, x3 and 1 more"):
        asked(path, ids=["x1", "x2", "x3", "x4"])
    with pytest.raises(DataError, match="ids cannot be read: No such file"):
        asked(path, ids=tmp_path / "none")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(DataError, match="no ids in it"):
        asked(path, ids=tmp_path / "empty")
    (tmp_path / "rows").write_text('{"name": "a"}\n')
    with pytest.raises(DataError, match=r"rows, line 1: no id or problem_id in it"):
        asked(path, ids=tmp_path / "rows")


def test_shared_questions_are_counted_whatever_their_spaces_and_case(tmp_path: Path) -> None:
    one = load_problems("jsonl", write(tmp_path / "a.jsonl", ["How many?", "What  now?", "a"]))
    two = load_problems("jsonl", write(tmp_path / "b.jsonl", ["how many?", "What now?\n", "b"]))
    assert (shared_questions(one, two), shared_questions(one, two[2:])) == (2, 0)


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, label: str, text: str) -> None:
        self.notes.append(f"{label}: {text}")

    def progress(self, name: str) -> Any:
        raise AssertionError("nothing is generated here")


def test_a_run_says_that_test_questions_are_trained_on(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", list("abcdef"))
    parts = {
        "train": {"source": "jsonl", "path": path, "limit": 4},
        "test": {"source": "jsonl", "path": path, "offset": 3},
    }
    made = make_recipe(recipe(problems=parts))
    assert made.problems.test.offset == 3
    watcher = Notes()
    with Run(made, tmp_path / "run", watcher) as run:
        assert [p.question for p in run.problems("test")] == list("def")
        assert watcher.notes == []
        run.problems("train")
    assert len(watcher.notes) == 1
    assert watcher.notes[0].startswith("problems: 1 of 3 test questions are also training")
    apart = make_recipe(recipe(problems=parts | {"train": parts["train"] | {"limit": 3}}))
    watcher = Notes()
    with Run(apart, tmp_path / "apart", watcher) as run:
        run.problems("train")
        run.problems("test")
    assert watcher.notes == []


def test_a_recipe_takes_ids_as_a_list_or_a_file() -> None:
    for ids in (["p1"], "ids.txt"):
        train = {"source": "embedded", "split": "train", "ids": ids}
        found = make_recipe(recipe(problems={"train": train})).problems.train.ids
        assert found == (tuple(ids) if isinstance(ids, list) else ids)
    with pytest.raises(
        RecipeError, match=r"problems\.train\.offset: .* greater than or equal to 0"
    ):
        make_recipe(recipe(problems={"train": {"source": "embedded", "offset": -1}}))


def test_a_folder_of_before_these_keys_goes_on(tmp_path: Path) -> None:
    made = make_recipe(recipe())
    with Run(made, tmp_path / "run") as run:
        run.problems("train")
        manifest = run.stage("problems/train").path / "manifest.json"
    old = json.loads(manifest.read_text())
    for key in ("offset", "ids"):
        assert old["config"]["problems"]["train"].pop(key) is None
    manifest.write_text(json.dumps(old))
    (tmp_path / "run" / "recipe.yaml").write_text("policy: embedded\n")
    with Run(made, tmp_path / "run") as run:
        assert len(run.problems("train")) == 3
