"""A run folder and the lock that keeps other writers out."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Self

from scdpo.errors import RunLocked, StoreError
from scdpo.store.files import make_folder, reason, short
from scdpo.store.manifest import utc_now
from scdpo.store.stage import Stage

_STAGE_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*")


class RunFolder:
    """A run folder, opened for writing (exclusively) or for reading; a context manager.

    Writing creates the folder and holds a lock until `close`; the lock ends with the process,
    however that ends. Raises RunLocked when another process writes there, StoreError when the
    folder cannot be used.
    """

    def __init__(self, path: Path | str, *, write: bool = True):
        self.path = Path(path)
        self.write = write
        self._lock: int | None = None
        self._stages: dict[str, Stage] = {}
        if write:
            make_folder(self.path)
            self._lock = _acquire(self.path)
        elif not self.path.is_dir():
            raise StoreError(f"{self.path}: no run folder there")

    def stage(self, name: str) -> Stage:
        """A stage of this run, begun or not. `name` may have slashes (`policies/dpo`)."""
        if not _STAGE_NAME.fullmatch(name):
            raise StoreError(f"{name!r} is not a stage name: letters, digits and _ . - are")
        if name not in self._stages:
            self._stages[name] = Stage(self, name)
        return self._stages[name]

    def close(self) -> None:
        """Close the open stages and give the lock back; closing twice does nothing."""
        try:
            for stage in self._stages.values():
                stage.close()
        finally:
            self._stages.clear()
            if self._lock is not None:
                _HELD.pop(self._lock, None)
                os.close(self._lock)
                self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


_HELD: dict[int, None] = {}
"""Descriptors of the locks this process holds."""


def _drop_in_child() -> None:
    """A forked child must not keep a lock alive that its parent's death should end."""
    for fd in _HELD:
        os.close(fd)
    _HELD.clear()


os.register_at_fork(after_in_child=_drop_in_child)


def _acquire(folder: Path) -> int:
    path = folder / ".lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise StoreError(f"{path}: {reason(error)}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(fd, 4096, 0).decode(errors="replace") or "another process"
        os.close(fd)
        raise RunLocked(f"run folder {folder} is in use by {holder}") from error
    except OSError as error:
        os.close(fd)
        raise StoreError(f"{path}: this file system cannot lock: {reason(error)}") from error
    _HELD[fd] = None
    command = short(" ".join(sys.argv), 200, quote=False)
    holder = f"process {os.getpid()} (host {socket.gethostname()}, {command}, since {utc_now()})"
    # Only for the message to others: the lock holds without it, even on a full disk.
    with suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, " ".join(holder.split()).encode(), 0)
    return fd
