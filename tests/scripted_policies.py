"""What the tests of sampling share: a policy that adds two numbers by scripted rules, the real
sandbox and grader around it, and stages to write to."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TypeVar

from scdpo.engines import CodePoints, Completion, Request, ScriptedEngine
from scdpo.formats import get_format
from scdpo.grading import Grader
from scdpo.records import Problem, Solution
from scdpo.sampling import (
    BranchConfig,
    SampleConfig,
    Sampler,
    branch_solutions,
    count_branches,
    count_solutions,
    sample_solutions,
)
from scdpo.sandbox import ProcessSandbox
from scdpo.store import RunFolder, Stage
from scdpo.waiting import Counter, Progress, silent, uncounted

FORMAT = get_format("blocks", system="")
END = FORMAT.end[0]
TOKENS = CodePoints(FORMAT.special_tokens)
T = TypeVar("T")


def text(content: str) -> str:
    """A text block."""
    return f"<|text|>{content}<|endofblock|>"


def code(content: str) -> str:
    """A code block."""
    return f"<|code|>{content}<|endofblock|>"


def engine(script: Callable[[Request], str], *, logp: float = -0.5) -> ScriptedEngine:
    """A scripted engine that knows the markers of the `blocks` format."""
    return ScriptedEngine(script, special_tokens=FORMAT.special_tokens, logp=logp)


class Counting(ScriptedEngine):
    """The adder, counting the calls that shape what a real engine remembers."""

    def __init__(self) -> None:
        super().__init__(adder, special_tokens=FORMAT.special_tokens, logp=-0.5)
        self.cleared = 0
        self.asked = 0

    def clear(self) -> None:
        self.cleared += 1

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        self.asked += len(requests)
        return await super().generate(requests)


def say(solution: str) -> Callable[[Request], str]:
    """Writes this solution, whatever it is asked."""
    return lambda request: rest(solution, request)


def rest(solution: str, request: Request) -> str:
    """What is left of a solution for a rollout that has sampled a part of it."""
    return TOKENS.decode(TOKENS.encode(solution)[request.position :])


def written(request: Request) -> str:
    """What stands in the prompt after the header of the assistant's turn."""
    return TOKENS.decode(request.prompt_ids).partition("<|assistant|>")[2]


def adder(request: Request) -> str:
    """Adds in two programs, the second of which needs the first one's variable.

    The warmer it is the likelier it is to be wrong in the second, and to write a text in
    between; what it does depends on its seed and on how much it has written.
    """
    prompt = TOKENS.decode(request.prompt_ids)
    found = re.search(r"Add (\d+) and (\d+)", prompt)
    assert found is not None
    so_far = written(request)
    chance = random.Random(f"{request.seed}/{request.position}").random()
    outputs = re.findall(r"<\|execution\|>(.*?)<\|endofblock\|>", so_far)
    if not so_far:
        return text("We add the numbers.")
    if "boxed" in so_far:
        return END
    if not outputs:
        return code(f"x = {found[1]}\nx")
    if len(outputs) == 1:
        if chance < 0.2 and not so_far.endswith(text("Now the other.")):
            return text("Now the other.")
        wrong = chance > 1 - 0.45 * request.temperature
        return code(f"x += {found[2]}{' + 1' if wrong else ''}\nx")
    return text(rf"The answer is \boxed{{{outputs[-1]}}}.")


def additions(n: int, dataset: str = "sums") -> list[Problem]:
    """Problems for the adder."""
    return [
        Problem(
            id=f"{dataset}/{i}",
            dataset=dataset,
            question=f"Add {i} and {i + 2}?",
            answer=str(2 * i + 2),
        )
        for i in range(n)
    ]


def sampler_of(
    script: Callable[[Request], str] | ScriptedEngine, sandbox: ProcessSandbox | None
) -> Sampler:
    """A sampler of a scripted policy."""
    policy = script if isinstance(script, ScriptedEngine) else engine(script)
    return Sampler(policy, FORMAT, Grader(), sandbox)


async def keep_sampled(
    problems: Sequence[Problem],
    config: SampleConfig,
    sampler: Sampler,
    stage: Stage,
    progress: Progress = silent,
    drawn: Counter = uncounted,
) -> dict[str, int | float]:
    """Sample into a stage what it lacks, as a run does; counts of the whole stage."""
    existing = stage.rows(Solution)
    async for rows in sample_solutions(
        problems, sampler, config, existing=existing, progress=progress, drawn=drawn
    ):
        stage.append_new(rows)
    return count_solutions(stage.rows(Solution))


async def keep_branches(
    parents: Sequence[Solution],
    config: BranchConfig,
    sampler: Sampler,
    stage: Stage,
    progress: Progress = silent,
    *,
    problems: Sequence[Problem] = (),
) -> dict[str, int | float]:
    """Branch into a stage what it lacks, as a run does; counts of the whole stage."""
    existing = stage.rows(Solution)
    async for rows in branch_solutions(
        parents, sampler, config, problems=problems, existing=existing, progress=progress
    ):
        stage.append_new(rows)
    return count_branches(stage.rows(Solution))


def run_stage(
    path: Path,
    work: Callable[[Stage], Coroutine[object, object, T]],
    before: Sequence[Solution] = (),
) -> tuple[list[Solution], T]:
    """The rows of a stage, and what `work` returned, where it finds `before` in it already."""
    with RunFolder(path) as run:
        stage = run.stage("solutions").open({})
        stage.append(before)
        result = asyncio.run(work(stage))
        return list(stage.rows(Solution)), result


def by_id(rows: Sequence[Solution]) -> list[str]:
    """Rows as text, in the order of their ids: equal for equal sets of rows."""
    return [row.model_dump_json() for row in sorted(rows, key=lambda row: row.id)]


def fresh_sessions(sandbox: ProcessSandbox, n: int) -> int:
    """How many sessions out of `n` a sandbox still opens; they are closed again."""

    async def count() -> int:
        sessions = [await sandbox.session() for _ in range(n)]
        for session in sessions:
            await session.close()
        return len(sessions)

    return asyncio.run(count())
