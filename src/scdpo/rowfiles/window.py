"""A bound on the rows that are being completed or wait for an earlier one to be written."""

from __future__ import annotations

import asyncio


class Window:
    """Bounds the rows that are read and not yet written, by number and by bytes."""

    def __init__(self, most_rows: int, most_bytes: int) -> None:
        self._most_rows = most_rows
        self._most_bytes = most_bytes
        self._rows = 0
        self._bytes = 0
        self._freed = asyncio.Event()

    async def acquire(self, size: int) -> None:
        """Wait until there is room for a row of `size` bytes; an empty window has room for any."""
        while self._rows >= self._most_rows or (
            self._rows and self._bytes + size > self._most_bytes
        ):
            self._freed.clear()
            await self._freed.wait()
        self._rows += 1
        self._bytes += size

    def grow(self, size: int) -> None:
        """Count the bytes that a row has gained."""
        self._bytes += size

    def release(self, size: int) -> None:
        """Free the room of a row that now has `size` bytes."""
        self._rows -= 1
        self._bytes -= size
        self._freed.set()
