"""Locks that keep other writers out; the operating system ends them with the process."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

from scdpo.errors import RunLocked, StoreError, short
from scdpo.store.full_disk import reason
from scdpo.store.manifest import utc_now

_HELD: set[int] = set()
"""Descriptors of the locked files of this process."""


def lock(fd: int, path: Path) -> None:
    """Lock an open file for this process alone; `unlock` closes it.

    Raises RunLocked while another process holds it, StoreError where the file system has no
    locks. `path` is for the message.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunLocked(f"{path}: another process is writing to it") from error
    except OSError as error:
        raise StoreError(f"{path}: this file system cannot lock files: {reason(error)}") from error
    _HELD.add(fd)


def unlock(fd: int) -> None:
    """Give a lock back and close its file."""
    _HELD.discard(fd)
    os.close(fd)


def lock_folder(folder: Path) -> int:
    """Lock a folder by its file `.lock`, which names the holder; returns what `unlock` takes.

    Raises RunLocked, naming the process that holds it, or StoreError.
    """
    path = folder / ".lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise StoreError(f"{path}: {reason(error)}") from error
    try:
        lock(fd, path)
    except RunLocked as error:
        holder = os.pread(fd, 4096, 0).decode(errors="replace") or "another process"
        os.close(fd)
        raise RunLocked(f"run folder {folder} is in use by {holder}") from error
    except StoreError:
        os.close(fd)
        raise
    command = short(" ".join(sys.argv), 200, quote=False)
    holder = f"process {os.getpid()} (host {socket.gethostname()}, {command}, since {utc_now()})"
    # Only for the message to others: the lock holds without it, even on a full disk.
    with suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, " ".join(holder.split()).encode(), 0)
    return fd


def _drop_in_child() -> None:
    """Close a forked child's copies: they would keep a lock alive after its holder's death."""
    for fd in _HELD:
        os.close(fd)
    _HELD.clear()


os.register_at_fork(after_in_child=_drop_in_child)
