"""Requests from an event loop to a running batch on a worker thread, and completions back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scdpo.engines.continuous import RunningBatch
    from scdpo.engines.decode import DecodingRow


@dataclass(slots=True, eq=False)
class _Asked:
    """A request, and the future that its row answers."""

    row: DecodingRow
    answer: asyncio.Future[DecodingRow] = field(repr=False)


class Pump:
    """Keeps a batch of at most `max_rows` rows running while there are requests.

    Whoever was answered is heard again before the next forward pass, so that the next step of a
    rollout misses none. `guard` surrounds the work on the worker thread.
    """

    def __init__(
        self,
        batch: RunningBatch,
        worker: ThreadPoolExecutor,
        max_rows: int,
        guard: Callable[[int], AbstractContextManager[object]],
    ):
        self._batch = batch
        self._worker = worker
        self._max_rows = max_rows
        self._guard = guard
        self._waiting: deque[_Asked] = deque()
        self._running: dict[DecodingRow, _Asked] = {}
        self._task: asyncio.Task[None] | None = None

    async def complete(self, row: DecodingRow) -> DecodingRow:
        """Decode a row to its end. Raises what the work on the worker thread raises."""
        loop = asyncio.get_running_loop()
        asked = _Asked(row, loop.create_future())
        self._waiting.append(asked)
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())
        return await asked.answer

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while new := self._next():
                try:
                    ended = await loop.run_in_executor(self._worker, self._work, *new)
                except Exception as error:  # for whoever waits, not for this task
                    self._fail(error)
                    return
                for row in ended:
                    asked = self._running.pop(row)
                    if not asked.answer.done():
                        asked.answer.set_result(row)
                # Those who were answered run now, and may ask again.
                await asyncio.sleep(0)
        finally:
            # Cancelled with its event loop: nobody waits any more.
            if self._running or self._waiting:
                self._running.clear()
                self._waiting.clear()
                await asyncio.shield(loop.run_in_executor(self._worker, self._batch.clear))

    def _next(self) -> tuple[list[DecodingRow], list[DecodingRow]] | None:
        """The rows to admit, and those that nobody waits for; None if there is nothing to do."""
        unwanted = [row for row, asked in self._running.items() if asked.answer.done()]
        for row in unwanted:
            del self._running[row]
        new: list[DecodingRow] = []
        while self._waiting and len(self._running) < self._max_rows:
            asked = self._waiting.popleft()
            if not asked.answer.done():
                self._running[asked.row] = asked
                new.append(asked.row)
        return (new, unwanted) if self._running else None

    def _work(self, new: list[DecodingRow], unwanted: list[DecodingRow]) -> list[DecodingRow]:
        """Advance the batch until a row ends, or until there is room for one that waits."""
        with self._guard(len(self._running)):
            self._batch.change(new, unwanted)
            while True:
                ended = self._batch.advance()
                room = len(self._batch.rows) < self._max_rows and bool(self._waiting)
                if ended or room or self._abandoned():
                    return ended

    def _abandoned(self) -> bool:
        return any(asked.answer.done() for asked in tuple(self._running.values()))

    def _fail(self, error: Exception) -> None:
        for asked in (*self._running.values(), *self._waiting):
            if not asked.answer.done():
                asked.answer.set_exception(error)
        self._running.clear()
        self._waiting.clear()
        self._batch.clear()
