"""`scdpo grade`: rows with gold answers in, the same rows with verdicts out.

A row has a solution, in which the answer is searched for, or a prediction, which is the answer.
Rows are judged in batches, in a thread, and written in the order of the input.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import Field

from scdpo import waiting
from scdpo.errors import DataError, GradingError, short
from scdpo.grading import Claim, Grader, GradingConfig, Judgement, judge
from scdpo.records import Record, Verdict, VerdictName
from scdpo.rowfiles.driver import Completed, ProgressOf, complete_rows
from scdpo.rowfiles.members import WrittenNumber, without
from scdpo.rowfiles.output import OutputManifest
from scdpo.rowfiles.source import Source
from scdpo.store import compact, object_of

BATCH = 256
"""Most rows that are judged together."""
ONLY_SPEED = {"workers"}
"""Settings of the grader that may change when a file is resumed: they do not shape verdicts."""
_REASONS = 3
"""Most reasons that a summary lists."""
_ADDED = ("verdict", "reason")
_FOUND = "found"
_EXPECTED = "a text or a number"


def grade_rows(
    file: str | Path,
    out: Path | None = None,
    config: GradingConfig | None = None,
    progress: ProgressOf | None = None,
) -> GradeSummary:
    """Judge the rows of a JSONL file and write them to `out` with their verdicts.

    A row has `answer` (a text, a number, or a list of which any one is right), `solution` or
    `prediction`, and `several` where the question asks for several values of which `answer` is
    one. It is written with `verdict` and `reason`, with `found` (the answer that a solution
    states), and its other keys unchanged. `-` for `file` is standard input, None for `out`
    standard output. An `out` that has rows already is resumed; its manifest, `OUT.manifest.json`,
    holds the settings, which must be the same.

    A file that can be read twice is checked whole before anything is judged. `progress` is called
    with a name and makes the report of rows done and all rows, where their number is known.
    Raises InputError and DataError for the input, StoreError for the output, GradingError, and
    BrokenPipeError when nobody reads the output any more; completed rows are written before.
    """
    return waiting.run(grade_rows_async(file, out, config, progress))


async def grade_rows_async(
    file: str | Path,
    out: Path | None = None,
    config: GradingConfig | None = None,
    progress: ProgressOf | None = None,
) -> GradeSummary:
    """`grade_rows` for an event loop."""
    with Source(str(file)) as source:
        done = await complete_rows(source, out, _GradeJob(config or GradingConfig()), progress)
    both = done.kept.plus(done.made)
    return GradeSummary(
        kept=done.kept.rows,
        rows=done.made.rows,
        verdicts=dict(both.verdicts),
        reasons=dict(both.reasons),
        seconds=done.seconds,
    )


class GradeSummary(Record):
    """What a call of `grade_rows` has done.

    `kept` rows were in the output before, `rows` were judged now; `verdicts` and `reasons` (of
    undecided ones) count both. `seconds` are wall-clock time from the grader being ready to the
    last row written.
    """

    kept: int
    rows: int
    verdicts: dict[str, int]
    reasons: dict[str, int]
    seconds: float

    @property
    def text(self) -> str:
        """The summary in one line."""
        total = self.kept + self.rows
        before = f" ({self.kept:,} of them already done)" if self.kept else ""
        counts = ", ".join(f"{self.verdicts.get(name, 0):,} {name}" for name in _VERDICTS)
        speed = self.rows / self.seconds if self.seconds else 0.0
        rate = f"; {self.seconds:.1f} s, {speed:.0f} rows/s" if self.rows else ""
        plural = "" if total == 1 else "s"
        return f"{total:,} row{plural}{before}: {counts}{self._why()}{rate}"

    def _why(self) -> str:
        """The most frequent reasons in parentheses."""
        ranked = Counter(self.reasons).most_common()
        shown = [f"{n:,} {reason or 'without a reason'}" for reason, n in ranked[:_REASONS]]
        if others := sum(n for _, n in ranked[_REASONS:]):
            shown.append(f"{others:,} for other reasons")
        return f" ({'; '.join(shown)})" if shown else ""


_VERDICTS: tuple[VerdictName, ...] = get_args(VerdictName)


class GradeManifest(OutputManifest):
    """What made the verdicts.

    `grading` holds the grader's settings; `verdicts` counts rows by verdict, and `reasons` the
    undecided ones by reason.
    """

    grading: dict[str, Any]
    verdicts: dict[str, int] = Field(default_factory=dict)
    reasons: dict[str, int] = Field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """The grader's settings."""
        return self.grading


@dataclass(frozen=True, slots=True)
class GradeCounts:
    """Rows, rows by verdict, and undecided ones by reason."""

    rows: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def plus(self, other: GradeCounts) -> GradeCounts:
        """Both counts together."""
        return GradeCounts(
            self.rows + other.rows, self.verdicts + other.verdicts, self.reasons + other.reasons
        )

    def fields(self) -> dict[str, Any]:
        """The counts as fields of the manifest."""
        verdicts, reasons = dict(self.verdicts), dict(self.reasons.most_common())
        return {"rows": self.rows, "verdicts": verdicts, "reasons": reasons}


