"""Where completed rows go: a file that can be resumed, or a pipe."""

from __future__ import annotations

import asyncio
import os
import select
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Generic, Protocol, Self, TypeVar

from pydantic import Field, ValidationError

from scdpo.errors import DataError, InputError, StoreError
from scdpo.errors.validation import explain
from scdpo.records import Record
from scdpo.rowfiles.source import Source, ready
from scdpo.store import (
    append_row,
    changed_keys,
    lock,
    reason,
    remove_leftovers,
    storage_errors,
    unlock,
    versions,
    write_atomic,
)


class RowCounts(Protocol):
    """Counts rows and what a command reports about them; never changed, only added up."""

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


C = TypeVar("C", bound=RowCounts)
C_co = TypeVar("C_co", bound=RowCounts, covariant=True)


class InputRow(Protocol[C_co]):
    """A row of the input."""

    @property
    def n(self) -> int:
        """Its line, from 1."""
        ...

    @property
    def head(self) -> bytes:
        """The part of its line that is written again."""
        ...

    @property
    def start(self) -> bytes:
        """What its line in the output begins with, whatever is added to it."""
        ...

    def counts(self, line: bytes) -> C_co | None:
        """What a line of an output counts for; None where it is not this row's."""
        ...


class OutputManifest(Record):
    """What made the rows of an output file, kept beside it as `OUT.manifest.json`.

    `seconds` add up over all calls.
    """

    versions: dict[str, str] = Field(default_factory=versions)
    rows: int = 0
    seconds: float = 0.0

    @property
    def settings(self) -> dict[str, Any]:
        """What shaped the rows: a file is resumed only with the same settings."""
        raise NotImplementedError

    def begun(self, note: str) -> Self:
        """The manifest of a file to which rows are about to be added; `note` says by what."""
        return self.model_copy(update={"versions": versions()})


class Output(Protocol[C]):
    """Takes rows in the order of the input."""

    kept: C
    """Rows that an earlier call has written."""

    def has(self, row: InputRow[C]) -> bool:
        """Whether the input's next row is there already. Raises StoreError for another row."""
        ...

    def begin(self, note: str) -> None:
        """Prepare for rows to be added; `note` says what makes them."""
        ...

    def end_of_input(self) -> None:
        """Raises StoreError where the output has rows that the input does not have."""
        ...

    async def write(self, line: bytes) -> None:
        """Add a row. Raises StoreError, and BrokenPipeError when nobody reads any more."""
        ...

    def close(self, made: C, seconds: float) -> None:
        """Finish; `made` counts the rows that this call has added, in `seconds`."""
        ...


def open_output(
    path: Path | None, source: Source, manifest: OutputManifest, nothing: C
) -> Output[C]:
    """The file to append to, a pipe or device by its path, or standard output for None.

    `manifest` is that of a new file, and `nothing` counts no rows. Raises InputError, StoreError,
    and RunLocked while another process writes to the file.
    """
    if path is None:
        if sys.stdout is None:
            raise InputError("standard output is closed; name a file with --out")
        output: Output[C] = Stream(1, "standard output", nothing)
        status = os.fstat(1)
    elif path.suffix == ".gz":
        raise InputError(f"--out {path}: rows cannot be appended to a gzip file; name a plain one")
    elif path.exists() and not path.is_file() and not path.is_dir():
        with storage_errors(path, "nothing was written"):
            output = Stream(os.open(path, os.O_WRONLY), str(path), nothing)
        status = path.stat()
    else:
        if path.exists() and os.path.samestat(path.stat(), source.status):
            raise InputError(f"--out {path}: the {source.what} are read from this file")
        return OutputFile(path, source, manifest, nothing)
    if stat.S_ISREG(status.st_mode) and os.path.samestat(status, source.status):
        raise InputError(f"{source.path}: rows would be written to the file they are read from")
    return output


