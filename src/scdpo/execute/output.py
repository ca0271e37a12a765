"""Where the completed rows go: a file that can be continued, or a pipe."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import stat
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from pydantic import Field, ValidationError

from scdpo.errors import DataError, InputError, RunLocked, StoreError
from scdpo.execute.rows import Reason, Row, Source, ready
from scdpo.records import Record
from scdpo.sandbox import SandboxConfig
from scdpo.store import validation_line, versions, write_atomic
from scdpo.store.files import reason, storage_errors
from scdpo.store.manifest import changed_keys

ONLY_SPEED = {"max_sessions", "parallel"}
"""Settings of the sandbox that may change between calls: they shape no rows."""


class OutputManifest(Record):
    """What made the rows of an output file, kept beside it as `OUT.manifest.json`.

    `isolation` has what each sandbox obtained, without repeats; `cuts` counts blocks by reason;
    `seconds` adds up over all calls.
    """

    sandbox: dict[str, Any]
    isolation: tuple[str, ...] = ()
    versions: dict[str, str]
    rows: int = 0
    blocks: int = 0
    cuts: dict[str, int] = Field(default_factory=dict)
    seconds: float = 0.0


@dataclass(slots=True)
class Tally:
    """Rows, blocks, and blocks by the reason for which they were cut."""

    rows: int = 0
    blocks: int = 0
    cuts: Counter[str] = field(default_factory=Counter)

    def add(self, cuts: tuple[Reason, ...]) -> None:
        """Count one row, given the reasons of its blocks."""
        self.rows += 1
        self.blocks += len(cuts)
        self.cuts.update(cut for cut in cuts if cut)


class Output(Protocol):
    """Takes rows in the order of the input."""

    kept: Tally
    """Rows that an earlier call has written."""

    def has(self, row: Row) -> bool:
        """Whether the input's next row is there already. Raises StoreError for another row."""
        ...

    def begin(self, isolation: str) -> None:
        """Take note that rows are going to be added, and what withholds what from their code."""
        ...

    def end_of_input(self) -> None:
        """Raises StoreError where there are rows that the input has not."""
        ...

    async def write(self, line: bytes) -> None:
        """Add a row. Raises StoreError, and BrokenPipeError when nobody reads on."""
        ...

    def close(self, ran: Tally, seconds: float) -> None:
        """Leave everything in order; `ran` counts what this call has added."""
        ...


def open_output(path: Path | None, source: Source, config: SandboxConfig) -> Output:
    """The file to append to, a pipe or device by its path, or standard output for None.

    Raises InputError and StoreError.
    """
    if path is None:
        if sys.stdout is None:
            raise InputError("standard output is closed; name a file with --out")
        output: Output = Stream(1, "standard output")
        status = os.fstat(1)
    elif path.suffix == ".gz":
        raise InputError(f"--out {path}: rows are appended to a plain file, which can be zipped")
    elif path.exists() and not path.is_file() and not path.is_dir():
        with storage_errors(path, "nothing was written"):
            output = Stream(os.open(path, os.O_WRONLY), str(path))
        status = path.stat()
    else:
        if path.exists() and os.path.samestat(path.stat(), source.status):
            raise InputError(f"--out {path}: that is the file the sessions are read from")
        return OutputFile(path, source.path, config)
    if stat.S_ISREG(status.st_mode) and os.path.samestat(status, source.status):
        raise InputError(f"{source.path} is also where the rows would be written to")
    return output


