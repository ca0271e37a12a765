"""The driver of every command that completes rows: reads, starts, writes in order, resumes.

Rows wait in two queues. The reader fills the first with rows that the output does not have yet,
as far as the window allows. The starter takes from it what is there, at most a batch, and starts a
task that completes it, at most `concurrent` at a time. The writer takes the tasks from the second
queue in the order of the input. What ends one of them, the end of its input or an error, reaches
the writer after everything before it has been written.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from scdpo.errors import StoreError
from scdpo.rowfiles.output import InputRow, Output, OutputManifest, RowCounts, open_output
from scdpo.rowfiles.source import Source
from scdpo.rowfiles.window import Window
from scdpo.waiting import Progress, silent

WINDOW_ROWS = 4096
WINDOW_BYTES = 256 * 2**20
"""Rows, and bytes of them, that may be read and not yet written. A slow row holds up the others
only when this many are waiting for it."""

C = TypeVar("C", bound=RowCounts)
R = TypeVar("R", bound=InputRow[Any])
ProgressOf = Callable[[str], Progress]
"""Makes the progress report of a piece of work, given its name."""


class Completed(NamedTuple, Generic[C]):
    """A line of the output, and what it counts for."""

    line: bytes
    counts: C


class Job(Protocol[R, C]):
    """What a command does with rows: how to parse, complete and count them."""

    name: str
    """What its progress is called."""
    batch: int
    """Most rows that are completed together."""
    concurrent: int
    """Most batches that are completed at the same time."""
    manifest: OutputManifest
    """The manifest of a new output file, with the settings that shape the rows."""
    nothing: C
    """The counts of no rows."""

    def parse(self, line: bytes, path: Path, n: int) -> R:
        """A line as a row. Raises DataError, with `path` and `n`, for one that is not."""
        ...

    def start(self) -> str:
        """Get ready, before the first row; returns a note about what completes the rows."""
        ...

    async def complete(self, rows: Sequence[R]) -> list[Completed[C]]:
        """Complete the rows of a batch, in their order."""
        ...

    def close(self) -> None:
        """End everything that was started, also a batch under way."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome(Generic[C]):
    """What a call has done.

    `kept` counts rows that were in the output before, `made` those that were added; `note` is
    the job's (empty where there was nothing to do), and `seconds` are wall-clock time from the
    job being ready to the last row written.
    """

    kept: C
    made: C
    note: str
    seconds: float


async def complete_rows(
    source: Source, out: Path | None, job: Job[R, C], progress: ProgressOf | None = None
) -> Outcome[C]:
    """Complete the rows of `source` and append them to `out`, resuming where it ends.

    None for `out` is standard output. A source that can be read twice is checked whole before
    the job starts, and then `progress` reports rows done and all rows. Raises InputError and
    DataError for the input, StoreError for the output, BrokenPipeError when nobody reads any
    more, and what the job raises; rows that were completed are written before.
    """
    output = open_output(out, source, job.manifest, job.nothing)
    driver = _Driver(source, output, job)
    try:
        total = await source.checked(job.parse)
        bar = progress(job.name) if progress is not None and total is not None else silent
        await driver.run(lambda done: bar(done, total or done))
    except BaseException:
        # The error that is under way says more than one that follows from it.
        with suppress(StoreError):
            output.close(driver.made, driver.seconds)
        raise
    output.close(driver.made, driver.seconds)
    return Outcome(output.kept, driver.made, driver.note, driver.seconds)


class _Driver(Generic[R, C]):
    """One call: a reader, a starter and a writer, with a queue between each two."""

    def __init__(self, source: Source, output: Output[C], job: Job[R, C]) -> None:
        self._source = source
        self._output = output
        self._job = job
        self._window = Window(WINDOW_ROWS, WINDOW_BYTES)
        self._free = asyncio.Semaphore(job.concurrent)
        self._rows: asyncio.Queue[R | None] = asyncio.Queue()
        self._tasks: asyncio.Queue[asyncio.Task[list[Completed[C]]] | None] = asyncio.Queue()
        self._started: float | None = None
        self.made = job.nothing
        self.note = ""
        self.seconds = 0.0

    async def run(self, report: Callable[[int], None]) -> None:
        """Complete and write every row, until the input ends or something fails."""
        starter = asyncio.create_task(self._start_batches())
        try:
            while (task := await self._tasks.get()) is not None:
                for completed in await task:
                    await self._write(completed)
                    report(self._output.kept.rows + self.made.rows)
            await starter
            if not self.made.rows:
                report(self._output.kept.rows)
        finally:
            await self._end(starter)

    async def _write(self, completed: Completed[C]) -> None:
        await self._output.write(completed.line)
        self._window.release(len(completed.line))
        self.made = self.made.plus(completed.counts)
        if self._started is not None:
            self.seconds = time.monotonic() - self._started

    async def _read(self) -> None:
        """Queue every row that the output does not have; None at the end or at an error."""
        try:
            async for row in self._source.rows(self._job.parse):
                if not self._output.has(row):
                    await self._window.acquire(len(row.head))
                    self._rows.put_nowait(row)
            self._output.end_of_input()
        finally:
            self._rows.put_nowait(None)

    async def _start_batches(self) -> None:
        """Start a task for every batch; None at the end or at an error."""
        reader = asyncio.create_task(self._read())
        try:
            while (row := await self._rows.get()) is not None:
                await self._free.acquire()
                if self._started is None:
                    self._start_job()
                task = asyncio.create_task(self._complete(self._batch(row)))
                task.add_done_callback(lambda _: self._free.release())
                self._tasks.put_nowait(task)
            await reader
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            self._tasks.put_nowait(None)

    def _batch(self, first: R) -> list[R]:
        """The rows that are there, without waiting for more."""
        batch = [first]
        while len(batch) < self._job.batch and not self._rows.empty():
            row = self._rows.get_nowait()
            if row is None:
                self._rows.put_nowait(None)  # the end, for the starter's next turn
                break
            batch.append(row)
        return batch

    def _start_job(self) -> None:
        self.note = self._job.start()
        self._started = time.monotonic()
        self._output.begin(self.note)

    async def _complete(self, batch: list[R]) -> list[Completed[C]]:
        completed = await self._job.complete(batch)
        for row, (line, _) in zip(batch, completed, strict=True):
            self._window.grow(len(line) - len(row.head))
        return completed

    async def _end(self, starter: asyncio.Task[None]) -> None:
        """Stop reading, cancel the batches that are left, and close the job."""
        starter.cancel()
        await asyncio.gather(starter, return_exceptions=True)
        left = []
        while not self._tasks.empty():
            task = self._tasks.get_nowait()
            if task is not None:
                task.cancel()
                left.append(task)
        await asyncio.gather(*left, return_exceptions=True)
        self._job.close()
