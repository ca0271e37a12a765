"""Where the completed rows go: a file that can be continued, or a pipe."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Generic, Protocol, Self, TypeVar

from pydantic import Field, ValidationError

from scdpo.errors import DataError, InputError, RunLocked, StoreError
from scdpo.records import Record
from scdpo.rowfiles.source import Source, ready
from scdpo.store import changed_keys, reason, storage_errors, versions, write_atomic
from scdpo.validation import explain


class Tally(Protocol):
    """Counts rows and what a command wants to know about them; never changed, only added up."""

    @property
    def rows(self) -> int:
        """How many rows."""
        ...

    def plus(self, other: Self) -> Self:
        """Both counts together."""
        ...

    def fields(self) -> dict[str, Any]:
        """The counts as fields of the manifest."""
        ...


T = TypeVar("T", bound=Tally)
T_co = TypeVar("T_co", bound=Tally, covariant=True)


class Row(Protocol[T_co]):
    """A row of the input, of line `n` (from 1)."""

    @property
    def n(self) -> int:
        """Its line."""
        ...

    @property
    def start(self) -> bytes:
        """What its line in the output begins with, whatever is added to it."""
        ...

    def tally(self, line: bytes) -> T_co | None:
        """What a line of an output counts for; None where it is not this row's."""
        ...


class OutputManifest(Record):
    """What made the rows of an output file, kept beside it as `OUT.manifest.json`.

    `seconds` adds up over all calls.
    """

    versions: dict[str, str] = Field(default_factory=versions)
    rows: int = 0
    seconds: float = 0.0

    @property
    def settings(self) -> dict[str, Any]:
        """What shaped the rows: a file is continued with the same only."""
        raise NotImplementedError

    def begun(self, note: str) -> Self:
        """The manifest of a file that rows are going to be added to; `note` says by what."""
        return self.model_copy(update={"versions": versions()})


class Output(Protocol[T]):
    """Takes rows in the order of the input."""

    kept: T
    """Rows that an earlier call has written."""

    def has(self, row: Row[T]) -> bool:
        """Whether the input's next row is there already. Raises StoreError for another row."""
        ...

    def begin(self, note: str) -> None:
        """Take note that rows are going to be added, and what makes them."""
        ...

    def end_of_input(self) -> None:
        """Raises StoreError where there are rows that the input has not."""
        ...

    async def write(self, line: bytes) -> None:
        """Add a row. Raises StoreError, and BrokenPipeError when nobody reads on."""
        ...

    def close(self, made: T, seconds: float) -> None:
        """Leave everything in order; `made` counts what this call has added."""
        ...


def open_output(
    path: Path | None, source: Source, manifest: OutputManifest, nothing: T
) -> Output[T]:
    """The file to append to, a pipe or device by its path, or standard output for None.

    `manifest` is that of a new file, and `nothing` a tally of no rows. Raises InputError and
    StoreError.
    """
    if path is None:
        if sys.stdout is None:
            raise InputError("standard output is closed; name a file with --out")
        output: Output[T] = Stream(1, "standard output", nothing)
        status = os.fstat(1)
    elif path.suffix == ".gz":
        raise InputError(f"--out {path}: rows are appended to a plain file, which can be zipped")
    elif path.exists() and not path.is_file() and not path.is_dir():
        with storage_errors(path, "nothing was written"):
            output = Stream(os.open(path, os.O_WRONLY), str(path), nothing)
        status = path.stat()
    else:
        if path.exists() and os.path.samestat(path.stat(), source.status):
            raise InputError(f"--out {path}: that is the file the {source.what} are read from")
        return OutputFile(path, source, manifest, nothing)
    if stat.S_ISREG(status.st_mode) and os.path.samestat(status, source.status):
        raise InputError(f"{source.path} is also where the rows would be written to")
    return output


class Stream(Generic[T]):
    """A pipe, or whatever standard output is; nobody can continue it."""

    def __init__(self, fd: int, name: str, nothing: T) -> None:
        self._fd = fd
        self._name = name
        self.kept = nothing

    def has(self, row: Row[T]) -> bool:
        """Never: what went down a pipe is gone."""
        return False

    def begin(self, note: str) -> None:
        """Nothing is kept about a stream."""

    def end_of_input(self) -> None:
        """Nothing was there before."""

    async def write(self, line: bytes) -> None:
        """Write a row as the reader takes it; meanwhile others are made."""
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

    def close(self, made: T, seconds: float) -> None:
        """Close what was opened by its path."""
        if self._fd != 1:
            os.close(self._fd)


class OutputFile(Generic[T]):
    """A file that rows are appended to, and its manifest.

    Rows that are there must be those of the input's beginning, made with the same settings; a
    torn last line is cut off. Raises StoreError, and RunLocked while another process writes.
    """

    def __init__(self, path: Path, source: Source, manifest: OutputManifest, nothing: T) -> None:
        self.path = path
        self.kept = nothing
        self._source = source.path
        self._rows = 0
        self._end = 0
        self._manifest_path = Path(f"{path}.manifest.json")
        self._manifest = manifest
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
                self._manifest = self._same_settings(manifest)
            self._reading = path.open("rb")
        except BaseException:
            os.close(self._fd)
            raise

    def has(self, row: Row[T]) -> bool:
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
        counted = row.tally(line)
        if counted is None:
            raise self._other(row)
        self.kept = self.kept.plus(counted)
        self._rows += 1
        self._end += len(line)
        return True

    def begin(self, note: str) -> None:
        """Write the manifest, before any row that it speaks of."""
        self._manifest = self._manifest.begun(note)
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

    def close(self, made: T, seconds: float) -> None:
        """Bring the manifest up to date where rows were added, leave no empty file that was not
        there before, and give the lock back."""
        try:
            if made.rows:
                with self._storage_errors():
                    os.fsync(self._fd)
                update = {
                    **self.kept.plus(made).fields(),
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

    def _same_settings(self, wanted: OutputManifest) -> OutputManifest:
        try:
            text = self._manifest_path.read_bytes()
            manifest = type(wanted).model_validate_json(text)
        except FileNotFoundError as error:
            raise StoreError(
                f"{self.path}: it is not empty, and {self._manifest_path.name} is not beside it, "
                "which says what made its rows; name another file"
            ) from error
        except OSError as error:
            raise StoreError(f"{self._manifest_path}: {reason(error)}") from error
        except ValidationError as error:
            raise DataError(explain(error, type(wanted)), self._manifest_path) from error
        if changed := changed_keys(manifest.settings, wanted.settings):
            raise StoreError(
                f"{self.path} was begun with other settings: {', '.join(changed)}; "
                "name another file"
            )
        return manifest

    def _other(self, row: Row[T]) -> StoreError:
        return StoreError(
            f"{self.path}, line {self._rows + 1}: not what line {row.n} of {self._source} gives; "
            "name another file, or the one it was begun from"
        )

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        with storage_errors(self.path, f"{self._rows} rows are kept"):
            yield
