"""Processes that hold a session's namespaces and outlive the session's own processes.

The keeper is process 1 of the PID namespace: killing it kills all that runs there, and clones of
the session live in namespaces below. It does nothing but wait, on the supervisor's memory, so
that it costs little to start; every signal is blocked, so that no process of the session can end
it or have the supervisor's handlers run.

The steward is a process beside the session that does there what must be done from inside. It is
started when the session is first cloned.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from dataclasses import dataclass

from scdpo.sandbox import files, isolation, kernel, view

READY = b"r"
"""From a steward, with a pidfd of it; and from a nested keeper: its namespaces can be entered."""
NEST = b"n"
"""To a steward: start a keeper below, which says on the channel that comes along when it is ready.
Answered with a pidfd of it."""
LOWER = b"l"
"""To a steward: the copy that enters those namespaces is there."""
FREEZE = b"f"
"""To a steward: stop every process of the namespace and those below. Answered with the same."""
THAW = b"t"
"""To a steward: let them go on."""
CLEAR = b"c"
"""To a steward: delete the files of the session, which has ended."""
FAILED = b"!"
"""From a steward or a nested keeper: what was asked for failed; the reason follows."""

_MAX_MESSAGE = 512


@dataclass(frozen=True)
class Settings:
    """What all keepers of a sandbox have in common.

    `namespaces`: those to make (`kernel.NEW_…`). `user`: the id sessions have, inside and one
    level up. `scratch`: their /tmp. `proc`: a descriptor of the /proc that shows the whole sandbox.
    `high`: process ids that no session may signal begin here, see `seccomp.install`.
    """

    namespaces: int
    user: int
    scratch: view.Scratch
    proc: int
    high: int


def start(settings: Settings) -> tuple[int, kernel.Stack]:
    """Start a keeper in namespaces of its own; returns its process id.

    It has no user map yet, see `map_user`. The stack must live as long as it. Raises OSError.
    """
    return kernel.start_waiting(settings.namespaces)


def map_user(pid: int | str, settings: Settings) -> None:
    """Give the user namespace of a process the id that sessions have. Raises OSError.

    `pid`: as the sandbox's /proc counts, or `self`.
    """
    one = f"{settings.user} {settings.user} 1"
    for name, text in (("setgroups", "deny"), ("uid_map", one), ("gid_map", one)):
        _write(f"{pid}/{name}", text, settings.proc)


def start_steward(channel: socket.socket, pidfd: int, settings: Settings) -> None:
    """Start a steward that serves `channel` beside the keeper behind `pidfd`. Raises OSError."""
    if kernel.fork_into(0) == 0:
        try:
            kernel.enter(pidfd, kernel.NEW_USER | kernel.NEW_PIDS)
            if kernel.fork_into(0) == 0:
                isolation.close_all_but(channel.fileno(), settings.proc)
                kernel.perform([kernel.STAY_READABLE])
                # Out of the session's reach too.
                numbers = _ProcessNumbers(settings)
                numbers.rise()
                if kernel.fork_into(0) == 0:
                    _serve(channel, settings)
                numbers.fall()
        finally:
            os._exit(0)


def _serve(channel: socket.socket, settings: Settings) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    own = os.pidfd_open(os.getpid())
    socket.send_fds(channel, [READY], [own])
    os.close(own)
    numbers = _ProcessNumbers(settings)
    while True:
        message, fds, _, _ = socket.recv_fds(channel, _MAX_MESSAGE, 1)
        match message:
            case b"":
                return
            case b"n":
                numbers.rise()
                _nest(channel, fds, settings)
            case b"l":
                numbers.fall()
            case b"f":
                _signal_all(signal.SIGSTOP)
                channel.send(FREEZE)
            case b"t":
                _signal_all(signal.SIGCONT)
            case b"c":
                _clear(settings)


def _signal_all(number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, number)


class _ProcessNumbers:
    """Has clones' processes born with ids that the session's filter does not let it signal.

    A process sees those in PID namespaces below its own, and could kill them. Where the kernel
    does not let the next id be chosen, ids stay as they come.
    """

    def __init__(self, settings: Settings) -> None:
        self._proc = settings.proc
        self._low = 0
        self._high = settings.high

    def rise(self) -> None:
        with contextlib.suppress(OSError):
            self._low = self._last()
            self._set(self._high)

    def fall(self) -> None:
        with contextlib.suppress(OSError):
            if self._low:
                self._high = max(self._last(), self._high)
                self._set(self._low)
                self._low = 0

    def _last(self) -> int:
        fd = os.open(_LAST_PID, os.O_RDONLY, dir_fd=self._proc)
        try:
            return int(os.read(fd, 32))
        finally:
            os.close(fd)

    def _set(self, number: int) -> None:
        _write(_LAST_PID, str(number), self._proc)


_LAST_PID = "sys/kernel/ns_last_pid"


def _write(path: str, text: str, folder: int) -> None:
    fd = os.open(path, os.O_WRONLY, dir_fd=folder)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _nest(channel: socket.socket, fds: list[int], settings: Settings) -> None:
    try:
        with socket.socket(fileno=fds[0]) as theirs:
            pid = kernel.fork_into(settings.namespaces)
            if pid == 0:
                _become_keeper(theirs, settings)
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        _fail(channel, error)
        return
    socket.send_fds(channel, [NEST], [pidfd])
    os.close(pidfd)


def _become_keeper(channel: socket.socket, settings: Settings) -> None:
    """Be a keeper that has prepared its namespaces itself: a clone cannot any more."""
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        isolation.close_all_but(channel.fileno(), settings.proc)
        map_user("self", settings)
        settings.scratch.mount()
        channel.send(READY)
        channel.close()
        while True:
            signal.pause()
    except OSError as error:
        _fail(channel, error)
    finally:
        os._exit(1)


def _fail(channel: socket.socket, error: OSError) -> None:
    with contextlib.suppress(OSError):
        channel.send(FAILED + str(error.strerror or error).encode()[: _MAX_MESSAGE - 1])


def _clear(settings: Settings) -> None:
    with contextlib.suppress(OSError):
        kernel.enter(os.pidfd_open(1), settings.namespaces & kernel.NEW_MOUNTS)
        files.remove("/tmp")
