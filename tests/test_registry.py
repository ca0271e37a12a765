"""Engines by name: those of the package, of this process, and of another package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scdpo.engines import (
    EngineConfig,
    EngineKind,
    LocalEngineConfig,
    engine_config,
    open_engine,
    register_engine,
    registry,
)
from scdpo.errors import EngineError, InputError, RecipeError
from scdpo.pipeline.recipe import dump_recipe, load_recipe, make_recipe
from scdpo.pipeline.run import Run
from scdpo.records import Solution
from scripted_policies import adder, additions, engine

PLUGIN = """
from scdpo.engines import EngineConfig, EngineKind, ScriptedEngine

class Config(EngineConfig):
    name: str = "parrot"
    word: str

KIND = EngineKind(Config, lambda policy, config: ScriptedEngine(lambda request: config.word))
BROKEN = 3
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package that adds engines by entry points."""
    (tmp_path / "parrot_engine.py").write_text(PLUGIN)
    info = tmp_path / "parrot-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parrot\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[scdpo.engines]\nparrot = parrot_engine:KIND\nbroken = parrot_engine:BROKEN\n"
        "gone = parrot_gone:KIND\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("parrot_engine", None)
    registry._KINDS.pop("parrot", None)


def recipe(**changes: object) -> dict[str, object]:
    problems = {part: {"source": "embedded", "split": part} for part in ("train", "test")}
    return {"problems": problems, **changes}


def test_the_engine_in_this_process_is_the_default() -> None:
    assert engine_config({}) == LocalEngineConfig()
    assert engine_config({"max_rows": 3}) == LocalEngineConfig(max_rows=3)
    assert make_recipe(recipe()).engine == LocalEngineConfig()


@pytest.mark.usefixtures("plugin")
def test_a_recipe_names_an_engine_of_another_package(tmp_path: Path) -> None:
    made = make_recipe(recipe(engine={"name": "parrot", "word": "hello"}))
    assert open_engine("any", made.engine).name == "scripted"
    written = tmp_path / "my.yaml"
    written.write_text(dump_recipe(made))
    assert load_recipe(written).model_dump() == made.model_dump()


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("engine", "error", "message"),
    [
        ({"name": "parott"}, RecipeError, "unknown engine 'parott'; known: local, "),
        ({"name": "parrot"}, RecipeError, "recipe: key 'engine.word' is missing"),
        ({"name": "parrot", "wrd": "x"}, RecipeError, "'engine.wrd' .did you mean word"),
        ({"name": "broken"}, EngineError, "'broken': parrot_engine:BROKEN is not an EngineKind"),
        ({"name": "gone"}, EngineError, "'gone': parrot_gone:KIND .*No module named 'parrot_gone'"),
        ({"max_row": 1}, RecipeError, "'engine.max_row' .did you mean max_rows"),
    ],
)
def test_wrong_engines_are_one_line(
    engine: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_recipe(recipe(engine=engine))


def test_a_kind_is_registered_in_this_process() -> None:
    register_engine("sums", EngineKind(EngineConfig, lambda policy, config: engine(adder)))
    try:
        assert open_engine("any", engine_config({"name": "sums"})).name == "scripted"
    finally:
        registry._KINDS.pop("sums")
    with pytest.raises(InputError, match="unknown engine 'sums'"):
        engine_config({"name": "sums"})


@pytest.mark.parametrize("named", [False, True])
def test_a_run_takes_an_engine_or_its_name(named: bool, tmp_path: Path) -> None:
    problems = tmp_path / "sums.jsonl"
    rows = [f'{{"question": "{p.question}", "answer": "{p.answer}"}}\n' for p in additions(3)]
    problems.write_text("".join(rows))
    source = {"source": "jsonl", "path": str(problems)}
    made = make_recipe(
        {
            "problems": {"train": source, "test": source},
            "format": {"name": "blocks", "system": ""},
            "sample": {"max_attempts": 3},
        }
    )
    mine = engine(adder)
    register_engine("sums", EngineKind(EngineConfig, lambda policy, config: engine(adder)))
    try:
        with Run(made, tmp_path / "run", engine="sums" if named else mine) as run:
            run.sample()
            solutions = list(run.stage("solutions").rows(Solution))
    finally:
        registry._KINDS.pop("sums")
    assert len({s.problem_id for s in solutions}) == 3
    assert {s.policy for s in solutions} == {"sft"}
    assert mine.name == "scripted"  # an engine of the caller's is left as it is
