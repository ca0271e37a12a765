"""Judges rows batch by batch and hands them on in the order of the input."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from scdpo.errors import StoreError
from scdpo.grading import Claim, Grader, GradingConfig, judge
from scdpo.marking.rows import MarkManifest, Row, Tally, row_of, tally_of
from scdpo.records import Record
from scdpo.rowfiles import Output, Source, Window, open_output

Progress = Callable[[int, int], None]

BATCH = 256
"""Rows that are judged together."""
WINDOW_ROWS = 4 * BATCH
WINDOW_BYTES = 256 * 2**20
"""Rows, and bytes of them, that may be read and not yet written."""
ONLY_SPEED = {"workers"}
"""Settings of the grader that may change between calls: they shape no verdicts."""
_REASONS = 3


class Summary(Record):
    """What a call has done.

    `kept` rows were there before, `rows` were judged now; `verdicts` and `reasons` (of undecided
    ones) count all of them. `seconds` are wall-clock time.
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
        before = f" ({self.kept:,} were there)" if self.kept else ""
        counts = ", ".join(
            f"{self.verdicts.get(name, 0):,} {name}" for name in ("correct", "wrong", "undecided")
        )
        rate = f"; {self.seconds:.1f} s, {self.rows / self.seconds:.0f} rows/s" if self.rows else ""
        plural = "" if total == 1 else "s"
        return f"{total:,} row{plural}{before}: {counts}{self._why()}{rate}"

    def _why(self) -> str:
        """The most frequent reasons in parentheses."""
        ranked = Counter(self.reasons).most_common()
        shown = [f"{n:,} {reason or 'without a reason'}" for reason, n in ranked[:_REASONS]]
        if others := sum(n for _, n in ranked[_REASONS:]):
            shown.append(f"{others:,} for other reasons")
        return f" ({'; '.join(shown)})" if shown else ""


def mark(
    file: str,
    out: Path | None,
    config: GradingConfig,
    progress: Callable[[str], Progress] | None = None,
) -> Summary:
    """Judge the rows of `file` (`-`: standard input) and write them to `out`.

    None for `out` is standard output. A file that can be read twice is checked whole before
    anything is judged. `progress` makes the report of rows done and all rows, where all are
    known. Raises InputError and DataError for the input, StoreError for the output, GradingError,
    and BrokenPipeError when nobody reads on; rows that were done are written before.
    """
    with Source(file) as source, Grader(config) as grader:
        return asyncio.run(_mark(source, out, grader, progress))


async def _mark(
    source: Source,
    out: Path | None,
    grader: Grader,
    progress: Callable[[str], Progress] | None,
) -> Summary:
    settings = grader.config.model_dump(mode="json", exclude=ONLY_SPEED)
    output = open_output(out, source, MarkManifest(grading=settings), Tally())
    work = _Work(source, output, grader)
    try:
        total = await source.checked(row_of)
        bar = progress("grade") if progress is not None and total is not None else None
        await work.run((lambda done: bar(done, total)) if bar and total else lambda done: None)
    except BaseException:
        grader.close()  # ends the batch that a thread may be at
        # The error that is under way says more than one that follows from it.
        with suppress(StoreError):
            output.close(work.made, work.seconds)
        raise
    output.close(work.made, work.seconds)
    return work.summary()


class _Work:
    """One call: a reader that queues rows, and a judge that takes what is there."""

    def __init__(self, source: Source, output: Output[Tally], grader: Grader) -> None:
        self._source = source
        self._output = output
        self._grader = grader
        self._window = Window(WINDOW_ROWS, WINDOW_BYTES)
        self._queue: asyncio.Queue[Row | Exception | None] = asyncio.Queue()
        self._started = time.monotonic()
        self.made = Tally()

    @property
    def seconds(self) -> float:
        """How long this call has worked."""
        return time.monotonic() - self._started

    async def run(self, report: Callable[[int], None]) -> None:
        """Everything, until the input ends or something fails."""
        reader = asyncio.create_task(self._read())
        try:
            end: Exception | None = None
            while end is None and (first := await self._queue.get()) is not None:
                batch, end = self._batch(first)
                if batch:
                    await self._judge(batch)
                    report(self._output.kept.rows + self.made.rows)
            if end is not None:
                raise end
            if not self.made.rows:
                report(self._output.kept.rows)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    def summary(self) -> Summary:
        """What was done."""
        both = self._output.kept.plus(self.made)
        return Summary(
            kept=self._output.kept.rows,
            rows=self.made.rows,
            verdicts=dict(both.verdicts),
            reasons=dict(both.reasons),
            seconds=self.seconds,
        )

    def _batch(self, first: Row | Exception) -> tuple[list[Row], Exception | None]:
        """The rows that are there, without waiting for more, and an error that follows them."""
        batch: list[Row] = []
        item: Row | Exception | None = first
        while isinstance(item, Row):
            batch.append(item)
            if len(batch) == BATCH or self._queue.empty():
                return batch, None
            item = self._queue.get_nowait()
        if item is None:
            self._queue.put_nowait(None)  # the end, for the next turn
        return batch, item

    async def _judge(self, batch: Sequence[Row]) -> None:
        judged = await asyncio.to_thread(judge, list(map(_claim, batch)), self._grader)
        if not self.made.rows:
            self._output.begin("")
        for row, (answer, verdict) in zip(batch, judged, strict=True):
            await self._output.write(row.line(verdict, answer))
            self.made = self.made.plus(tally_of([verdict]))
            self._window.leave(len(row.head))

    async def _read(self) -> None:
        """Queue every row that is not written yet; what fails is queued too, in its turn."""
        try:
            async for row in self._source.rows(row_of):
                if not self._output.has(row):
                    await self._window.enter(len(row.head))
                    self._queue.put_nowait(row)
            self._output.end_of_input()
            self._queue.put_nowait(None)
        except Exception as error:
            self._queue.put_nowait(error)


def _claim(row: Row) -> Claim:
    return Claim(row.text, row.golds, row.several, is_answer=not row.is_solution)
