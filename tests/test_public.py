"""The public face: what `import scdpo` offers, that it is documented, and that examples run."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import scdpo
from scdpo.errors import InputError
from scripted_policies import END, FORMAT, adder, additions, engine, say, text

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PACKAGES = tuple(name for name in scdpo.__all__ if inspect.ismodule(getattr(scdpo, name)))
PUBLIC = tuple(name for name in scdpo.__all__ if name not in PACKAGES)
NAMES = [("scdpo", name) for name in PUBLIC] + [
    (f"scdpo.{package}", name)
    for package in PACKAGES
    for name in getattr(getattr(scdpo, package), "__all__", ())
]


def exported(package: str, name: str) -> object:
    return getattr(__import__(package, fromlist=[name]), name)


@pytest.mark.parametrize(("package", "name"), NAMES, ids=[f"{p}.{n}" for p, n in NAMES])
def test_an_exported_name_exists_and_is_documented(package: str, name: str) -> None:
    value = exported(package, name)
    if inspect.isfunction(value) or inspect.isclass(value):
        assert value.__doc__, f"{package}.{name} has no docstring"
        assert not value.__doc__.startswith(f"{name}("), "a docstring that dataclass made up"


def test_there_are_few_public_names() -> None:
    assert len(PUBLIC) <= 30
    with pytest.raises(AttributeError, match="brunch"):
        scdpo.brunch  # noqa: B018


@pytest.mark.parametrize("name", [n for n in PUBLIC if f"{n}_async" in PUBLIC])
def test_a_twin_takes_the_same_parameters(name: str) -> None:
    own = inspect.signature(getattr(scdpo, name)).parameters
    twin = getattr(scdpo, f"{name}_async")
    assert inspect.iscoroutinefunction(twin)
    assert list(inspect.signature(twin).parameters) == list(own)


def test_importing_it_loads_nothing_heavy() -> None:
    script = "import scdpo, sys; print({'torch', 'pydantic', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


# ---- in memory, with a scripted engine

RIGHT = text(r"\boxed{2}") + END
WRONG = text(r"\boxed{3}") + END


def drawn() -> tuple[list[scdpo.Solution], list[scdpo.Solution]]:
    with scdpo.Sandbox(preload=(), deadline=2) as box:
        solutions = scdpo.sample(
            additions(8), engine(adder), sandbox=box, format=FORMAT, max_attempts=6, rows=8
        )
        branches = scdpo.branch(
            solutions, engine(adder), sandbox=box, format=FORMAT, problems=additions(8), rows=8
        )
    return solutions, branches


def test_solutions_branches_and_pairs_in_memory() -> None:
    solutions, branches = drawn()
    assert {s.problem_id for s in solutions} == {p.id for p in additions(8)}
    parents = {s.id for s in solutions if s.side() == "chosen"}
    assert branches
    assert {b.parent for b in branches} <= parents
    assert branches[0].steps[branches[0].branch_step].temperature == 1.1
    pairs = scdpo.pair(solutions, branches, heldout_share=0)
    assert {pair.kind for pair in pairs} == {"naive", "step_controlled"}
    assert {pair.kind for pair in scdpo.pair(solutions)} == {"naive"}


def test_the_same_inside_a_running_event_loop() -> None:
    outside = drawn()

    async def cell() -> tuple[list[scdpo.Solution], list[scdpo.Solution]]:
        return drawn()

    assert asyncio.run(cell()) == outside


def test_the_twins_in_an_event_loop() -> None:
    policy = engine(say(RIGHT))

    async def cell() -> tuple[list[scdpo.Solution], float]:
        solutions = await scdpo.sample_async(additions(1), policy, format=FORMAT, max_attempts=2)
        assert await scdpo.branch_async(solutions, policy) == []
        report = await scdpo.evaluate_async(additions(1), policy, format=FORMAT)
        judged = await scdpo.grade_async(r"\boxed{2}", "2")
        assert judged.verdict.correct
        return solutions, report.accuracy.accuracy

    solutions, accuracy = asyncio.run(cell())
    assert [s.verdict.name for s in solutions] == ["correct"] * 2
    assert accuracy == 1.0


def test_evaluation_in_memory_and_two_policies_compared() -> None:
    a, b = (
        scdpo.evaluate(additions(1), engine(say(solution)), format=FORMAT)
        for solution in (RIGHT, WRONG)
    )
    assert (a.accuracy.correct, b.accuracy.wrong) == (1, 1)
    assert scdpo.compare(a.rows, b.rows).difference == 1.0


def test_an_unknown_setting_offers_the_nearest() -> None:
    policy = engine(say(END))
    for call in (
        lambda: scdpo.sample(additions(1), policy, max_atempts=3),
        lambda: scdpo.pair([], heldout_shar=0),
        lambda: scdpo.train("embedded", [], "unused", bta=0.1),
    ):
        with pytest.raises(InputError, match=r"did you mean (max_attempts|heldout_share|beta)"):
            call()


# ---- examples


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(example: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(example), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=240,
        env=os.environ | {"TOKENIZERS_PARALLELISM": "false"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr


def test_the_example_of_an_own_engine_is_short() -> None:
    source = (ROOT / "examples" / "own_engine.py").read_text()
    body = source[source.index("def main") :].splitlines()
    lines = [line for line in body if line.strip() and '"""' not in line]
    assert len(lines) <= 20
    assert [line for line in source.splitlines() if "import scdpo" in line] == ["import scdpo"]
    assert "from scdpo" not in source
