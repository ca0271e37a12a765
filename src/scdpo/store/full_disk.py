"""What counts as a full disk, whichever library ran into it, and errors of the file system."""

from __future__ import annotations

import errno
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scdpo.errors import StorageFull, StoreError

# EFBIG is a limit on the size of a file (`ulimit -f`), which the user lifts as one frees space.
# EIO is not among them: it is a failing device, and advice to free up space would mislead.
_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# safetensors passes on the system's words; torch's writer of checkpoints says only that a write
# failed, in the words of the C++ library or of its own consistency check.
_WORDS = ("No space left", "quota exceeded", "PytorchStreamWriter failed", "iostream error")


def is_full_disk(error: BaseException) -> bool:
    """Whether an error, or one behind it, says that a disk, quota or size limit is exhausted."""
    return any(
        (isinstance(cause, OSError) and cause.errno in _ERRNOS)
        or any(word in str(cause) for word in _WORDS)
        for cause in _chain(error)
    )


@contextmanager
def storage_errors(path: Path, kept: str) -> Iterator[None]:
    """Turn OSError into StorageFull (with what was `kept`, as a clause) or StoreError."""
    try:
        yield
    except OSError as error:
        if error.errno in _ERRNOS:
            raise StorageFull(
                f"{path}: {reason(error)}; {kept}; free up space and run again"
            ) from error
        raise StoreError(f"{path}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """Why a file could not be used, in a few words."""
    match error:
        case FileNotFoundError():
            return "no such file"
        case IsADirectoryError():
            return "a folder, not a file"
        case gzip.BadGzipFile() | EOFError() | zlib.error():
            return f"not a complete gzip file ({error})"
        case OSError():
            return error.strerror or str(error)
    return str(error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and every error it was raised from or while handling."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        found = waiting.pop()
        if found is not None and id(found) not in seen:
            seen.add(id(found))
            yield found
            waiting += [found.__cause__, found.__context__]
