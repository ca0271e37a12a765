"""The warm parent of all sessions: imports once, forks, kills, and never runs model-written code.

With namespaces it is process 1 of its own PID namespace, so that its end is the end of every
process started below it. Without them it adopts orphans and kills what its sessions left.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import shutil
import signal
import socket
import stat
import time
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from scdpo.sandbox import isolation, wire, worker

_SWEEP_SECONDS = 2.0


class Refused(Exception):
    """The isolation that was asked for is not to be had here."""


def main(fd: int, settings: dict[str, Any]) -> None:
    """Serve the owner on descriptor `fd`; the settings come from `client.ProcessSandbox`."""
    control = socket.socket(fileno=fd)
    owner = _watch_owner(settings["owner"])
    try:
        isolated = _isolate(control, network=settings["network"], wanted=settings["namespaces"])
        _preload(settings["preload"])
    except (Refused, ImportError, OSError) as error:
        control.send(json.dumps({"id": 0, "error": str(error)}).encode())
        os._exit(2)
    os.environ.clear()
    zygote = Zygote(control, settings, "user" in isolated)
    control.send(json.dumps({"id": 0, "isolation": "+".join(isolated)}).encode())
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    zygote.serve(owner)


def _watch_owner(pid: int) -> int | None:
    """A descriptor that turns readable when the owner dies.

    The control socket tells so too, unless a process that the owner forked still holds it.
    """
    try:
        owner = os.pidfd_open(pid)
    except OSError:
        return None
    if os.getppid() != pid:
        os._exit(0)
    return owner


def _isolate(control: socket.socket, *, network: bool, wanted: bool) -> list[str]:
    """Cut this process off; returns the names of what was obtained. Raises Refused."""
    obtained: list[str] = []
    reasons: list[str] = []
    if wanted:
        try:
            obtained += isolation.enter_namespaces(network=network)
        except OSError as error:
            reasons.append(f"namespaces: {error.strerror}")
    else:
        reasons.append("namespaces: switched off")
    if obtained:
        _become_first_process(control)
    else:
        isolation.adopt_orphans()
    isolation.drop_privileges()
    try:
        isolation.filter_syscalls(network=network)
        obtained.append("seccomp")
    except OSError as error:
        reasons.append(f"seccomp: {error.strerror}")
    if not network and not {"net", "seccomp"} & set(obtained):
        raise Refused(
            f"the network cannot be withheld from model-written code here ({'; '.join(reasons)}); "
            'network: "allow" runs it all the same'
        )
    return obtained or ["none"]


def _become_first_process(control: socket.socket) -> None:
    """Fork into the new PID namespace; the process outside only waits for the one inside."""
    inside = os.fork()
    if inside:
        control.close()
        _, status = os.waitpid(inside, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    isolation.die_with_parent()


def _preload(names: list[str]) -> None:
    for name in names:
        import_module(name)
    gc.collect()
    # Keeps the collector from touching, and so copying, the pages that sessions share.
    gc.freeze()


class Zygote:
    """Sessions by the owner's number for them."""

    def __init__(self, control: socket.socket, settings: dict[str, Any], namespaced: bool) -> None:
        self.control = control
        self.base = Path(settings["folder"])
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        self.limits = {
            "memory": pages * os.sysconf("SC_PAGESIZE") + settings["memory"],
            "file_size": settings["file_size"],
            # Only a user namespace counts the sandbox's processes apart from the user's others.
            "processes": settings["processes"] if namespaced else None,
        }
        self.pids: dict[int, int] = {}
        self.clones_awaited: set[int] = set()
        self.sweep_due = False
        # As /proc counts, which may be mounted from outside our PID namespace.
        self.own_outer_pid = str(Path("/proc/self").readlink())
        self.outer_pids: dict[str, int] = {}

    def serve(self, owner: int | None) -> None:
        """Answer requests until the owner is gone, then end everything. Does not return."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        if owner is not None:
            poll.register(owner, select.POLLIN)
        with contextlib.suppress(OSError):
            while True:
                ready = {fd for fd, _ in poll.poll()}
                if owner in ready:
                    break
                packet, fds, _, _ = socket.recv_fds(self.control, wire.MAX_PACKET, 2)
                if not packet:
                    break
                request = json.loads(packet)
                reply = {"id": request["id"], **self._answer(request, fds)}
                self.control.send(json.dumps(reply).encode())
        self._end_all()
        os._exit(0)

    def _answer(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        number = request["session"]
        try:
            match request["do"]:
                case "start":
                    self._start(number, fds)
                case "expect":
                    self.clones_awaited.add(number)
                    self._folder(number).mkdir()
                case "adopt":
                    self._adopt(number, request["pid"])
                case "end":
                    self._end(number)
        except OSError as error:
            return {"error": f"{request['do']}: {error.strerror or error}"}
        finally:
            for fd in fds:
                os.close(fd)
        return {}

    def _folder(self, number: int) -> Path:
        return self.base / str(number)

    def _start(self, number: int, fds: list[int]) -> None:
        folder = self._folder(number)
        folder.mkdir()
        pid = os.fork()
        if pid == 0:
            self._become_session(folder, fds)
        self._register(number, pid)

    def _become_session(self, folder: Path, fds: list[int]) -> None:
        try:
            isolation.die_with_parent()
            self.control.close()
            sock = socket.socket(fileno=fds[0])
            isolation.limit_resources(**self.limits)
            worker.serve(sock, fds[1], str(folder))
        finally:
            os._exit(1)

    def _adopt(self, number: int, pid: int) -> None:
        if pid in self.pids.values():
            raise OSError(f"process {pid} is another session")
        self._register(number, pid)
        self.clones_awaited.discard(number)
        self._sweep_if_due()

    def _register(self, number: int, pid: int) -> None:
        """Note a child as a session; its name in /proc is read there, not taken on trust."""
        for outer in self._strangers():
            if _inner_pid(outer) == pid:
                self.pids[number] = pid
                self.outer_pids[outer] = number
                return
        raise OSError(f"process {pid} is not a child of the sandbox")

    def _strangers(self) -> list[str]:
        """Children that are no session: orphans of sessions, and dead ones not yet waited for."""
        return [pid for pid in _children(self.own_outer_pid) if pid not in self.outer_pids]

    def _end(self, number: int) -> None:
        self.clones_awaited.discard(number)
        pid = self.pids.pop(number, None)
        if pid is not None:
            for kill in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError):
                    kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
            self.outer_pids = {o: n for o, n in self.outer_pids.items() if n != number}
        self.sweep_due = True
        self._sweep_if_due()
        _remove(self._folder(number))

    def _sweep_if_due(self) -> None:
        """Sweep, unless a clone may be among the orphans that is not yet known as a session."""
        if self.sweep_due and not self.clones_awaited:
            self._sweep()
            self.sweep_due = False

    def _sweep(self) -> None:
        """Kill adopted orphans until there are none; killing one may set free its own children."""
        until = time.monotonic() + _SWEEP_SECONDS
        while strangers := self._strangers():
            if time.monotonic() > until:
                raise OSError(f"{len(strangers)} processes of a session could not be killed")
            for outer in strangers:
                pid = _inner_pid(outer)
                if pid is None:
                    continue
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)

    def _end_all(self) -> None:
        self.clones_awaited.clear()
        for number in list(self.pids):
            with contextlib.suppress(OSError):
                self._end(number)
        _remove(self.base)


def _children(pid: str) -> list[str]:
    """Process ids of the children, dead ones included, as /proc counts."""
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return _children_by_scan(pid)


def _children_by_scan(pid: str) -> list[str]:
    """The same on a kernel that keeps no list of children."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # The command name, in brackets, may hold spaces and brackets itself.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if fields[1] == pid:
                found.append(entry.name)
    return found


def _inner_pid(outer: str) -> int | None:
    """A process id in our own PID namespace, given the one in /proc."""
    try:
        status = Path(f"/proc/{outer}/status").read_text()
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return int(outer)


def _remove(folder: Path) -> None:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError:
        shutil.rmtree(folder, onerror=_open_up_and_retry)


def _open_up_and_retry(
    remove: Any, path: str, error: tuple[type[BaseException], BaseException, TracebackType]
) -> None:
    """A session may have taken its own rights to a folder away."""
    with contextlib.suppress(OSError):
        at = Path(path)
        at.parent.chmod(stat.S_IRWXU)
        if at.is_symlink() or not at.is_dir():
            at.unlink()
        else:
            at.chmod(stat.S_IRWXU)
            shutil.rmtree(at, ignore_errors=True)
