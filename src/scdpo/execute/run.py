"""Runs sessions side by side and hands their rows on in the order of the input."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from scdpo.errors import StoreError
from scdpo.execute.rows import ExecManifest, Executed, Reason, Row, Tally, row_of, tally_of
from scdpo.records import Record
from scdpo.rowfiles import Output, Source, Window, open_output
from scdpo.sandbox import ProcessSandbox, SandboxConfig

Progress = Callable[[int, int], None]

WINDOW_ROWS = 4096
WINDOW_BYTES = 256 * 2**20
"""Rows, and bytes of them, that may be at work or wait for an earlier one to be written. One
that runs into its deadline holds up the others no sooner than this."""
ONLY_SPEED = {"max_sessions", "parallel"}
"""Settings of the sandbox that may change between calls: they shape no rows."""
_SPARE = 2
"""Sessions that start or end while as many blocks run as may."""
_ENDS_SESSION = ("deadline", "memory", "died")

Reasons = tuple[Reason, ...]
_Session = asyncio.Task[tuple[bytes, Reasons]]


class Summary(Record):
    """What a call has done.

    `kept` rows were there before; `rows`, `blocks` and `cuts` (blocks by reason) count what was
    run now. `seconds` are wall-clock time from the sandbox being ready to the last row written.
    `isolation` is the level and what it consists of, empty when nothing was left to run.
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
        before = f" ({self.kept:,} were there)" if self.kept else ""
        if not self.isolation:
            return f"nothing left to run{before}"
        cuts = ", ".join(f"{n:,} {cut}" for cut, n in sorted(self.cuts.items())) or "none"
        rate = self.rows / self.seconds if self.seconds else 0.0
        return (
            f"{_counted(self.rows, 'row')}{before}, {_counted(self.blocks, 'block')}; cut: {cuts}; "
            f"{self.seconds:.1f} s, {rate:.1f} sessions/s; {self.isolation}"
        )


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def execute(
    file: str,
    out: Path | None,
    config: SandboxConfig,
    progress: Callable[[str], Progress] | None = None,
) -> Summary:
    """Run the sessions of `file` (`-`: standard input) and write their rows to `out`.

    None for `out` is standard output. A file that can be read twice is checked whole before
    anything runs. `progress` makes the report of rows done and all rows, where all are known.
    Raises InputError and DataError for the input, StoreError for the output, SandboxError, and
    BrokenPipeError when nobody reads on; rows that were done are written before.
    """
    with Source(file, "sessions") as source:
        return asyncio.run(_execute(source, out, config, progress))


async def _execute(
    source: Source,
    out: Path | None,
    config: SandboxConfig,
    progress: Callable[[str], Progress] | None,
) -> Summary:
    manifest = ExecManifest(sandbox=config.model_dump(mode="json", exclude=ONLY_SPEED))
    output = open_output(out, source, manifest, Tally())
    work = _Work(source, output, config)
    try:
        total = await source.checked(row_of)
        bar = progress("exec") if progress is not None and total is not None else None

        def report(done: int) -> None:
            if bar is not None and total is not None:
                bar(done, total)

        await work.run(report)
    except BaseException:
        # The error that is under way says more than one that follows from it.
        with suppress(StoreError):
            output.close(work.ran, work.seconds)
        raise
    output.close(work.ran, work.seconds)
    return work.summary()


class _Work:
    """One call: a reader that starts sessions, and a writer that waits for them in order."""

    def __init__(self, source: Source, output: Output[Tally], config: SandboxConfig) -> None:
        live = (config.parallel or os.cpu_count() or 1) + _SPARE
        most = max(config.max_sessions, live)
        self._config = config.model_copy(update={"max_sessions": most})
        self._source = source
        self._output = output
        self._live = asyncio.Semaphore(live)
        self._window = Window(WINDOW_ROWS, WINDOW_BYTES)
        self._queue: asyncio.Queue[_Session | Exception | None] = asyncio.Queue()
        self._sandbox: ProcessSandbox | None = None
        self._isolation = ""
        self._started = 0.0
        self.ran = Tally()
        self.seconds = 0.0

    async def run(self, report: Callable[[int], None]) -> None:
        """Everything, until the input ends or something fails."""
        reader = asyncio.create_task(self._read())
        try:
            while (session := await self._queue.get()) is not None:
                if isinstance(session, Exception):
                    raise session
                line, cuts = await session
                await self._output.write(line)
                self._window.leave(len(line))
                self.ran = self.ran.plus(tally_of(cuts))
                self.seconds = time.monotonic() - self._started
                report(self._output.kept.rows + self.ran.rows)
            if not self.ran.rows:
                report(self._output.kept.rows)
        finally:
            await self._end(reader)

    def summary(self) -> Summary:
        """What was done."""
        return Summary(
            kept=self._output.kept.rows,
            rows=self.ran.rows,
            blocks=self.ran.blocks,
            cuts=dict(self.ran.cuts),
            seconds=self.seconds,
            isolation=self._isolation,
        )

    async def _read(self) -> None:
        """Queue a session for every row; what fails is queued too, to be raised in its turn."""
        try:
            async for row in self._source.rows(row_of):
                if self._output.has(row):
                    continue
                sandbox = self._sandbox or self._start_sandbox()
                await self._window.enter(len(row.head))
                await self._live.acquire()
                session = asyncio.create_task(self._complete(row, sandbox))
                session.add_done_callback(lambda _: self._live.release())
                self._queue.put_nowait(session)
            self._output.end_of_input()
            self._queue.put_nowait(None)
        except Exception as error:
            self._queue.put_nowait(error)

    async def _end(self, reader: asyncio.Task[None]) -> None:
        """Stop reading, end the sessions that are left, and close the sandbox."""
        reader.cancel()
        left: list[asyncio.Task[Any]] = [reader]
        while not self._queue.empty():
            session = self._queue.get_nowait()
            if isinstance(session, asyncio.Task):
                session.cancel()
                left.append(session)
        await asyncio.gather(*left, return_exceptions=True)
        if self._sandbox is not None:
            self._sandbox.close()

    def _start_sandbox(self) -> ProcessSandbox:
        self._sandbox = ProcessSandbox(self._config)
        self._isolation = self._sandbox.isolation
        self._started = time.monotonic()
        self._output.begin(self._isolation)
        return self._sandbox

    async def _complete(self, row: Row, sandbox: ProcessSandbox) -> tuple[bytes, Reasons]:
        executed = await run_blocks(sandbox, row.blocks)
        line = row.line(executed)
        self._window.grow(len(line) - len(row.head))
        return line, executed.cuts


async def run_blocks(sandbox: ProcessSandbox, blocks: tuple[str, ...]) -> Executed:
    """Run blocks one after another in a session of their own. Raises SandboxError."""
    outputs: list[str] = []
    cuts: list[Reason] = []
    if blocks:
        session = await sandbox.session()
        try:
            for block in blocks:
                execution = await session.run(block)
                outputs.append(execution.output)
                cuts.append(execution.cut)
                if execution.cut in _ENDS_SESSION:
                    break
        finally:
            await session.close()
    missing = len(blocks) - len(outputs)
    return Executed(outputs=(*outputs, *[""] * missing), cuts=(*cuts, *(["not run"] * missing)))
