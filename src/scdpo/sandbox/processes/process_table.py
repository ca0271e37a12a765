"""Reads /proc: which processes descend from which, in which PID namespace, with how much memory."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from collections.abc import Iterable

_PAGE = os.sysconf("SC_PAGESIZE")


class ProcessTable:
    """The processes of a /proc, by their ids there.

    It may be the /proc of an outer PID namespace, whose ids are not those that `os.getpid` returns
    and `os.kill` takes in this process.
    """

    def __init__(self) -> None:
        self.fd = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        own = os.readlink("self", dir_fd=self.fd)
        self._lists_children = self._exists(f"{own}/task/{own}/children")

    def own(self) -> int:
        """The id of this process."""
        return int(os.readlink("self", dir_fd=self.fd))

    def of(self, pidfd: int) -> int | None:
        """The id of the process behind a pidfd; None if it has ended."""
        return pid_of(pidfd, self.fd)

    def descendants(self, roots: Iterable[int]) -> list[int]:
        """All descendants of `roots`, including dead ones that have not been waited for."""
        below = self.children if self._lists_children else self._all_children().__getitem__
        found: list[int] = []
        seen: set[int] = set()
        open_ = list(roots)
        while open_:
            with contextlib.suppress(OSError, KeyError):
                new = [child for child in below(open_.pop()) if child not in seen]
                seen.update(new)
                found += new
                open_ += new
        return found

    def namespace(self, pid: int) -> int:
        """The number of a process's PID namespace; 0 if the process is gone."""
        with contextlib.suppress(OSError):
            return os.stat(f"{pid}/ns/pid", dir_fd=self.fd).st_ino
        return 0

    def here(self, pid: int, own: int) -> int | None:
        """The id of `pid` in the PID namespace of process `own`; None if it is gone."""
        theirs, ours = self._levels(pid), self._levels(own)
        return theirs[len(ours) - 1] if theirs and len(theirs) >= len(ours) else None

    def user(self, pid: int) -> int | None:
        """The user id of a process; None if it is gone."""
        with contextlib.suppress(OSError):
            return os.stat(str(pid), dir_fd=self.fd).st_uid
        return None

    def resident(self, pid: int) -> int:
        """Bytes of resident memory of a process, including memory that it shares."""
        fields = self._read(f"{pid}/statm").split()
        return int(fields[1]) * _PAGE if len(fields) > 1 else 0

    def unlinked(self, pid: int) -> dict[tuple[int, int], int]:
        """Bytes of the deleted files that a process still has open, by device and inode number."""
        found: dict[tuple[int, int], int] = {}
        folder = self._open_folder(f"{pid}/fd")
        if folder is None:
            return found
        try:
            for number in self._numbers(folder):
                with contextlib.suppress(OSError):
                    at = os.stat(str(number), dir_fd=folder)
                    if stat.S_ISREG(at.st_mode) and at.st_nlink == 0:
                        found[at.st_dev, at.st_ino] = at.st_blocks * 512
        except OSError:
            pass
        finally:
            os.close(folder)
        return found

    def proportional(self, pid: int) -> int:
        """Bytes of memory without a file behind it; memory that n processes share counts 1/n.

        If that cannot be read, all resident memory.
        """
        total = 0
        lines = self._read(f"{pid}/smaps_rollup").splitlines()
        if not lines:
            return self.resident(pid)
        for line in lines:
            if line.startswith(("Pss_Anon:", "Pss_Shmem:", "SwapPss:")):
                total += int(line.split()[1]) << 10
        return total

    def _levels(self, pid: int) -> list[int]:
        for line in self._read(f"{pid}/status").splitlines():
            if line.startswith("NSpid:"):
                return [int(word) for word in line.split()[1:]]
        return []

    def lives(self, pid: int) -> bool:
        """Whether a process has not ended yet."""
        return self._state(pid) not in ("", "Z", "X")

    def stopped(self, pid: int) -> bool:
        """Whether a signal has stopped a process."""
        return self._state(pid) == "T"

    def _state(self, pid: int) -> str:
        # The command name, in brackets, may hold spaces and brackets itself.
        fields = self._read(f"{pid}/stat").rpartition(")")[2].split()
        return fields[0] if fields else ""

    def children(self, pid: int) -> list[int]:
        """The processes that a process has started or adopted."""
        if not self._lists_children:
            return self._all_children().get(pid, [])
        fd = self._open_folder(f"{pid}/task")
        if fd is None:
            return []
        try:
            tasks = self._numbers(fd)
        finally:
            os.close(fd)
        lists = (self._read(f"{pid}/task/{task}/children") for task in tasks)
        return [int(word) for words in lists for word in words.split()]

    def _all_children(self) -> dict[int, list[int]]:
        """Parents and their children, for kernels that keep no list of children."""
        below: dict[int, list[int]] = {}
        for pid in self._numbers(self.fd):
            below.setdefault(pid, [])
            # The command name, in brackets, may hold spaces and brackets itself.
            fields = self._read(f"{pid}/stat").rpartition(")")[2].split()
            if len(fields) > 1:
                below.setdefault(int(fields[1]), []).append(pid)
        return below

    def _numbers(self, folder: int) -> list[int]:
        with os.scandir(folder) as entries:
            return [int(entry.name) for entry in entries if entry.name.isdigit()]

    def _open_folder(self, path: str) -> int | None:
        with contextlib.suppress(OSError):
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=self.fd)
        return None

    def _exists(self, path: str) -> bool:
        with contextlib.suppress(OSError):
            os.stat(path, dir_fd=self.fd)
            return True
        return False

    def _read(self, path: str) -> str:
        return _read(path, self.fd)


def pid_of(pidfd: int, proc: int) -> int | None:
    """The process id behind a pidfd of this process, in the /proc behind descriptor `proc`.

    None if the process has ended.
    """
    for line in _read(f"self/fdinfo/{pidfd}", proc).splitlines():
        if line.startswith("Pid:") and int(line[4:]) > 0:
            return int(line[4:])
    return None


def _read(path: str, proc: int) -> str:
    """A file's text; empty if the process is gone."""
    try:
        fd = os.open(path, os.O_RDONLY, dir_fd=proc)
    except OSError:
        return ""
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(fd)


def send_signal(number: signal.Signals, pids: Iterable[int]) -> None:
    """Send a signal to processes; those that have ended are skipped."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
