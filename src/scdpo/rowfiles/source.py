"""The rows of a file or a pipe, line by line, without blocking the event loop."""

from __future__ import annotations

import asyncio
import gzip
import os
import stat
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar, cast

from scdpo.errors import DataError, InputError
from scdpo.store import reason

MAX_ROW_BYTES = 256 * 2**20
"""A longer line is an error: a file without line ends would otherwise fill the memory."""
_CHUNK = 2**18
_BOM = b"\xef\xbb\xbf"

R = TypeVar("R")
Parse = Callable[[bytes, Path, int], R]
"""Makes a row of a line without surrounding space; path and line number are for a DataError."""


class Source:
    """The rows of a file (gzip when it ends in .gz), or of standard input for `-`.

    A context manager. `what` names the rows in messages. Waiting for a pipe does not block the
    event loop. Raises InputError or DataError for what cannot be read.
    """

    def __init__(self, name: str, what: str = "rows") -> None:
        self.path = Path("standard input" if name == "-" else name)
        self.what = what
        try:
            self._file = _opened(name)
            self.status = os.fstat(self._file.fileno())
        except OSError as error:
            raise DataError(reason(error), self.path) from error
        self.seekable = stat.S_ISREG(self.status.st_mode) and self._file.seekable()
        self._start = self._file.tell() if self.seekable else 0

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def rewind(self) -> None:
        """Go back to where reading began; only for what is `seekable`."""
        self._file.seek(self._start)

    async def rows(self, parse: Parse[R]) -> AsyncIterator[R]:
        """Every row; blank lines are skipped. Raises DataError, also where there are no rows."""
        empty = True
        async for n, line in self._lines():
            line = (line.removeprefix(_BOM) if n == 1 else line).strip()
            if line:
                empty = False
                yield parse(line, self.path, n)
        if empty:
            raise DataError(f"contains no {self.what}", self.path)

    async def checked(self, parse: Parse[R]) -> int | None:
        """Parse all rows and return their number; None for what cannot be read twice.

        Raises DataError for the first row that is malformed.
        """
        if not self.seekable:
            return None
        n = 0
        async for _ in self.rows(parse):
            n += 1
        self.rewind()
        return n

    async def _lines(self) -> AsyncIterator[tuple[int, bytes]]:
        n, size = 1, 0
        parts: list[bytes] = []
        while chunk := await self._chunk(n):
            first, *others = chunk.split(b"\n")
            parts.append(first)
            size += len(first)
            for part in others:
                yield n, b"".join(parts)
                n, size, parts = n + 1, len(part), [part]
            if size > MAX_ROW_BYTES:
                limit = MAX_ROW_BYTES // 2**20
                raise DataError(f"longer than {limit} MiB, the limit for a row", self.path, n)
        yield n, b"".join(parts)

    async def _chunk(self, n: int) -> bytes:
        loop = asyncio.get_running_loop()
        chunk: bytes | None = None
        while chunk is None:  # a pipe that another of its users has made non-blocking
            await ready(self._file.fileno(), loop.add_reader, loop.remove_reader)
            try:
                chunk = self._file.read(_CHUNK)
            except (OSError, EOFError, zlib.error) as error:
                raise DataError(reason(error), self.path, n) from error
        return chunk


def _opened(name: str) -> IO[bytes]:
    if name == "-":
        if sys.stdin is None:
            raise InputError("standard input is closed; name a file")
        return open(0, "rb", buffering=0, closefd=False)
    path = Path(name)
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb", 0)


Watch = Callable[..., object]


async def ready(fd: int, watch: Watch, unwatch: Callable[[int], object]) -> None:
    """Wait until `fd` can be read without blocking, or written, if `watch` and `unwatch` are the
    event loop's functions for that. Other tasks get a turn in any case."""
    changed = asyncio.Event()
    try:
        watch(fd, changed.set)
    except PermissionError:  # files and some devices cannot be watched: they are always ready
        await asyncio.sleep(0)
        return
    try:
        await changed.wait()
    finally:
        with suppress(OSError):
            unwatch(fd)
