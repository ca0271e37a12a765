"""A run folder with very many solutions: resuming its sampling, and making pairs.

    python benchmarks/scale_store.py [--solutions 1000000] [--attempts 10] [--folder DIR]

The solutions are synthetic: four steps, 160 token ids, two in five of them wrong. Each measurement
is a process of its own; its time is from its start to its end, imports included, and its memory is
the most that it held.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from scdpo.engines import ScriptedEngine
from scdpo.formats import get_format
from scdpo.grading import Grader
from scdpo.pairs import PairConfig
from scdpo.pipeline.pairing import PAIR_PARTS, make_pairs
from scdpo.records import CORRECT, WRONG, Problem, Solution, Step
from scdpo.sampling import SampleConfig, Sampler, count_solutions, sample_solutions
from scdpo.store import RunFolder

IDS = tuple(range(1000, 1040))


def solution(problem: int, attempt: int) -> Solution:
    """A synthetic solution of a problem."""
    right = attempt % 5 not in (1, 3)
    text = f"We add {problem} and {attempt}, which gives a number of some digits.\n"
    return Solution(
        id=f"p/{problem:07}#{attempt}",
        problem_id=f"p/{problem:07}",
        dataset="p",
        question=f"What is {problem} plus {attempt}, and then the rest of the question?",
        format="plain",
        policy="sft",
        prompt="### Question",
        prompt_ids=IDS,
        steps=(Step(kind="text", text=text, token_ids=IDS, temperature=1.0, mean_logp=-0.25),) * 4,
        finish="finished",
        answer=str(problem + right),
        verdict=CORRECT if right else WRONG,
        attempt=attempt,
        seed=attempt,
    )


def make(folder: Path, solutions: int, attempts: int) -> None:
    """Write the solutions as a stage that is not finished."""
    with RunFolder(folder) as run:
        stage = run.stage("solutions").open({})
        for problem in track(range(solutions // attempts), "solutions"):
            stage.append(solution(problem, attempt) for attempt in range(attempts))


def resume(folder: Path, solutions: int, attempts: int) -> None:
    """Go on with the sampling of problems that all have their solutions, as `scdpo sample` does."""
    problems = [
        Problem(id=f"p/{i:07}", dataset="p", question=f"What is {i}?", answer=str(i + 1))
        for i in range(solutions // attempts)
    ]
    config = SampleConfig(correct=attempts, wrong=0, max_attempts=attempts)
    sampler = Sampler(ScriptedEngine({}), get_format("plain"), Grader(), None)

    async def drawn(have: Iterator[Solution]) -> int:
        return sum(
            [len(rows) async for rows in sample_solutions(problems, sampler, config, existing=have)]
        )

    with RunFolder(folder) as run:
        stage = run.stage("solutions").open({})
        assert asyncio.run(drawn(stage.rows(Solution))) == 0
        stage.append_new([])
        counts = count_solutions(stage.rows(Solution))
        sys.stdout.write(json.dumps(counts) + "\n")


def pair(folder: Path, solutions: int, attempts: int) -> None:
    """Make all pairs."""
    with RunFolder(folder) as run:
        stages = [run.stage(f"pairs/{part}").open({}) for part in PAIR_PARTS]
        make_pairs(stages, [run.stage("solutions")], [], PairConfig())
        assert stages[0].manifest is not None
        sys.stdout.write(json.dumps(stages[0].manifest.counts) + "\n")


WORK = {"resume": resume, "pair": pair}


def in_a_process(work: str, folder: Path, solutions: int, attempts: int) -> tuple[float, float]:
    """Seconds and MiB of a piece of work in a fresh process."""
    begin = time.perf_counter()
    child = subprocess.Popen(
        [
            sys.executable,
            __file__,
            "--work",
            work,
            "--folder",
            str(folder),
            "--solutions",
            str(solutions),
            "--attempts",
            str(attempts),
        ]
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{work} failed")
    return time.perf_counter() - begin, usage.ru_maxrss / 1024


def main(
    solutions: Annotated[int, typer.Option(min=10)] = 1_000_000,
    attempts: Annotated[int, typer.Option(min=2)] = 10,
    folder: Annotated[Path | None, typer.Option(help="Where to make the run.")] = None,
    work: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure, and print a table."""
    if work is not None and folder is not None:
        WORK[work](folder, solutions, attempts)
        return
    made = Path(tempfile.mkdtemp(dir=folder, prefix="scale-"))
    try:
        make(made, solutions, attempts)
        size = sum(path.stat().st_size for path in made.rglob("rows-*.jsonl"))
        table = Table("", "seconds", "MiB at most")
        for name in WORK:
            seconds, memory = in_a_process(name, made, solutions, attempts)
            table.add_row(name, f"{seconds:.0f}", f"{memory:.0f}")
        table.caption = f"{solutions:,} solutions, {size / 2**30:.1f} GiB"
        Console().print(table)
    finally:
        shutil.rmtree(made)


if __name__ == "__main__":
    typer.run(main)