def _counts_of(verdict: Verdict) -> GradeCounts:
    """The counts of a single row."""
    reasons = Counter([verdict.reason] if verdict.name == "undecided" else [])
    return GradeCounts(1, Counter([verdict.name]), reasons)


@dataclass(frozen=True, slots=True)
class GradeRow:
    """An answer to judge: line `n` (from 1) of the input.

    `head` is the line without its closing brace, and without the keys that are added to it: the
    others are written again byte for byte.
    """

    n: int
    head: bytes
    claim: Claim

    @property
    def start(self) -> bytes:
        """What the row's line begins with, whatever its verdict is."""
        return self.head + b',"verdict":'

    def line(self, judgement: Judgement) -> bytes:
        """The completed row, as a line of the output."""
        answer, verdict = judgement
        added: dict[str, object] = {"verdict": verdict.name, "reason": verdict.reason}
        if not self.claim.is_answer:
            added[_FOUND] = answer
        return self.head + b"," + compact(added)[1:] + b"\n"

    def counts(self, line: bytes) -> GradeCounts | None:
        """What a line of an output file counts for; None where it is not this row's."""
        if not line.startswith(self.start):
            return None
        try:
            added = json.loads(b"{" + line[len(self.head) + 1 :])
        except ValueError:
            return None
        name, reason = added.get("verdict"), added.get("reason")
        if (
            tuple(added) != _added_keys(self.claim.is_answer)
            or name not in _VERDICTS
            or not isinstance(reason, str)
        ):
            return None
        return _counts_of(Verdict(name=name, reason=reason))


def grade_row(line: bytes, path: Path, n: int) -> GradeRow:
    """A line as a row. Raises DataError, with `path` and `n`, for one that cannot be judged."""
    found = object_of(line, path, n, number=WrittenNumber)
    if "answer" not in found:
        raise DataError(f"no answer: {_EXPECTED} is expected there, or a list", path, n)
    is_answer = "prediction" in found
    if not is_answer and "solution" not in found:
        raise DataError("neither a solution nor a prediction", path, n)
    golds = found["answer"] if isinstance(found["answer"], list) else [found["answer"]]
    if not golds:
        raise DataError("answer: the list is empty", path, n)
    if is_answer:
        text = _prediction(found["prediction"], path, n)
    else:
        text = found["solution"]
        if text is not None and not isinstance(text, str):
            raise DataError(f"solution: a text is expected, found {short(text)}", path, n)
    several = found.get("several", False)
    if not isinstance(several, bool):
        raise DataError(f"several: true or false is expected, found {short(several)}", path, n)
    keys = _added_keys(is_answer)
    if any(key in found for key in keys):
        line = without(line, keys)
    answers = tuple(_gold(gold, path, n) for gold in golds)
    return GradeRow(n, line[:-1].rstrip(), Claim(text, answers, several, is_answer=is_answer))


def _added_keys(is_answer: bool) -> tuple[str, ...]:
    return _ADDED if is_answer else (*_ADDED, _FOUND)


def _gold(value: object, path: Path, n: int) -> str:
    """A gold answer; a missing one is empty, which the grader leaves undecided."""
    text = value.text if isinstance(value, WrittenNumber) else "" if value is None else value
    if not isinstance(text, str):
        raise DataError(f"answer: {_EXPECTED} is expected, found {short(value)}", path, n)
    return text


def _prediction(value: object, path: Path, n: int) -> str | None:
    if isinstance(value, WrittenNumber):
        return value.text
    if isinstance(value, float):
        # Tables write a missing value as NaN, so it is no answer; infinity is one.
        return None if value != value else "-\\infty" if value < 0 else "\\infty"
    if value is None or isinstance(value, str):
        return value
    raise DataError(f"prediction: {_EXPECTED} or null is expected, found {short(value)}", path, n)


class _GradeJob:
    """Judges batches one after another, in a thread."""

    name = "grade"
    batch = BATCH
    concurrent = 1
    nothing = GradeCounts()

    def __init__(self, config: GradingConfig) -> None:
        self.manifest: OutputManifest = GradeManifest(
            grading=config.model_dump(mode="json", exclude=ONLY_SPEED)
        )
        self._config = config
        self._grader: Grader | None = None

    def parse(self, line: bytes, path: Path, n: int) -> GradeRow:
        """See `grade_row`."""
        return grade_row(line, path, n)

    def start(self) -> str:
        """Make the grader, of which there is nothing to note."""
        self._grader = Grader(self._config)
        return ""

    async def complete(self, rows: Sequence[GradeRow]) -> list[Completed[GradeCounts]]:
        """Judge the rows. Raises GradingError."""
        if self._grader is None:
            raise GradingError("the grader has not been started")
        judgements = await asyncio.to_thread(judge, [row.claim for row in rows], self._grader)
        return [
            Completed(row.line(judgement), _counts_of(judgement.verdict))
            for row, judgement in zip(rows, judgements, strict=True)
        ]

    def close(self) -> None:
        """Close the grader, which ends a batch that the thread may be judging."""
        if self._grader is not None:
            self._grader.close()