class Stream(Generic[C]):
    """A pipe, or whatever standard output is; it cannot be resumed."""

    def __init__(self, fd: int, name: str, nothing: C) -> None:
        self._fd = fd
        self._name = name
        self.kept = nothing

    def has(self, row: InputRow[C]) -> bool:
        """Never: what went into a pipe cannot be read back."""
        return False

    def begin(self, note: str) -> None:
        """Nothing is recorded about a stream."""

    def end_of_input(self) -> None:
        """Nothing was there before."""

    async def write(self, line: bytes) -> None:
        """Write a row as fast as the reader takes it, while others are completed."""
        loop = asyncio.get_running_loop()
        left = memoryview(line)
        while left:
            await ready(self._fd, loop.add_writer, loop.remove_writer)
            try:
                # A pipe that is ready takes this much at once, so the call cannot block.
                left = left[os.write(self._fd, left[: select.PIPE_BUF]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise
            except OSError as error:
                raise StoreError(f"{self._name}: {reason(error)}") from error

    def close(self, made: C, seconds: float) -> None:
        """Close what was opened by its path."""
        if self._fd != 1:
            os.close(self._fd)


class OutputFile(Generic[C]):
    """A file that rows are appended to, and its manifest.

    Rows that are there must be those of the first rows of the input, made with the same settings;
    a torn last line is cut off. Raises StoreError, and RunLocked while another process writes.
    """

    def __init__(self, path: Path, source: Source, manifest: OutputManifest, nothing: C) -> None:
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
            lock(self._fd, path)
            if os.fstat(self._fd).st_size:
                self._manifest = self._same_settings(manifest)
            self._reading = path.open("rb")
        except BaseException:
            unlock(self._fd)
            raise

    def has(self, row: InputRow[C]) -> bool:
        """Whether the row is there; at the first that is not, a torn line is cut off."""
        if self._reading is None:
            return False
        line = self._reading.readline()
        if not line.endswith(b"\n"):
            if not (line.startswith(row.start) or row.start.startswith(line)):
                raise self._other_row(row)
            self._reading.close()
            self._reading = None
            with self._storage_errors():
                os.ftruncate(self._fd, self._end)
            return False
        counts = row.counts(line)
        if counts is None:
            raise self._other_row(row)
        self.kept = self.kept.plus(counts)
        self._rows += 1
        self._end += len(line)
        return True

    def begin(self, note: str) -> None:
        """Write the manifest, before any row that it describes."""
        remove_leftovers(self._manifest_path)
        self._manifest = self._manifest.begun(note)
        self._save()

    def end_of_input(self) -> None:
        """Raises StoreError where something follows the line of the last row."""
        if self._reading is not None and self._reading.readline():
            raise StoreError(
                f"{self.path}: has more rows than {self._source}, which has {self._rows}; "
                "name another output file"
            )

    async def write(self, line: bytes) -> None:
        """Append a row, whole or not at all."""
        with self._storage_errors():
            append_row(self._fd, line)
        self._rows += 1

    def close(self, made: C, seconds: float) -> None:
        """Update the manifest where rows were added, delete a new file that stayed empty, and
        give the lock back."""
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
            unlock(self._fd)

    def _save(self) -> None:
        write_atomic(self._manifest_path, self._manifest.model_dump_json(indent=2) + "\n")

    def _same_settings(self, wanted: OutputManifest) -> OutputManifest:
        try:
            text = self._manifest_path.read_bytes()
            manifest = type(wanted).model_validate_json(text)
        except FileNotFoundError as error:
            raise StoreError(
                f"{self.path}: has rows, but {self._manifest_path.name}, which says what made "
                "them, is missing; name another output file"
            ) from error
        except OSError as error:
            raise StoreError(f"{self._manifest_path}: {reason(error)}") from error
        except ValidationError as error:
            raise DataError(explain(error, type(wanted)), self._manifest_path) from error
        if changed := changed_keys(manifest.settings, wanted.settings):
            raise StoreError(
                f"{self.path} was started with other settings: {', '.join(changed)}; "
                "name another output file"
            )
        return manifest

    def _other_row(self, row: InputRow[C]) -> StoreError:
        return StoreError(
            f"{self.path}, line {self._rows + 1}: was not made from line {row.n} of "
            f"{self._source}; name another output file, or the input it was made from"
        )

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        with storage_errors(self.path, f"{self._rows} rows are kept"):
            yield