class Stream:
    """A pipe, or whatever standard output is; nobody can continue it."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name
        self.kept = Tally()

    def has(self, row: Row) -> bool:
        """Never: what went down a pipe is gone."""
        return False

    def begin(self, isolation: str) -> None:
        """Nothing is kept about a stream."""

    def end_of_input(self) -> None:
        """Nothing was there before."""

    async def write(self, line: bytes) -> None:
        """Write a row as the reader takes it; meanwhile sessions go on."""
        loop = asyncio.get_running_loop()
        left = memoryview(line)
        while left:
            await ready(self._fd, loop.add_writer, loop.remove_writer)
            try:
                # This much goes into a pipe at once, so that the call cannot block.
                left = left[os.write(self._fd, left[: select.PIPE_BUF]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise
            except OSError as error:
                raise StoreError(f"{self._name}: {reason(error)}") from error

    def close(self, ran: Tally, seconds: float) -> None:
        """Close what was opened by its path."""
        if self._fd != 1:
            os.close(self._fd)


class OutputFile:
    """A file that rows are appended to, and its manifest.

    Rows that are there must be those of the input's beginning, made with the same settings; a
    torn last line is cut off. Raises StoreError, and RunLocked while another process writes.
    """

    def __init__(self, path: Path, source: Path, config: SandboxConfig) -> None:
        self.path = path
        self.kept = Tally()
        self._source = source
        self._rows = 0
        self._end = 0
        self._manifest_path = Path(f"{path}.manifest.json")
        settings = config.model_dump(mode="json", exclude=ONLY_SPEED)
        self._manifest = OutputManifest(sandbox=settings, versions=versions())
        if path.is_dir():
            raise InputError(f"--out {path}: a folder, not a file")
        if not path.parent.is_dir():
            raise InputError(f"--out {path}: there is no folder {path.parent}")
        self._new = not path.exists()
        with storage_errors(path, "nothing was written"):
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        self._reading: IO[bytes] | None = None
        try:
            self._lock()
            if os.fstat(self._fd).st_size:
                self._manifest = self._same_settings(settings)
            self._reading = path.open("rb")
        except BaseException:
            os.close(self._fd)
            raise

    def has(self, row: Row) -> bool:
        """Whether the row is there; at the first that is not, a torn line is cut off."""
        if self._reading is None:
            return False
        line = self._reading.readline()
        if not line.endswith(b"\n"):
            if not (line.startswith(row.start) or row.start.startswith(line)):
                raise self._other(row)
            self._reading.close()
            self._reading = None
            with self._storage_errors():
                os.ftruncate(self._fd, self._end)
            return False
        executed = row.executed(line)
        if executed is None:
            raise self._other(row)
        self.kept.add(executed.cuts)
        self._rows += 1
        self._end += len(line)
        return True

    def begin(self, isolation: str) -> None:
        """Write the manifest, before any row that it speaks of."""
        known = self._manifest.isolation
        isolations = known if isolation in known else (*known, isolation)
        update = {"isolation": isolations, "versions": versions()}
        self._manifest = self._manifest.model_copy(update=update)
        self._save()

    def end_of_input(self) -> None:
        """Nothing may follow the last row's line."""
        if self._reading is not None and self._reading.readline():
            raise StoreError(
                f"{self.path}: it has more than the {self._rows} rows that {self._source} has; "
                "name another file"
            )

    async def write(self, line: bytes) -> None:
        """Append a row, whole or not at all."""
        start = os.fstat(self._fd).st_size
        done = 0
        with self._storage_errors():
            try:
                while done < len(line):
                    done += os.write(self._fd, line[done:])
            except BaseException:
                os.ftruncate(self._fd, start)
                raise
        self._rows += 1

    def close(self, ran: Tally, seconds: float) -> None:
        """Bring the manifest up to date where rows were added, leave no empty file that was not
        there before, and give the lock back."""
        try:
            if ran.rows:
                with self._storage_errors():
                    os.fsync(self._fd)
                update = {
                    "rows": self.kept.rows + ran.rows,
                    "blocks": self.kept.blocks + ran.blocks,
                    "cuts": dict(self.kept.cuts + ran.cuts),
                    "seconds": round(self._manifest.seconds + seconds, 3),
                }
                self._manifest = self._manifest.model_copy(update=update)
                self._save()
            elif self._new and not os.fstat(self._fd).st_size:
                self.path.unlink(missing_ok=True)
                self._manifest_path.unlink(missing_ok=True)
        finally:
            if self._reading is not None:
                self._reading.close()
            os.close(self._fd)

    def _save(self) -> None:
        write_atomic(self._manifest_path, self._manifest.model_dump_json(indent=2) + "\n")

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunLocked(f"{self.path}: another process is writing to it") from error
        except OSError as error:
            raise StoreError(
                f"{self.path}: this file system cannot lock: {reason(error)}"
            ) from error

    def _same_settings(self, settings: dict[str, Any]) -> OutputManifest:
        try:
            text = self._manifest_path.read_bytes()
            manifest = OutputManifest.model_validate_json(text)
        except FileNotFoundError as error:
            raise StoreError(
                f"{self.path}: it is not empty, and {self._manifest_path.name} is not beside it, "
                "which says what made its rows; name another file"
            ) from error
        except OSError as error:
            raise StoreError(f"{self._manifest_path}: {reason(error)}") from error
        except ValidationError as error:
            raise DataError(validation_line(error), self._manifest_path) from error
        if changed := changed_keys(manifest.sandbox, settings):
            raise StoreError(
                f"{self.path} was begun with other settings: {', '.join(changed)}; "
                "name another file"
            )
        return manifest

    def _other(self, row: Row) -> StoreError:
        return StoreError(
            f"{self.path}, line {self._rows + 1}: not what line {row.n} of {self._source} gives; "
            "name another file, or the one it was begun from"
        )

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        with storage_errors(self.path, f"{self._rows} rows are kept"):
            yield
