"""Solutions to learn from, as solution rows in a format: executed, graded, and counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import replace

from scdpo.errors import InputError
from scdpo.formats import Format, unwritten_reason, write_text, write_worked
from scdpo.grading import Grader, judge
from scdpo.problems import problem_id
from scdpo.records import Solution, Step, Verdict, WorkedStep, undecided
from scdpo.sampling.driver import all_of
from scdpo.sampling.recorded import SESSIONS, difference
from scdpo.sampling.solutions import claim_of
from scdpo.sampling.teaching import SFTData, Taught
from scdpo.sandbox import SESSION_ENDING_CUTS, SandboxProtocol, same_output
from scdpo.waiting import Progress, silent

BATCH = 64
"""Number of rows executed and graded together: the unit of resumption."""
UNUSABLE = "unusable:"
"""Prefix of the flag that says why a row cannot be learnt from."""
NOT_GRADED = Verdict(name="correct", reason="not graded")
"""The verdict on a solution that is taken as right, for want of a gold answer or on request."""


async def demonstrations(
    taught: Sequence[Taught],
    data: SFTData,
    format: Format,
    grader: Grader,
    sandbox: SandboxProtocol | None,
    *,
    existing: Collection[str] = (),
    progress: Progress = silent,
) -> AsyncIterator[list[Solution]]:
    """Yield a solution row for every row of the data, a batch at a time.

    The rows worth learning from are those whose `side` is `chosen`; every other has a verdict
    other than correct, or a flag that begins with `UNUSABLE`. With `data.execute`, programs run
    in one session per solution. Batches whose ids are all in `existing` are skipped. Raises
    SandboxError and GradingError.
    """
    turns = asyncio.Semaphore(SESSIONS)
    seen: dict[tuple[str, str, str], str] = {}
    attempts: Counter[str] = Counter()

    async def executed(one: Taught) -> Taught:
        if not data.execute or sandbox is None or one.reason:
            return one
        async with turns:
            return await _executed(one, sandbox)

    for start in range(0, len(taught), BATCH):
        part = taught[start : start + BATCH]
        names = [_names(one, data) for one in part]
        numbers = []
        for question, _ in names:
            numbers.append(attempts[question])
            attempts[question] += 1
        fresh = [
            _first(one, question, seen) for one, (question, _) in zip(part, names, strict=True)
        ]
        if any(name not in existing for _, name in names):
            ran = await all_of(executed(one) for one in fresh)
            yield _solutions(ran, names, numbers, data, format, grader)
        progress(start + len(part), len(taught))


def count_demonstrations(rows: Iterable[Solution]) -> dict[str, int | float]:
    """Counts of rows: used, with how many code steps, and why the others are not."""
    counts: Counter[str] = Counter(dict.fromkeys(("rows", "used", "questions", "code_steps"), 0))
    questions: set[str] = set()
    for row in rows:
        counts["rows"] += 1
        if row.side() == "chosen":
            counts["used"] += 1
            counts["graded"] += row.verdict != NOT_GRADED
            counts["code_steps"] += sum(step.kind == "code" for step in row.steps)
            questions.add(row.problem_id)
        else:
            counts[reason_of(row)] += 1
    counts["questions"] = len(questions)
    reasons = sorted(name for name in counts if name.startswith(UNUSABLE))
    return {name: counts[name] for name in (*(n for n in counts if n not in reasons), *reasons)}


def reason_of(row: Solution) -> str:
    """Why a row is not used, beginning with `UNUSABLE`; empty if it is."""
    if row.side() == "chosen":
        return ""
    if row.flags:
        return row.flags[0]
    if row.verdict.wrong:
        return f"{UNUSABLE}wrong answer"
    return f"{UNUSABLE}undecided answer ({row.verdict.reason.split(':')[0][:40]})"


def _names(one: Taught, data: SFTData) -> tuple[str, str]:
    """The ids of question and row."""
    dataset = data.dataset_name
    question = problem_id(dataset, one.question) if one.question else f"{dataset}/row-{one.row}"
    return question, f"{question}#{data.name}.{one.row}"


def _first(one: Taught, question: str, seen: dict[tuple[str, str, str], str]) -> Taught:
    """The row, with a reason if an earlier one has the same question and solution."""
    if one.reason:
        return one
    key = (question, one.text or "", "".join(map(repr, one.steps)))
    if seen.setdefault(key, one.row) != one.row:
        return replace(one, reason="duplicate")
    return one


async def _executed(one: Taught, sandbox: SandboxProtocol) -> Taught:
    """The row with its missing outputs filled in, or with the reason why it cannot be used."""
    if all(step.code is None for step in one.steps):
        return one
    session = await sandbox.session()
    steps: list[WorkedStep] = []
    filled = False
    try:
        for step in one.steps:
            if step.code is None:
                steps.append(step)
                continue
            execution = await session.run(step.code)
            if step.output is None:
                if execution.cut:
                    return replace(one, reason=f"a program was cut ({execution.cut})")
                filled = True
                steps.append(step.model_copy(update={"output": execution.output}))
            elif same_output(execution.output, step.output):
                steps.append(step)
            else:
                kind = execution.cut or difference(execution.output, step.output)
                return replace(one, reason=f"output differs ({kind})")
            if execution.cut in SESSION_ENDING_CUTS:
                return replace(one, reason=f"a program was cut ({execution.cut})")
    finally:
        await session.close()
    return replace(one, steps=tuple(steps), text=None if filled else one.text)


def _written(one: Taught, format: Format) -> tuple[Step, ...]:
    """The solution in the format. Raises InputError with the reason why it cannot be."""
    if any(mark in one.question for mark in format.special_tokens):
        raise InputError("a marker in the question")
    if any(step.code is not None and step.output is None for step in one.steps):
        raise InputError("a program without output")
    if one.text is not None:
        return write_text(one.text, format)
    return write_worked(one.steps, format)


def _solutions(
    part: Sequence[Taught],
    names: Sequence[tuple[str, str]],
    numbers: Sequence[int],
    data: SFTData,
    format: Format,
    grader: Grader,
) -> list[Solution]:
    rows: list[Solution] = []
    for one, (question, name), number in zip(part, names, numbers, strict=True):
        steps: tuple[Step, ...] = ()
        reason = one.reason
        try:
            steps = () if reason else _written(one, format)
        except InputError as error:
            reason = unwritten_reason(error)
        rows.append(
            Solution(
                id=name,
                problem_id=question,
                dataset=data.dataset_name,
                question=one.question,
                format=format.name,
                policy=data.name,
                prompt=format.prompt(one.question) if one.question else "",
                steps=steps,
                finish="finished",
                answer=None,
                verdict=undecided(reason) if reason else NOT_GRADED,
                flags=(f"{UNUSABLE}{reason}",) if reason else (),
                attempt=number,
                seed=0,
            )
        )
    return _graded(rows, part, format, grader) if data.grade else rows


def _graded(
    rows: Sequence[Solution], part: Sequence[Taught], format: Format, grader: Grader
) -> list[Solution]:
    """The rows with the verdicts on those that can be used and have a gold answer."""
    which = [i for i, row in enumerate(rows) if not row.flags and part[i].golds]
    claims = [
        claim_of(rows[i].steps, format, part[i].golds, several=part[i].several) for i in which
    ]
    graded = list(rows)
    for i, (answer, verdict) in zip(which, judge(claims, grader), strict=True):
        graded[i] = rows[i].model_copy(update={"answer": answer, "verdict": verdict})
    return graded
