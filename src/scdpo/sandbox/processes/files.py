"""A session's files: copied for a clone, open ones included, and deleted at its end."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import shutil
import stat
from pathlib import Path

_FIRST = 3
_LAST = 250


def copy(source: int, target: str) -> None:
    """Copy everything below the folder behind descriptor `source` into the folder `target`.

    Descriptors of this process that refer to the copied files are moved to the copies, with their
    position and mode. Skipped: everything that is not a file, folder or link, and what this process
    may not read. Raises OSError if the copies cannot be written, or if both are the same folder.
    """
    if os.path.samestat(os.fstat(source), Path(target).stat()):
        raise FileExistsError(errno.EEXIST, "a folder cannot be copied onto itself", target)
    moved: dict[tuple[int, int], Path] = {}
    _copy_folder(source, Path(target), moved)
    if moved:
        for fd in range(_FIRST, _LAST):
            with contextlib.suppress(OSError):
                _reopen(fd, moved)


def _copy_folder(source: int, target: Path, moved: dict[tuple[int, int], Path]) -> None:
    with os.scandir(source) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        at = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISLNK(at.st_mode):
            (target / name).symlink_to(os.readlink(name, dir_fd=source))
        elif stat.S_ISDIR(at.st_mode) or stat.S_ISREG(at.st_mode):
            try:
                fd = os.open(name, os.O_RDONLY, dir_fd=source)
            except PermissionError:
                continue
            try:
                _copy_opened(fd, at, source, target / name, moved)
            finally:
                os.close(fd)


def _copy_opened(
    fd: int,
    at: os.stat_result,
    source: int,
    target: Path,
    moved: dict[tuple[int, int], Path],
) -> None:
    # What is mounted below does not belong to the session.
    if at.st_dev != os.fstat(source).st_dev:
        return
    known = moved.get((at.st_dev, at.st_ino))
    if known is not None:
        target.hardlink_to(known)
        return
    if stat.S_ISDIR(at.st_mode):
        target.mkdir(exist_ok=True)
        _copy_folder(fd, target, moved)
    else:
        with open(fd, "rb", closefd=False) as old, target.open("wb") as new:
            shutil.copyfileobj(old, new)
        moved[at.st_dev, at.st_ino] = target
    # The filter refuses to change modes and times where sessions run as their owner.
    with contextlib.suppress(PermissionError):
        target.chmod(stat.S_IMODE(at.st_mode))
        os.utime(target, ns=(at.st_atime_ns, at.st_mtime_ns))


def _reopen(fd: int, moved: dict[tuple[int, int], Path]) -> None:
    at = os.fstat(fd)
    target = moved.get((at.st_dev, at.st_ino))
    if target is None:
        return
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    new = os.open(target, flags & (os.O_ACCMODE | os.O_APPEND))
    os.lseek(new, os.lseek(fd, 0, os.SEEK_CUR), os.SEEK_SET)
    os.dup2(new, fd, inheritable=os.get_inheritable(fd))
    os.close(new)


def remove(folder: str) -> None:
    """Delete a folder and everything below it, whatever the modes and the depth.

    Code may change the folder meanwhile; nothing outside is touched, as no link is followed.
    Folders are moved up and emptied there, so that depth costs neither descriptors nor recursion.
    What cannot be deleted stays. A folder that does not exist is no error.
    """
    with contextlib.suppress(OSError):
        Path(folder).rmdir()
        return
    with contextlib.suppress(OSError):
        top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.fchmod(top, stat.S_IRWXU)
            _empty(top)
        finally:
            os.close(top)
        Path(folder).rmdir()


def _empty(top: int) -> None:
    waiting = [name for name in _names(top) if not _unlink(name, top)]
    numbers = itertools.count()
    while waiting:
        name = waiting.pop()
        with contextlib.suppress(OSError):
            here = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
            try:
                for inner in _names(here):
                    if not _unlink(inner, here):
                        moved = f"{_MOVED}{next(numbers)}"
                        os.rename(inner, moved, src_dir_fd=here, dst_dir_fd=top)
                        waiting.append(moved)
            finally:
                os.close(here)
            os.rmdir(name, dir_fd=top)


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _unlink(name: str, folder: int) -> bool:
    """Delete a file, or make a folder accessible so that it can be emptied; True if deleted."""
    at = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)
    try:
        if stat.S_ISDIR(os.fstat(at).st_mode):
            # `fchmod` does not work with an O_PATH descriptor.
            with contextlib.suppress(OSError):
                Path(f"/proc/self/fd/{at}").chmod(stat.S_IRWXU)
            return False
    finally:
        os.close(at)
    os.unlink(name, dir_fd=folder)
    return True


_MOVED = ".removed-"
