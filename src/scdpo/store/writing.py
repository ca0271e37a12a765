"""Writing files that appear complete or not at all."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from scdpo.errors import StoreError
from scdpo.store.encoding import Row, json_line
from scdpo.store.full_disk import reason, storage_errors


def write_jsonl(path: Path | str, rows: Iterable[Row]) -> int:
    """Write records or objects as JSONL (gzip when it ends in .gz); returns how many.

    The file appears complete or not at all. Raises StorageFull or StoreError.
    """
    path = Path(path)
    n = 0
    with replacing(path) as raw:
        # mtime 0: equal rows make equal files.
        zipped = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if path.suffix == ".gz" else None
        out = cast("IO[bytes]", zipped or raw)
        for row in rows:
            out.write(json_line(row))
            n += 1
        if zipped is not None:
            zipped.close()
    return n


def write_atomic(path: Path | str, data: bytes | str) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one, never a mixture.

    Text is written in UTF-8; folders above are created. Raises StorageFull or StoreError.
    """
    with replacing(path) as out:
        out.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def replacing(path: Path | str) -> Iterator[IO[bytes]]:
    """A binary file to write to, which takes the place of `path` when the block ends well.

    The bytes are on the disk (fsync) before the old file is replaced. A link is followed; a
    device or pipe is written to directly. Raises StorageFull or StoreError.
    """
    path = Path(path).resolve()
    with storage_errors(path, "nothing was replaced"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            # Renaming over a device or pipe would destroy it.
            with path.open("wb") as out:
                yield out
            return
        # One for each process, so that two that write at once do not share it.
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as out:
                yield out
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def remove_leftovers(path: Path) -> None:
    """Delete the temporary files that killed writers of `path` have left.

    For the only process that writes `path`, such as the holder of a lock.
    """
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Create a folder and those above it. Raises StoreError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreError(f"{path}: a file is in the way; a folder is needed") from error
    except OSError as error:
        raise StoreError(f"{path}: {reason(error)}") from error


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
