"""Recorded solutions of other models as solution rows, executed and graded again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scdpo.errors import DataError, InputError
from scdpo.formats import (
    Format,
    RecordedSolution,
    get_format,
    read_recorded,
    rewrite,
    unwritten_reason,
)
from scdpo.grading import Claim, Grader, judge
from scdpo.problems import one_of_several, problem_id
from scdpo.records import Finish, Solution
from scdpo.sampling.driver import all_of
from scdpo.sampling.flags import solution_flags
from scdpo.sampling.solutions import claim_of, unfinished
from scdpo.sandbox import SESSION_ENDING_CUTS, SandboxProtocol, same_output
from scdpo.waiting import Progress, silent

Encode = Callable[..., Sequence[int]]
"""Token ids of a text; `start=True` puts the token that begins every text before them."""
BATCH = 64
"""Number of solutions graded together."""
SESSIONS = 8
"""Number of solutions executed side by side."""


@dataclass(slots=True)
class Reproduced:
    """How many recorded code blocks reproduced their output, and why the others did not; and why
    solutions could not be written in the run's format."""

    blocks: int = 0
    same: int = 0
    rest: Counter[str] = field(default_factory=Counter)
    unwritten: Counter[str] = field(default_factory=Counter)

    def add(self, other: Reproduced) -> None:
        """Add the counts of another solution."""
        self.blocks += other.blocks
        self.same += other.same
        self.rest += other.rest

    def counts(self) -> dict[str, int | float]:
        """Counts for a manifest: blocks, reproduced blocks, and reasons for the rest."""
        counts: dict[str, int | float] = {"code_blocks": self.blocks, "reproduced": self.same}
        for reason in sorted(self.rest):
            if n := self.rest[reason]:
                counts[f"not_reproduced:{reason}"] = n
        return counts | {f"left_out:{k}": n for k, n in sorted(self.unwritten.items())}

    @property
    def said(self) -> str:
        """The reasons why solutions could not be written, with their numbers."""
        return ", ".join(f"{n} {reason}" for reason, n in self.unwritten.most_common())


async def recorded_solutions(
    path: Path,
    layout: str,
    dataset: str,
    grader: Grader,
    sandbox: SandboxProtocol,
    reproduced: Reproduced,
    progress: Progress = silent,
    *,
    format: Format | None = None,
    encode: Encode | None = None,
) -> AsyncIterator[list[Solution]]:
    """Yield the graded solutions of a file of recorded solutions, a batch at a time.

    Every program is executed again, in order and in one session per solution, and its output is
    compared with the recorded output; `reproduced` counts the matches. Solutions are written in
    `format`, with its prompt and end marker: those that were recorded in the same kind of format
    keep their text, others are rewritten step by step, and what the format cannot hold is left
    out and counted. Without `format` the rows are as recorded. `encode` gives prompts their token
    ids. Solutions are graded with our grader, against the gold answers in the file. Problem ids
    are made from the questions, so that files on the same questions can be joined. Raises
    InputError for an unknown layout, DataError for a malformed or empty file or one without a
    solution that the format can hold, SandboxError and GradingError.
    """
    recorded = list(read_recorded(path, layout, **({} if format is None else {"end": ""})))
    if not recorded:
        raise DataError("no solutions in it", path)
    if format is None:
        format = get_format(recorded[0].format)
    else:
        recorded = list(_rewritten(recorded, format, reproduced))
        if not recorded:
            raise DataError(
                f"no solution that format {format.name!r} can hold: {reproduced.said}", path
            )
    seen: Counter[str] = Counter()
    turns = asyncio.Semaphore(SESSIONS)

    async def execute(solution: RecordedSolution) -> Reproduced:
        async with turns:
            return await _execute(solution, format, sandbox)

    for start in range(0, len(recorded), BATCH):
        part = recorded[start : start + BATCH]
        for counted in await all_of(execute(solution) for solution in part):
            reproduced.add(counted)
        yield _solutions(part, path.stem, dataset, format, grader, seen, encode)
        progress(start + len(part), len(recorded))


def _rewritten(
    recorded: Sequence[RecordedSolution], format: Format, counts: Reproduced
) -> Iterator[RecordedSolution]:
    """The solutions in another format; `counts` gets those that it cannot hold, by reason."""
    for solution in recorded:
        source = get_format(solution.format, end=())
        try:
            steps = rewrite(solution.steps, source, format, finished=solution.finished)
        except InputError as error:
            counts.unwritten[unwritten_reason(error)] += 1
            continue
        yield solution.model_copy(
            update={
                "format": format.name,
                "prompt": format.prompt(solution.question),
                "steps": steps,
            }
        )


async def _execute(
    recorded: RecordedSolution, format: Format, sandbox: SandboxProtocol
) -> Reproduced:
    """Run a solution's programs and count how many print what was recorded."""
    codes = [(format.code(s.text), s.output) for s in recorded.steps if s.kind == "code"]
    runnable = [(code, output) for code, output in codes if code is not None and output is not None]
    counted = Reproduced(blocks=len(runnable))
    if not runnable:
        return counted
    session = await sandbox.session()
    try:
        for n, (code, output) in enumerate(runnable, 1):
            execution = await session.run(code)
            if same_output(execution.output, output):
                counted.same += 1
            else:
                counted.rest[execution.cut or difference(execution.output, output)] += 1
            if execution.cut in SESSION_ENDING_CUTS:
                counted.rest["session lost before"] += len(runnable) - n
                break
    finally:
        await session.close()
    return counted


def difference(ours: str, recorded: str) -> str:
    """Roughly how two outputs differ: an error on one or both sides, or just the text."""
    here, there = "Error" in ours, "Error" in recorded
    if here and there:
        return "other error"
    if here:
        return "error only here"
    return "error only recorded" if there else "other text"


def _solutions(
    part: Sequence[RecordedSolution],
    policy: str,
    dataset: str,
    format: Format,
    grader: Grader,
    seen: Counter[str],
    encode: Encode | None,
) -> list[Solution]:
    claims = [
        claim_of(r.steps, format, (r.gold,), several=one_of_several(dataset, r.question))
        if r.finished
        else Claim(None, (r.gold,))
        for r in part
    ]
    rows = []
    for r, (answer, verdict) in zip(part, judge(claims, grader), strict=True):
        name = problem_id(dataset, r.question)
        attempt = seen[name]
        seen[name] += 1
        finish: Finish = "finished" if r.finished else "max_steps"
        rows.append(
            Solution(
                id=f"{name}#{policy}.{attempt}",
                problem_id=name,
                dataset=dataset,
                question=r.question,
                format=r.format,
                policy=policy,
                prompt=r.prompt,
                prompt_ids=() if encode is None else tuple(encode(r.prompt, start=True)),
                steps=r.steps,
                finish=finish,
                answer=answer,
                verdict=verdict if r.finished else unfinished(finish),
                flags=solution_flags(r.question, r.steps, format.stop),
                attempt=attempt,
                seed=0,
            )
        )
    return rows
