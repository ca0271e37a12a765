"""`scdpo exec`: rows with code blocks in, the same rows with outputs and cuts out.

Each row is a session of its own in the sandbox; many run at the same time, and their rows are
written in the order of the input.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError

from scdpo import waiting
from scdpo.errors import DataError, SandboxError, short
from scdpo.records import Record
from scdpo.rowfiles.driver import Completed, ProgressOf, complete_rows
from scdpo.rowfiles.members import WrittenNumber, without
from scdpo.rowfiles.output import OutputManifest
from scdpo.rowfiles.source import Source
from scdpo.sandbox import Cut, ProcessSandbox, SandboxConfig
from scdpo.store import object_of

ONLY_SPEED = {"max_sessions", "parallel"}
"""Settings of the sandbox that may change when a file is resumed: they do not shape the rows."""
_SPARE = 2
"""Sessions that start or end while the largest number of blocks run."""
_ADDED = ("outputs", "cuts")


def exec_rows(
    file: str | Path,
    out: Path | None = None,
    config: SandboxConfig | None = None,
    progress: ProgressOf | None = None,
) -> ExecSummary:
    """Run the sessions of a JSONL file in the sandbox and write their rows to `out`.

    A row has `blocks`, a list of code blocks that run one after another in one session. It is
    written with `outputs` and `cuts` (see `sandbox.Cut`), one of each per block, and its other
    keys unchanged. `-` for `file` is standard input, None for `out` standard output. An `out`
    that has rows already is resumed; its manifest, `OUT.manifest.json`, holds the settings, which
    must be the same.

    A file that can be read twice is checked whole before anything runs. `progress` is called with
    a name and makes the report of rows done and all rows, where their number is known. Raises
    InputError and DataError for the input, StoreError for the output, SandboxError, and
    BrokenPipeError when nobody reads the output any more; completed rows are written before.
    """
    return waiting.run(exec_rows_async(file, out, config, progress))


async def exec_rows_async(
    file: str | Path,
    out: Path | None = None,
    config: SandboxConfig | None = None,
    progress: ProgressOf | None = None,
) -> ExecSummary:
    """`exec_rows` for an event loop."""
    with Source(str(file), "sessions") as source:
        job = _ExecJob(config or SandboxConfig())
        done = await complete_rows(source, out, job, progress)
    return ExecSummary(
        kept=done.kept.rows,
        rows=done.made.rows,
        blocks=done.made.blocks,
        cuts=dict(done.made.cuts),
        seconds=done.seconds,
        isolation=done.note,
    )


class ExecSummary(Record):
    """What a call of `exec_rows` has done.

    `kept` rows were in the output before; `rows`, `blocks` and `cuts` (blocks by reason) count
    what was run now. `seconds` are wall-clock time from the sandbox being ready to the last row
    written. `isolation` is the sandbox's level and what it consists of, empty when there was
    nothing to run.
    """

    kept: int
    rows: int
    blocks: int
    cuts: dict[str, int]
    seconds: float
    isolation: str

    @property
    def text(self) -> str:
        """The summary in one line."""
        if not self.isolation:
            return f"nothing to run: {_counted(self.kept, 'row')} already done"
        before = f" ({self.kept:,} more already done)" if self.kept else ""
        cuts = ", ".join(f"{n:,} {cut}" for cut, n in sorted(self.cuts.items())) or "none"
        rate = self.rows / self.seconds if self.seconds else 0.0
        return (
            f"{_counted(self.rows, 'row')}{before}, {_counted(self.blocks, 'block')}; cut: {cuts}; "
            f"{self.seconds:.1f} s, {rate:.1f} sessions/s; {self.isolation}"
        )


def _counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


class Executed(Record):
    """What a row gains: an output and a cut (see `sandbox.Cut`) for each of its blocks."""

    outputs: tuple[str, ...]
    cuts: tuple[Cut, ...]


class ExecManifest(OutputManifest):
    """What made the rows of sessions.

    `sandbox` holds the sandbox's settings, `isolation` what each sandbox obtained, without
    repeats; `cuts` counts blocks by reason.
    """

    sandbox: dict[str, Any]
    isolation: tuple[str, ...] = ()
    blocks: int = 0
    cuts: dict[str, int] = Field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """The sandbox's settings."""
        return self.sandbox

    def begun(self, note: str) -> Self:
        """The manifest of a file to which a sandbox with the isolation `note` adds rows."""
        known = self.isolation if note in self.isolation else (*self.isolation, note)
        return super().begun(note).model_copy(update={"isolation": known})


