"""Greedy evaluation: one row a question, graded, resumable."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from scdpo.engines import Request, ScriptedEngine
from scdpo.evaluation import EvaluateConfig, count_evaluations, evaluate_greedy
from scdpo.records import Evaluation, Problem
from scdpo.sampling import Limits
from scdpo.sandbox import ProcessSandbox, SandboxConfig
from scdpo.store import RunFolder, Stage
from scdpo.waiting import Progress, silent
from scripted_policies import (
    END,
    FORMAT,
    TOKENS,
    Counting,
    adder,
    additions,
    code,
    engine,
    sampler_of,
    say,
    text,
)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ProcessSandbox]:
    with ProcessSandbox(SandboxConfig(preload=(), deadline=1)) as opened:
        yield opened


def evaluated(
    problems: Sequence[Problem],
    policy: ScriptedEngine,
    sandbox: ProcessSandbox | None,
    path: Path,
    *,
    config: EvaluateConfig | None = None,
    before: Sequence[Evaluation] = (),
    progress: Progress = silent,
) -> tuple[list[Evaluation], dict[str, int | float]]:
    sampler = sampler_of(policy, sandbox)

    async def keep(stage: Stage) -> None:
        async for batch in evaluate_greedy(
            problems,
            sampler,
            config or EvaluateConfig(),
            existing=stage.ids("problem_id"),
            progress=progress,
        ):
            stage.append_new(batch, "problem_id")

    with RunFolder(path) as run:
        stage = run.stage("evaluations/sft").open({})
        stage.append(before)
        asyncio.run(keep(stage))
        rows = list(stage.rows(Evaluation))
        return rows, count_evaluations(rows)


def test_rows_hold_answer_verdict_and_text(sandbox: ProcessSandbox, tmp_path: Path) -> None:
    problem = additions(3)[2].model_copy(update={"level": "Level 1", "subject": "Sums"})
    rows, counts = evaluated([problem], engine(adder), sandbox, tmp_path)
    steps = [text("We add the numbers."), code("x = 2\nx"), code("x += 4\nx"), END]
    steps[3:] = [text(r"The answer is \boxed{6}.") + END]
    assert len(rows) == 1
    row = rows[0]
    assert (row.problem_id, row.dataset, row.policy) == (problem.id, "sums", "scripted")
    assert (row.level, row.subject, row.gold, row.answer) == ("Level 1", "Sums", "6", "6")
    assert (row.verdict.name, row.finish, row.n_steps) == ("correct", "finished", 4)
    assert row.n_tokens == sum(len(TOKENS.encode(step)) for step in steps)
    assert [step.text for step in FORMAT.parse(row.text)] == steps
    assert counts == {"correct": 1}


def test_it_is_greedy(tmp_path: Path) -> None:
    temperatures = set()

    def policy(request: Request) -> str:
        temperatures.add(request.temperature)
        return say(text("One.") + text("Two.") + END)(request)

    evaluated(additions(2), engine(policy), None, tmp_path)
    assert temperatures == {0.0}


ENDINGS = [
    (text(r"\boxed{2}") + END, "correct", "finished", {"correct": 1}),
    (text(r"\boxed{3}") + END, "wrong", "finished", {"wrong": 1}),
    (text("Who knows?") + END, "undecided", "finished", {"undecided": 1}),
    (text("On.") * 9, "undecided", "max_steps", {"undecided": 1, "cut:max_steps": 1}),
    ("<|text|>" + "and" * 99, "undecided", "step_tokens", {"undecided": 1, "cut:step_tokens": 1}),
    (code("while True: pass"), "undecided", "sandbox", {"undecided": 1, "cut:sandbox": 1}),
]


@pytest.mark.parametrize(("solution", "verdict", "finish", "counted"), ENDINGS)
def test_endings(
    solution: str,
    verdict: str,
    finish: str,
    counted: dict[str, int],
    sandbox: ProcessSandbox,
    tmp_path: Path,
) -> None:
    config = EvaluateConfig(limits=Limits(max_steps=5, step_tokens=200))
    rows, counts = evaluated(additions(1), engine(say(solution)), sandbox, tmp_path, config=config)
    assert (rows[0].verdict.name, rows[0].finish) == (verdict, finish)
    assert (rows[0].answer is None) == (finish != "finished" or verdict == "undecided")
    assert counts == counted


def test_an_evaluation_stopped_after_any_row_ends_with_the_same_rows(
    sandbox: ProcessSandbox, tmp_path: Path
) -> None:
    problems = additions(7)
    config = EvaluateConfig(rows=3)
    whole, counts = evaluated(problems, engine(adder), sandbox, tmp_path / "whole", config=config)
    assert [row.problem_id for row in whole] == [problem.id for problem in problems]
    for n in range(len(whole) + 1):
        again, counts_again = evaluated(
            problems,
            engine(adder),
            sandbox,
            tmp_path / str(n),
            config=config,
            before=whole[:n],
        )
        assert again == whole
        assert counts_again == counts


def test_only_batches_that_lack_rows_are_done_again(
    sandbox: ProcessSandbox, tmp_path: Path
) -> None:
    problems = additions(6)
    config = EvaluateConfig(rows=2)
    whole, _ = evaluated(problems, engine(adder), sandbox, tmp_path / "whole", config=config)
    for n, cleared in ((6, 0), (5, 1), (0, 3)):
        policy = Counting()
        path = tmp_path / str(n)
        evaluated(problems, policy, sandbox, path, config=config, before=whole[:n])
        assert policy.cleared == cleared
        assert bool(policy.asked) == bool(cleared)


def test_rows_do_not_depend_on_batches(sandbox: ProcessSandbox, tmp_path: Path) -> None:
    sets = [
        evaluated(
            additions(7),
            engine(adder),
            sandbox,
            tmp_path / str(rows),
            config=EvaluateConfig(rows=rows),
        )[0]
        for rows in (1, 3, 100)
    ]
    assert sets[0] == sets[1] == sets[2]


def test_progress_counts_questions(sandbox: ProcessSandbox, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    evaluated(
        additions(7),
        engine(adder),
        sandbox,
        tmp_path,
        config=EvaluateConfig(rows=4),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (7, 7)
    assert {total for _, total in seen} == {7}
