"""Appending to a file: a whole row or nothing, and cutting off a torn last line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO

from scdpo.store.full_disk import storage_errors


def append_row(fd: int, row: bytes) -> None:
    """Append a row, whole or not at all, to a file opened with O_APPEND.

    Raises OSError after what was written of the row has been cut off again.
    """
    start = os.fstat(fd).st_size
    done = 0
    try:
        while done < len(row):
            done += os.write(fd, row[done:])
    except BaseException:
        os.ftruncate(fd, start)
        raise


def cut_torn_tail(path: Path) -> bool:
    """Cut off a last line that is not a whole JSON object; returns whether there was one.

    A process killed while it appended leaves such a line. Raises StoreError.
    """
    with storage_errors(path, "nothing was repaired"), path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        start = _last_line_start(file, end)
        file.seek(start)
        line = file.read()
        if not line or (line.endswith(b"\n") and _is_object(line)):
            return False
        file.truncate(start)
        os.fsync(file.fileno())
        return True


def _last_line_start(file: IO[bytes], end: int) -> int:
    """Where the last line begins, with or without a newline at its end; reads backwards."""
    position = end - 1  # the last byte may be the line's own newline
    while position > 0:
        start = max(0, position - 2**16)
        file.seek(start)
        found = file.read(position - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
