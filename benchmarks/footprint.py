"""What this process and everything below it hold of the machine, read from /proc."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_NAMESPACES = ("pid", "net", "mnt", "user", "ipc", "uts", "cgroup")
_SYSTEM_V = ("shm", "sem", "msg")
_PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/")
_SUBREAPER = 36
SETTLE_SECONDS = 5.0
"""How long the kernel may take to end what was killed."""
STEADY_SECONDS = 0.5
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Footprint:
    """Counts that must come back to what they were, where something is mounted as this process
    sees it, resident memory (bytes) by process, and what the whole machine holds, which others add
    to as well."""

    counts: dict[str, int]
    mounts: frozenset[str]
    resident: dict[int, int]
    machine: dict[str, int]


def adopt_orphans() -> None:
    """Become the parent of all below that lose theirs, so that none is out of sight."""
    if ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("prctl(PR_SET_CHILD_SUBREAPER) failed")


def reap() -> None:
    """Wait for adopted orphans that have ended, as the machine's first process would."""
    for pid, (parent, state) in _processes().items():
        if parent == os.getpid() and state == "Z":
            os.waitpid(pid, 0)


def end_everything_below() -> None:
    """Kill whatever is left below this process."""
    end = time.monotonic() + SETTLE_SECONDS
    while (left := descendants()) and time.monotonic() < end:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        reap()


def measure(folder: Path, mark: str) -> Footprint:
    """The footprint now; `folder` holds our temporary files, `mark` begins the names of others."""
    me, below = os.getpid(), descendants()
    processes = [me, *below]
    spaces = {pid: {kind: _link(pid, kind) for kind in _NAMESPACES} for pid in processes}
    mounts = {spaces[pid]["mnt"]: _lines(f"{pid}/mountinfo") for pid in below}
    own_mounts = (_PROC / "self/mountinfo").read_text().splitlines()
    counts = {
        "processes below": len(below),
        "descriptors, own": _entries(me, "fd"),
        "descriptors, below": sum(_entries(pid, "fd") for pid in below),
        "mounts, own": len(own_mounts),
        "mounts, below": sum(mounts.values()),
        "namespaces": len({(k, v) for of in spaces.values() for k, v in of.items() if v}),
        "temporary files": sum(1 for _ in folder.rglob("*")),
        "files elsewhere": len(files_elsewhere(mark)),
        # Each of the three lists has a heading.
        "System V objects": sum(_lines(f"sysvipc/{kind}") - 1 for kind in _SYSTEM_V),
    }
    machine = {f"{name}, MiB": kib >> 10 for name, kib in _meminfo("Slab", "Percpu", "Shmem")}
    machine["control groups"] = _control_groups()
    resident = {pid: _resident(pid) for pid in processes}
    places = frozenset(f"mount on {line.split()[4]}" for line in own_mounts)
    return Footprint(counts, places, resident, machine)


def settled(take: Callable[[], Footprint]) -> Footprint:
    """The footprint once its counts have stayed the same for a while, or time is up."""
    end = time.monotonic() + SETTLE_SECONDS
    found, since = take(), time.monotonic()
    while time.monotonic() - since < STEADY_SECONDS and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
        last, found = found, take()
        if found.counts != last.counts:
            since = time.monotonic()
    return found


def files_elsewhere(mark: str) -> list[Path]:
    """Files with that mark in the places where anyone may write."""
    return [path for place in _PLACES for path in Path(place).glob(f"{mark}*")]


def descendants() -> list[int]:
    """Every process below this one, in whatever namespaces, dead ones included."""
    children: dict[int, list[int]] = defaultdict(list)
    for pid, (parent, _) in _processes().items():
        children[parent].append(pid)
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        those = children[waiting.pop()]
        found += those
        waiting += those
    return found


def describe(pid: int) -> str:
    """A process in a few words."""
    try:
        line = (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ")
        status = (_PROC / str(pid) / "status").read_text()
    except OSError:
        return f"process {pid}, which has just ended"
    wanted = [x for x in status.splitlines() if x.startswith(("Name:", "State:", "NSpid:"))]
    return f"process {pid}: {' '.join(' '.join(wanted).split())}: {line.decode(errors='replace')}"


def _processes() -> dict[int, tuple[int, str]]:
    """Parent and state of every process on the machine."""
    found = {}
    for entry in _PROC.glob("[0-9]*"):
        try:
            text = (entry / "stat").read_text(errors="replace")
        except OSError:
            continue  # it has just ended
        # The name, in brackets, may hold spaces and brackets itself.
        state, parent = text.rpartition(")")[2].split()[:2]
        found[int(entry.name)] = (int(parent), state)
    return found


def _link(pid: int, kind: str) -> str:
    try:
        return str((_PROC / f"{pid}/ns/{kind}").readlink())
    except OSError:
        return ""


def _lines(path: str) -> int:
    try:
        return (_PROC / path).read_bytes().count(b"\n")
    except OSError:
        return 0


def _entries(pid: int, name: str) -> int:
    try:
        return sum(1 for _ in (_PROC / f"{pid}/{name}").iterdir())
    except OSError:
        return 0


def _resident(pid: int) -> int:
    try:
        pages = (_PROC / str(pid) / "statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGESIZE")


def _meminfo(*names: str) -> Iterator[tuple[str, int]]:
    for line in (_PROC / "meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in names:
            yield name, int(value.split()[0])


def _control_groups() -> int:
    """Of every hierarchy of version 1 together; 0 where the kernel keeps no list."""
    try:
        lines = (_PROC / "cgroups").read_text().splitlines()[1:]
    except OSError:
        return 0
    return sum(int(line.split()[2]) for line in lines)
