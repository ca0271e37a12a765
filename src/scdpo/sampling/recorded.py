"""Recorded solutions of other models as solution rows: executed again, and graded here."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scdpo.errors import DataError
from scdpo.formats import Format, RecordedSolution, get_format, read_recorded
from scdpo.grading import Claim, Grader, judge
from scdpo.problems.gold import one_of_several, problem_id
from scdpo.records import Finish, Solution, Verdict
from scdpo.sampling.driver import Progress, all_of
from scdpo.sampling.flags import solution_flags
from scdpo.sampling.judging import claim_of
from scdpo.sampling.naive import count_solutions
from scdpo.sandbox import SESSION_ENDING_CUTS, Sandbox, same_output
from scdpo.store import Stage

BATCH = 64
"""Solutions that are graded together."""
SESSIONS = 8
"""Solutions that are executed side by side."""


@dataclass(slots=True)
class Reproduced:
    """How many recorded code blocks printed again what was recorded, and how the others fared."""

    blocks: int = 0
    same: int = 0
    rest: Counter[str] = field(default_factory=Counter)

    def add(self, other: Reproduced) -> None:
        """Count another solution's blocks in."""
        self.blocks += other.blocks
        self.same += other.same
        self.rest += other.rest

    def counts(self) -> dict[str, int | float]:
        """For a manifest: blocks, how many printed the same, and reasons for the rest."""
        counts: dict[str, int | float] = {"code_blocks": self.blocks, "reproduced": self.same}
        for reason in sorted(self.rest):
            if n := self.rest[reason]:
                counts[f"not_reproduced:{reason}"] = n
        return counts


async def import_recorded(
    path: Path,
    layout: str,
    dataset: str,
    grader: Grader,
    sandbox: Sandbox,
    stage: Stage,
    progress: Progress | None = None,
) -> dict[str, int | float]:
    """Import a file of recorded solutions into `stage`; returns its counts.

    Every program is executed again, in order and in one session per solution, and its output
    compared with the recorded one; the rows keep the recorded text, since that is what the
    policy went on from. Grading is ours, against the gold answer in the file. A row's problem
    id is made of the question, so that files on the same questions meet. An import that was
    stopped executes everything again, as no row holds what an execution printed here. Raises
    DataError for a malformed or empty file.
    """
    recorded = list(read_recorded(path, layout))
    if not recorded:
        raise DataError("no solutions in it", path)
    form = get_format(recorded[0].format)
    reproduced = Reproduced()
    seen: Counter[str] = Counter()
    turns = asyncio.Semaphore(SESSIONS)

    async def execute(one: RecordedSolution) -> Reproduced:
        async with turns:
            return await _execute(one, form, sandbox)

    for start in range(0, len(recorded), BATCH):
        part = recorded[start : start + BATCH]
        for one in await all_of(execute(r) for r in part):
            reproduced.add(one)
        stage.append_new(_solutions(part, path.stem, dataset, form, grader, seen))
        if progress is not None:
            progress(start + len(part), len(recorded))
    return count_solutions(stage.rows(Solution)) | reproduced.counts()


async def _execute(recorded: RecordedSolution, form: Format, sandbox: Sandbox) -> Reproduced:
    """Run a solution's programs; how many print what was recorded."""
    codes = [(form.code(s.text), s.output) for s in recorded.steps if s.kind == "code"]
    runnable = [(code, output) for code, output in codes if code is not None and output is not None]
    found = Reproduced(blocks=len(runnable))
    if not runnable:
        return found
    session = await sandbox.session()
    try:
        for n, (code, output) in enumerate(runnable, 1):
            execution = await session.run(code)
            if same_output(execution.output, output):
                found.same += 1
            else:
                found.rest[execution.cut or _kind(execution.output, output)] += 1
            if execution.cut in SESSION_ENDING_CUTS:
                found.rest["session lost before"] += len(runnable) - n
                break
    finally:
        await session.close()
    return found


def _kind(ours: str, recorded: str) -> str:
    """What differs, roughly: an error on one side or both, or just the text."""
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
    form: Format,
    grader: Grader,
    seen: Counter[str],
) -> list[Solution]:
    claims = [
        claim_of(r.steps, form, (r.gold,), several=one_of_several(dataset, r.question))
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
                steps=r.steps,
                finish=finish,
                answer=answer,
                verdict=verdict if r.finished else _unfinished(finish),
                flags=solution_flags(r.question, r.steps, form.stop),
                attempt=attempt,
                seed=0,
            )
        )
    return rows


def _unfinished(finish: Finish) -> Verdict:
    return Verdict(name="undecided", reason=f"unfinished: {finish}")
