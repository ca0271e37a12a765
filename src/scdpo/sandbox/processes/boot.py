"""Starts a sandbox inside a fresh interpreter: isolates the process, then runs the supervisor."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from scdpo.sandbox.processes import files, keeper, warm, wire
from scdpo.sandbox.processes.folders import Folders
from scdpo.sandbox.processes.process_table import ProcessTable
from scdpo.sandbox.processes.spaces import Spaces
from scdpo.sandbox.processes.supervisor import Loop, SessionManager, Supervisor, Warm
from scdpo.sandbox.walls import isolation, landlock, seccomp, syscalls, view

INNER_ID = 1000
"""User and group of sessions, as they see themselves."""
NOBODY = 65534
"""User and group of root's sessions as the host sees them, at level `namespace`."""
_SPACES = (
    *(syscalls.NEW_USER, syscalls.NEW_MOUNTS, syscalls.NEW_PIDS),
    *(syscalls.NEW_IPC, syscalls.NEW_UTS, syscalls.NEW_NETWORK),
)
_NAMES = ("user", "mount", "pid", "ipc", "uts", "net")


class Refused(Exception):
    """The requested isolation is not available on this machine."""


def main(fd: int, settings: dict[str, Any]) -> None:
    """Serve the owner on descriptor `fd`; the settings come from `host.launch`."""
    control = socket.socket(fileno=fd)
    try:
        _require_descriptors()
        isolation.give_up_priorities()
        if settings["level"] == "namespace":
            _run_in_namespaces(control, settings)
        else:
            _run_plainly(control, settings)
    except (Refused, OSError) as error:
        _report(control, error)
    os._exit(2)


def _report(control: socket.socket, error: Refused | OSError) -> None:
    """Tell the owner, if there still is one, why there is no sandbox."""
    reason = wire.reason_of(error) if isinstance(error, OSError) else str(error)
    with contextlib.suppress(OSError):
        control.send(json.dumps({"id": 0, "error": reason}).encode()[: wire.MAX_PACKET])


