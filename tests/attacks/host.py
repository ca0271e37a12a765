"""The owner's things that an attack might reach, and what is noted of them before and after."""

# ruff: noqa: PTH208 - names of entries are what is wanted here

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

MARK = "scdpo-attack"
"""In the name of every file that an attack tries to make outside of its own folder."""
SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGIO, signal.SIGURG)
PR_SET_CHILD_SUBREAPER = 36
_DEPTH = 12
_LIBC = ctypes.CDLL(None)
MODULES = [os.__file__, sysconfig.__file__, contextlib.__file__]
KEY = 0x5CD90000
"""Of System V objects."""


class Host:
    """Canaries of the process that owns the sandboxes; `facts` says how they are."""

    def __init__(self) -> None:
        # What escapes from a sandbox becomes our child, and so cannot be overlooked.
        _LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.folder = Path(tempfile.mkdtemp(prefix="attacked-"))
        self.home = self.folder / "home"
        self.temporary = self.folder / "temporary"
        self.temporary.mkdir()
        tempfile.tempdir = str(self.temporary)
        self.secrets = {name: secrets.token_hex(12) for name in ("file", "key", "env")}
        os.environ["SCDPO_SECRET"] = self.secrets["env"]
        (self.home / ".ssh").mkdir(parents=True)
        self.files = {self.home / "notes": "file", self.home / ".ssh" / "id_ed25519": "key"}
        for path, name in self.files.items():
            path.write_text(self.secrets[name])
            path.chmod(0o600)
            with contextlib.suppress(OSError):
                os.setxattr(path, "user.origin", self.secrets[name].encode())
            # Whatever reads the file from here on moves its time of access.
            os.utime(path, (1, 2))
        self._listen()
        self.clock = time.time() - time.monotonic()
        self.received = 0
        for number in SIGNALS:
            signal.signal(number, self._count_signal)
        users = [{}] if os.geteuid() else [{}, {"user": 65534, "group": 65534}]
        self.canaries = [self._canary(**user) for user in users]

    def _canary(self, **user: Any) -> subprocess.Popen[bytes]:
        """A process that would notice a signal, and ends when we do."""
        null = subprocess.DEVNULL
        command = ["/usr/bin/cat"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=null, stderr=null, **user)

    def _count_signal(self, *ignored: object) -> None:
        self.received += 1

    def _listen(self) -> None:
        """Sockets of the owner that no session may reach."""
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(type=socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.abstract = f"\0{MARK}-{os.getpid()}"
        self.unix: dict[str, socket.socket] = {}
        for kind, name in ((socket.SOCK_STREAM, "stream"), (socket.SOCK_DGRAM, "datagram")):
            for base in (str(self.folder) + "/", self.abstract):
                listener = socket.socket(socket.AF_UNIX, kind)
                listener.bind(base + name)
                if kind == socket.SOCK_STREAM:
                    listener.listen()
                else:
                    # So that nothing but the sandbox stands between.
                    if base[0] == "/":
                        Path(base + name).chmod(0o777)
                self.unix[base + name] = listener
        self.folder.chmod(0o755)
        for listener in (self.tcp, self.udp, *self.unix.values()):
            listener.setblocking(False)

    def target(self) -> dict[str, Any]:
        """What the kit tells hostile code about the owner."""
        return {
            "owner": os.getpid(),
            "pids": [os.getpid(), *(canary.pid for canary in self.canaries)],
            "files": [str(path) for path in self.files],
            "folder": str(self.folder),
            "temporary": str(self.temporary),
            "checkout": str(Path(__file__).parents[2]),
            "tcp": self.tcp.getsockname()[1],
            "udp": self.udp.getsockname()[1],
            "unix": list(self.unix),
            "interpreter": sorted({sys.prefix, sys.base_prefix, *interpreter_folders()}),
            "modules": MODULES,
            "mark": f"{MARK}-{os.getpid()}",
            "key": KEY,
        }

    def facts(self) -> dict[str, object]:
        """What an attack must leave as it is, by what to call it."""
        pids = [os.getpid(), *(canary.pid for canary in self.canaries)]
        schedules = [
            (os.sched_getaffinity(p), os.sched_getscheduler(p), os.getpriority(os.PRIO_PROCESS, p))
            for p in pids
        ]
        return {
            "canaries": [state_of(canary.pid) in ("S", "R") for canary in self.canaries],
            "signals": self.received,
            "connections": self._connections(),
            "secrets": [self._file(path, name) for path, name in self.files.items()],
            "files": self.names(self.folder),
            "descriptors": open_descriptors(),
            "threads": len(os.listdir("/proc/self/task")),
            "limits": [Path(f"/proc/{pid}/limits").read_text() for pid in pids],
            "schedules": schedules,
            "owner": (Path.cwd(), os.getpgrp(), os.getsid(0), os.environ.get("SCDPO_SECRET")),
            "handlers": [signal.getsignal(n) for n in SIGNALS],
            "mounts": self._mounts(),
            "clock set": abs(time.time() - time.monotonic() - self.clock) > 1,
            "marks": marks(),
            "name": os.uname(),
            "interpreter": [(os.stat(p).st_mode, os.stat(p).st_ctime_ns) for p in MODULES],  # noqa: PTH116
        }

    def names(self, top: Path) -> list[str]:
        """What is below a folder, not further down than an attack may have dug."""
        found = []
        for folder, folders, files in os.walk(top):
            found += [f"{folder}/{name}" for name in (*folders, *files)]
            if folder.count("/") > _DEPTH:
                folders.clear()
        return sorted(found)

    def allowances(self) -> tuple[bool, bool]:
        """Whether the kernel still gives the owner pipes and notifications of files.

        Raises BlockingIOError if the owner must wait for a file of its interpreter.
        """
        for path in MODULES:
            # A lease of another would make this fail, and so would a lock.
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.close(fd)
        ends = os.pipe()
        watcher = _LIBC.inotify_init()
        try:
            return fcntl.fcntl(ends[0], fcntl.F_GETPIPE_SZ) >= 4096, watcher >= 0
        finally:
            for fd in (*ends, watcher):
                if fd >= 0:
                    os.close(fd)

    def _mounts(self) -> list[str]:
        """Mounts that an attack could have changed or made; others are someone else's business."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        own = (str(self.folder), MARK)
        known = ("/", "/proc", "/sys", "/dev", "/dev/shm", "/tmp", "/usr")
        return [m for m in lines if m.split()[4] in known or any(name in m for name in own)]

    def _connections(self) -> int:
        """How many connections and datagrams have arrived since the last look."""
        arrived = 0
        for listener in (self.tcp, self.udp, *self.unix.values()):
            with contextlib.suppress(BlockingIOError):
                while True:
                    if listener.type == socket.SOCK_STREAM:
                        listener.accept()[0].close()
                    else:
                        listener.recv(1)
                    arrived += 1
        return arrived

    def _file(self, path: Path, name: str) -> tuple[object, ...]:
        at, folder = path.stat(), path.parent.stat()
        fd = os.open(path, os.O_RDONLY | os.O_NOATIME)
        with os.fdopen(fd) as file:
            unchanged = file.read() == self.secrets[name]
        who = [(s.st_mode, s.st_uid, s.st_gid, s.st_nlink, s.st_ctime_ns) for s in (at, folder)]
        return (unchanged, at.st_atime, at.st_mtime, who, os.listdir(path.parent))

    def close(self) -> None:
        for listener in (self.tcp, self.udp, *self.unix.values()):
            listener.close()
        for canary in self.canaries:
            canary.kill()
            canary.communicate()
        subprocess.run(["rm", "-rf", self.folder], check=True)


def differences(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """The facts that are not what they were, as complaints."""
    return [
        f"{name}: {before[name]} became {after[name]}"[:600]
        for name in before
        if before[name] != after[name]
    ]


def interpreter_folders() -> set[str]:
    """Where the standard library and the packages are."""
    return {p for p in sys.path if p.endswith(("site-packages", "dist-packages", "lib-dynload"))}


def open_descriptors() -> dict[str, str]:
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[fd] = str(Path(f"/proc/self/fd/{fd}").readlink())
    # The folder that was just listed.
    return {fd: to for fd, to in found.items() if not to.endswith("/fd")}


def marks() -> list[str]:
    """Files and System V objects that an attack has made where it should not."""
    folders = ["/", "/tmp", "/var/tmp", "/dev", "/dev/shm", "/dev/mqueue", str(Path.cwd())]
    folders += [str(Path.home()), sys.prefix, str(Path(os.__file__).parent), *interpreter_folders()]
    found = []
    for folder in folders:
        with contextlib.suppress(OSError):
            found += [
                f"{folder}/{name}"
                for name in os.listdir(folder)
                if name.startswith(f"{MARK}-{os.getpid()}")
            ]
    for kind in ("shm", "sem", "msg"):
        for line in Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]:
            if int(line.split()[0]) & 0xFFFFFFFF & 0xFFFF0000 == KEY:
                found.append(f"{kind} {line.split()[0]}")
    return found


def bury() -> None:
    """Wait for dead children, those of others that have become ours included."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def processes() -> dict[int, tuple[int, str, str]]:
    """Parent, state and name of every process."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                # The name, in brackets, may hold spaces and brackets itself.
                head, _, rest = Path(f"/proc/{entry}/stat").read_text().rpartition(")")
                fields = rest.split()
                found[int(entry)] = (int(fields[1]), fields[0], head.partition("(")[2])
    return found


def state_of(pid: int) -> str:
    """The state of a process, one letter as in /proc; empty where there is none."""
    return processes().get(pid, (0, "", ""))[1]


def descendants() -> dict[int, str]:
    """Every process below this one, dead ones that its parent did not wait for included."""
    everyone = processes()
    ours = {os.getpid()}
    while more := {p for p, (parent, _, _) in everyone.items() if parent in ours} - ours:
        ours |= more
    ours.discard(os.getpid())
    # A dead orphan waits for us only because we have asked to adopt it.
    ours -= {p for p in ours if everyone[p][:2] == (os.getpid(), "Z")}
    return {pid: f"{everyone[pid][2]} {everyone[pid][1]}" for pid in sorted(ours)}


def seconds_used() -> float:
    """CPU time that this process and all below it have taken so far."""
    ticks = 0
    for pid in (os.getpid(), *descendants()):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_used() -> int:
    """Bytes that this process and all below it take, shared pages counted once."""
    total = 0
    for pid in (os.getpid(), *descendants()):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += 1024 * int(line.split()[1])
    return total


def peak_memory() -> int:
    """The most bytes this process ever had."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
