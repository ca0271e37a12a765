"""Rows of sessions: read from a file or a pipe, and completed with what their blocks showed."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import stat
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

from pydantic import ValidationError

from scdpo.errors import DataError, InputError
from scdpo.records import Record
from scdpo.store.files import object_of, reason, short

Reason = Literal["", "deadline", "memory", "output", "died", "not run"]
"""What became of a block: `sandbox.Cut`, or `not run` after one that ended the session."""

MAX_ROW_BYTES = 256 * 2**20
"""A longer line is an error: a file without line ends would otherwise fill the memory."""
_CHUNK = 2**18
_BOM = b"\xef\xbb\xbf"
_ADDED = ("outputs", "cuts")


class Executed(Record):
    """What a row gains: one output and one reason (see `Reason`) for each of its blocks."""

    outputs: tuple[str, ...]
    cuts: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One session to run: line `n` (from 1) of the input.

    `head` is the line without its closing brace, and without `outputs` and `cuts` where it had
    them: the other keys are written again byte for byte.
    """

    n: int
    head: bytes
    blocks: tuple[str, ...]

    def line(self, executed: Executed) -> bytes:
        """The row with what was added, as a line of the output."""
        return self.head + b"," + executed.model_dump_json().encode()[1:] + b"\n"

    def executed(self, line: bytes) -> Executed | None:
        """What a line of an output file adds to this row; None where it is not this row's."""
        if not line.startswith(self.start):
            return None
        try:
            found = Executed.model_validate_json(b"{" + line[len(self.head) + 1 :])
        except ValidationError:
            return None
        same = len(found.outputs) == len(found.cuts) == len(self.blocks)
        return found if same else None

    @property
    def start(self) -> bytes:
        """What the row's line begins with, whatever its blocks show."""
        return self.head + b',"outputs":'


def row_of(line: bytes, path: Path, n: int) -> Row:
    """A line as a row; `path` and `n` are for the DataError that says why it is none."""
    found = object_of(line, path, n)
    if "blocks" not in found:
        raise DataError("no blocks: a list of strings is expected there", path, n)
    blocks = found["blocks"]
    if not isinstance(blocks, list):
        raise DataError(f"blocks: a list of strings is expected, found {short(blocks)}", path, n)
    for i, block in enumerate(blocks):
        if not isinstance(block, str):
            raise DataError(f"blocks[{i}]: a string is expected, found {short(block)}", path, n)
    if any(key in found for key in _ADDED):
        line = _plain({key: value for key, value in found.items() if key not in _ADDED})
    return Row(n, line[:-1].rstrip(), tuple(blocks))


def _plain(row: dict[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a surrogate pair exists in JSON only as an escape
        return json.dumps(row).encode()


class Source:
    """The rows of a file (gzip when it ends in .gz), or of standard input for `-`.

    Waiting for a pipe holds up nothing else on the event loop. Close it, or use it as a context
    manager. Raises InputError or DataError for what cannot be read.
    """

    def __init__(self, name: str) -> None:
        self.path = Path("standard input" if name == "-" else name)
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
        """Go back to where reading began; for what is `seekable`."""
        self._file.seek(self._start)

    async def rows(self) -> AsyncIterator[Row]:
        """Every row; blank lines are skipped. Raises DataError, also where there is none."""
        empty = True
        async for n, line in self._lines():
            line = (line.removeprefix(_BOM) if n == 1 else line).strip()
            if line:
                empty = False
                yield row_of(line, self.path, n)
        if empty:
            raise DataError("it holds no sessions", self.path)

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
                raise DataError(f"longer than {limit} MiB, the most a row may have", self.path, n)
        yield n, b"".join(parts)

    async def _chunk(self, n: int) -> bytes:
        loop = asyncio.get_running_loop()
        chunk: bytes | None = None
        while chunk is None:  # as from a pipe whose other user has made it non-blocking
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
    """Return when `fd` can be read (or written, by the loop's other pair of functions) without
    waiting; others have had a turn by then."""
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