def _require_descriptors() -> None:
    """Raise the limit on open files to what sessions need. Raises Refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = isolation.MAX_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise Refused(f"the limit on open files (ulimit -n) is {hard}, and sessions need {needed}")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _run_in_namespaces(control: socket.socket, settings: dict[str, Any]) -> None:
    """Fork the supervisor into namespaces, write its user map, and wait for its end."""
    owner = _watch(settings["owner"])
    flags = sum(_SPACES[:-1] if settings["network"] else _SPACES)
    paths = _readable(settings)
    mapped, wait = os.pipe()
    inside = syscalls.fork_into(flags)
    if inside == 0:
        os.close(wait)
        if os.read(mapped, 1) == b"":
            os._exit(2)
        _supervise_namespaces(control, owner, flags, paths, settings)
    os.close(mapped)
    outer = _map_user(inside)
    if outer is None:
        os.kill(inside, signal.SIGKILL)
        raise Refused(
            "sessions cannot be given a user other than root here (setuid is not permitted)"
        )
    closed = view.closed_to_others(paths) if outer != os.getuid() else None
    if closed is not None:
        os.kill(inside, signal.SIGKILL)
        raise Refused(
            f"{closed} is not readable by others, and sessions of root run as another user; "
            "chmod -R o+rX it"
        )
    os.write(wait, b"m")
    control.close()
    _, status = os.waitpid(inside, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _map_user(pid: int) -> int | None:
    """Map the inner user of a process's new user namespace; returns its id outside.

    Root maps a user without rights. Other users, and root of a mere user namespace, can only map
    themselves. Returns None if that would map the root of the machine.
    """
    outer = os.getuid()
    if outer == 0:
        with contextlib.suppress(OSError):
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{pid}/{name}").write_text(f"{INNER_ID} {NOBODY} 1")
            return NOBODY
        if any(here == 0 and up == 0 for here, up, _ in _own_map()):
            return None
    Path(f"/proc/{pid}/setgroups").write_text("deny")
    Path(f"/proc/{pid}/uid_map").write_text(f"{INNER_ID} {outer} 1")
    Path(f"/proc/{pid}/gid_map").write_text(f"{INNER_ID} {os.getgid()} 1")
    return outer


def _supervise_namespaces(
    control: socket.socket, owner: int, flags: int, paths: list[str], settings: dict[str, Any]
) -> None:
    """Act as process 1 of the sandbox. Does not return."""
    try:
        table = ProcessTable()
        shown = view.View(paths)
        with contextlib.suppress(PermissionError):
            # A user who could only map their own id keeps their groups.
            os.setgroups([])
        os.setresgid(INNER_ID, INNER_ID, INNER_ID)
        os.setresuid(INNER_ID, INNER_ID, INNER_ID)
        syscalls.perform([syscalls.STAY_READABLE, syscalls.DIE_WITH_PARENT])
        syscalls.set_host_name(b"sandbox")
        shown.enter(INNER_ID)
        rules = isolation.Rules(
            namespaces=flags,
            network=settings["network"],
            paths=tuple(paths),
            landlock=False,
            read_everything=False,
            own_user=False,
            memory=settings["memory"],
            file_size=settings["tmp"],
            processes=settings["processes"] + 1,
        )
        loop = Loop()
        forks = _start_warm(settings, rules, table.fd, loop, owner)
        kept = keeper.KeeperSettings(
            *(flags, INNER_ID, view.Scratch(settings["tmp"], paths), table.fd),
            seccomp.OUT_OF_REACH,
        )
        manager = Spaces(loop, forks, table, kept, settings["memory"])
        names = [n for n, flag in zip(_NAMES, _SPACES, strict=True) if flags & flag]
        parts = {"parts": [*names, "uid", "seccomp"]}
        _serve(control, owner, Supervisor(control, loop, settings["notes"]), manager, parts)
    except (Refused, OSError) as error:
        _report(control, error)
    finally:
        os._exit(2)


def _run_plainly(control: socket.socket, settings: dict[str, Any]) -> None:
    """Act as the supervisor of sessions without namespaces. Never returns; may raise Refused."""
    owner = _watch(settings["owner"])
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(2))
    # Not made by the owner, which may be killed at any time.
    base = Path(tempfile.mkdtemp(prefix="scdpo-sandbox-", dir=settings["folder"]))
    try:
        _supervise_folders(control, owner, base, settings)
    finally:
        files.remove(str(base))


def _supervise_folders(
    control: socket.socket, owner: int, base: Path, settings: dict[str, Any]
) -> None:
    syscalls.adopt_orphans()
    table = ProcessTable()
    users = _free_users() if os.getuid() == 0 else range(0)
    paths = _readable(settings)
    parts = ["uid"] if users else []
    files = landlock.abi() > 0
    parts += ["landlock"] if files else []
    if not users and landlock.abi() < _SCOPES:
        raise Refused(
            "sessions run as their owner here, and only landlock with scopes (Linux 6.12) keeps "
            "them away from the owner's files and processes"
        )
    closed = view.closed_to_others(paths) or view.out_of_reach_of_others([*paths, str(base)])
    closed = closed if users else None
    if closed is not None and not files:
        raise Refused(
            f"{closed} is closed to others, sessions of root run as another user, and without "
            "landlock they cannot be given access to the parts that they need"
        )
    rules = isolation.Rules(
        namespaces=0,
        network=settings["network"],
        paths=tuple(paths),
        landlock=files,
        read_everything=closed is not None,
        own_user=not users,
        memory=settings["memory"],
        file_size=settings["tmp"],
        processes=settings["processes"] + (0 if users else _own_processes()),
    )
    loop = Loop()
    forks = _start_warm(settings, rules, table.fd, loop, owner)
    base.chmod(0o711)
    manager = Folders(forks, table, base, users, settings["memory"], settings["tmp"])
    reply = {"parts": [*parts, "seccomp"], "folder": str(base)}
    _serve(control, owner, Supervisor(control, loop, settings["notes"]), manager, reply)


def _watch(pid: int) -> int:
    """A pidfd of the owner, which started this process."""
    owner = os.pidfd_open(pid)
    if os.getppid() != pid:
        os._exit(0)
    return owner


def _readable(settings: dict[str, Any]) -> list[str]:
    package = settings["package"]
    own = "" if package.startswith(sys.prefix + "/") else package
    paths = view.readable_paths(own, network=settings["network"])
    wide = next((p for p in paths if view.too_much(p)), None)
    if wide is not None:
        raise Refused(f"{wide} is on Python's path, and sessions would see everything below it")
    return paths


def _start_warm(
    settings: dict[str, Any], rules: isolation.Rules, proc: int, loop: Loop, owner: int
) -> Warm:
    """Start the warm parent and wait until it has imported everything.

    Raises Refused, also if the owner ends meanwhile.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # The kernel reaps children as they end; nothing here asks for their exit status.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with theirs:
        warm.start(theirs, warm.WarmSettings(tuple(settings["preload"]), rules, proc))
    poll = select.poll()
    poll.register(ours, select.POLLIN)
    poll.register(owner, select.POLLIN)
    if owner in [fd for fd, _ in poll.poll()]:
        raise Refused("the owner has ended")
    packet = ours.recv(wire.MAX_PACKET)
    reply = json.loads(packet) if packet else {"error": "it ended while importing"}
    if "error" in reply:
        raise Refused(str(reply["error"]))
    return Warm(ours, loop)


def _serve(
    control: socket.socket,
    owner: int,
    supervisor: Supervisor,
    manager: SessionManager,
    reply: dict[str, Any],
) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.environ.clear()
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    control.send(json.dumps({"id": 0, **reply}).encode())
    supervisor.serve(manager, owner)


def _own_processes() -> int:
    """Threads that this user is running now, which count towards the limit of the sessions."""
    count = 0
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if entry.stat().st_uid == os.getuid():
                count += len(list((entry / "task").iterdir()))
    return count


def _free_users() -> range:
    """User ids that are not in use: far above those of people, if this user namespace has them.

    Empty if it has too few, as in the user namespace of an unprivileged user.
    """
    for first, _, count in _own_map():
        for wanted in (_HIGH_USERS, _LOW_USERS):
            if first <= wanted.start and first + count >= wanted.stop:
                return wanted
    return range(0)


def _own_map() -> list[tuple[int, int, int]]:
    """The id ranges of this user namespace: first id here, first id one level up, length."""
    lines = Path("/proc/self/uid_map").read_text().splitlines()
    return [(int(here), int(up), int(n)) for here, up, n in map(str.split, lines)]


_SCOPES = 6
"""The Landlock version that covers truncating files and sending signals."""
_HIGH_USERS = range(2_000_000_000, 3_000_000_000)
_LOW_USERS = range(61_184, 65_280)