@dataclass(frozen=True, slots=True)
class ExecCounts:
    """Rows, blocks, and blocks by the reason for which they were cut."""

    rows: int = 0
    blocks: int = 0
    cuts: Counter[str] = field(default_factory=Counter)

    def plus(self, other: ExecCounts) -> ExecCounts:
        """Both counts together."""
        cuts = self.cuts + other.cuts
        return ExecCounts(self.rows + other.rows, self.blocks + other.blocks, cuts)

    def fields(self) -> dict[str, Any]:
        """The counts as fields of the manifest."""
        return {"rows": self.rows, "blocks": self.blocks, "cuts": dict(self.cuts)}


def _counts_of(executed: Executed) -> ExecCounts:
    """The counts of a single row."""
    return ExecCounts(1, len(executed.cuts), Counter(cut for cut in executed.cuts if cut))


@dataclass(frozen=True, slots=True)
class ExecRow:
    """A session to run: line `n` (from 1) of the input.

    `head` is the line without its closing brace, and without `outputs` and `cuts` where it had
    them: the other keys are written again byte for byte.
    """

    n: int
    head: bytes
    blocks: tuple[str, ...]

    @property
    def start(self) -> bytes:
        """What the row's line begins with, whatever its blocks print."""
        return self.head + b',"outputs":'

    def line(self, executed: Executed) -> bytes:
        """The completed row, as a line of the output."""
        return self.head + b"," + executed.model_dump_json().encode()[1:] + b"\n"

    def counts(self, line: bytes) -> ExecCounts | None:
        """What a line of an output file counts for; None where it is not this row's."""
        if not line.startswith(self.start):
            return None
        try:
            found = Executed.model_validate_json(b"{" + line[len(self.head) + 1 :])
        except ValidationError:
            return None
        same = len(found.outputs) == len(found.cuts) == len(self.blocks)
        return _counts_of(found) if same else None


def exec_row(line: bytes, path: Path, n: int) -> ExecRow:
    """A line as a row. Raises DataError, with `path` and `n`, for one without blocks."""
    found = object_of(line, path, n, number=WrittenNumber)
    if "blocks" not in found:
        raise DataError("no blocks: a list of strings is expected there", path, n)
    blocks = found["blocks"]
    if not isinstance(blocks, list):
        raise DataError(f"blocks: a list of strings is expected, found {short(blocks)}", path, n)
    for i, block in enumerate(blocks):
        if not isinstance(block, str):
            raise DataError(f"blocks[{i}]: a string is expected, found {short(block)}", path, n)
    if any(key in found for key in _ADDED):
        line = without(line, _ADDED)
    return ExecRow(n, line[:-1].rstrip(), tuple(blocks))


class _ExecJob:
    """Runs one session per row; the sandbox starts with the first of them."""

    name = "exec"
    batch = 1
    nothing = ExecCounts()

    def __init__(self, config: SandboxConfig) -> None:
        self.concurrent = (config.parallel or os.cpu_count() or 1) + _SPARE
        self.manifest: OutputManifest = ExecManifest(
            sandbox=config.model_dump(mode="json", exclude=ONLY_SPEED)
        )
        most = max(config.max_sessions, self.concurrent)
        self._config = config.model_copy(update={"max_sessions": most})
        self._sandbox: ProcessSandbox | None = None

    def parse(self, line: bytes, path: Path, n: int) -> ExecRow:
        """See `exec_row`."""
        return exec_row(line, path, n)

    def start(self) -> str:
        """Start the sandbox; returns its isolation."""
        self._sandbox = ProcessSandbox(self._config)
        return self._sandbox.isolation

    async def complete(self, rows: Sequence[ExecRow]) -> list[Completed[ExecCounts]]:
        """Run the blocks of each row. Raises SandboxError."""
        if self._sandbox is None:
            raise SandboxError("the sandbox has not been started")
        completed = []
        for row in rows:
            executions = await self._sandbox.run_async(row.blocks)
            executed = Executed(
                outputs=tuple(execution.output for execution in executions),
                cuts=tuple(execution.cut for execution in executions),
            )
            completed.append(Completed(row.line(executed), _counts_of(executed)))
        return completed

    def close(self) -> None:
        """Close the sandbox, where one was started."""
        if self._sandbox is not None:
            self._sandbox.close()
