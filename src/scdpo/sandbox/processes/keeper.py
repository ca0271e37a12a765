"""Processes that hold a session's namespaces and outlive the session's own processes.

The keeper is process 1 of a session's PID namespace: killing it kills everything in that namespace
and in those of the session's clones, which are nested in it. It only waits, and shares the memory
of the supervisor or steward that started it, so that it starts quickly. Every signal is blocked, so
that no process of the session can end the keeper or run a signal handler in it.

The steward is a process beside the session that does what must be done inside its namespaces. It is
started in advance, and enters the namespaces when the session is first cloned.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from dataclasses import dataclass

from scdpo.sandbox.processes import files
from scdpo.sandbox.processes.process_table import pid_of
from scdpo.sandbox.walls import isolation, syscalls, view

ENTER = b"e"
"""To a steward in waiting: enter the namespaces of the keeper whose pidfd is attached."""
READY = b"r"
"""From a steward that has entered, with its own pidfd."""
NEST = b"n"
"""To a steward: start a nested keeper. Answered with its pidfd when it can be entered."""
LOWER = b"l"
"""To a steward: the clones have entered those namespaces, or will not come."""
FREEZE = b"f"
"""To a steward: stop every process in the namespace and below. Answered with the same message."""
THAW = b"t"
"""To a steward: let the stopped processes continue."""
CLEAR = b"c"
"""To a steward: delete the files of the session, which has ended."""
FAILED = b"!"
"""From a steward: the request failed; the reason follows."""

_MAX_MESSAGE = 512


@dataclass(frozen=True)
class KeeperSettings:
    """The settings that all keepers of a sandbox share.

    `namespaces`: the namespaces to create (`syscalls.NEW_…`). `user`: the user id of sessions,
    inside and one level up. `scratch`: their /tmp. `proc`: a descriptor of the /proc that shows the
    whole sandbox. `high`: the first process id that no session may signal, see `seccomp.install`.
    """

    namespaces: int
    user: int
    scratch: view.Scratch
    proc: int
    high: int


def start(settings: KeeperSettings) -> tuple[int, syscalls.Stack]:
    """Start a keeper in namespaces of its own; returns its process id and its stack.

    It has no user map yet, see `map_user`. The stack must be kept as long as the keeper lives.
    Raises OSError.
    """
    return syscalls.start_waiting(settings.namespaces)


def map_user(pid: int, settings: KeeperSettings) -> None:
    """Map the user id of sessions in the user namespace of a process. Raises OSError.

    `pid`: the process id in the sandbox's /proc.
    """
    same = f"{settings.user} {settings.user} 1"
    for name, text in (("setgroups", "deny"), ("uid_map", same), ("gid_map", same)):
        _write(f"{pid}/{name}", text, settings.proc)


def start_steward(channel: socket.socket, settings: KeeperSettings) -> None:
    """Start a process that serves `channel` and becomes a steward at `ENTER`. Raises OSError."""
    if syscalls.fork_into(0) == 0:
        try:
            isolation.close_all_but(channel.fileno(), settings.proc)
            syscalls.perform([syscalls.DIE_WITH_PARENT])
            steward = _Steward(channel, settings)
            message, fds, _, _ = socket.recv_fds(channel, _MAX_MESSAGE, 1)
            if message == ENTER:
                syscalls.enter(fds[0], syscalls.NEW_USER | syscalls.NEW_PIDS)
                # With an id that the session cannot signal.
                if syscalls.fork_as(settings.high) == 0:
                    os.close(fds[0])
                    steward.serve()
        finally:
            os._exit(0)


class _Steward:
    def __init__(self, channel: socket.socket, settings: KeeperSettings) -> None:
        self._channel = channel
        self._settings = settings
        self._numbers = _ProcessNumbers(settings)
        self._stacks: dict[int, syscalls.Stack] = {}

    def serve(self) -> None:
        """Carry out the supervisor's requests until it closes the channel."""
        own = os.pidfd_open(os.getpid())
        socket.send_fds(self._channel, [READY], [own])
        os.close(own)
        syscalls.perform([syscalls.STAY_READABLE])
        # A copy of the supervisor's mount namespace, to which this process can return from others.
        syscalls.leave_mounts()
        self._mounts = os.open("self/ns/mnt", os.O_RDONLY, dir_fd=self._settings.proc)
        while True:
            message, _, _, _ = socket.recv_fds(self._channel, _MAX_MESSAGE, 1)
            match message:
                case b"":
                    return
                case b"n":
                    self._numbers.rise()
                    try:
                        self._nest()
                    except OSError as error:
                        reason = str(error.strerror or error).encode()
                        self._channel.send(FAILED + reason[: _MAX_MESSAGE - 1])
                case b"l":
                    self._numbers.fall()
                case b"f":
                    _signal_all(signal.SIGSTOP)
                    self._channel.send(FREEZE)
                case b"t":
                    _signal_all(signal.SIGCONT)
                case b"c":
                    _clear(self._settings)

    def _nest(self) -> None:
        """Start a nested keeper; a clone no longer has the rights to prepare its namespaces."""
        settings = self._settings
        self._forget_stacks()
        pid, stack = syscalls.start_waiting(settings.namespaces)
        self._stacks[pid] = stack
        pidfd = -1
        try:
            pidfd = os.pidfd_open(pid)
            map_user(pid_of(pidfd, settings.proc) or 0, settings)
            syscalls.enter(pidfd, syscalls.NEW_MOUNTS)
            try:
                settings.scratch.mount()
            finally:
                syscalls.enter(self._mounts, syscalls.NEW_MOUNTS)
            socket.send_fds(self._channel, [NEST], [pidfd])
        except OSError:
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            if pidfd >= 0:
                os.close(pidfd)

    def _forget_stacks(self) -> None:
        """Free the stacks of keepers that have ended."""
        for pid in list(self._stacks):
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                del self._stacks[pid]


def _signal_all(number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, number)


class _ProcessNumbers:
    """Gives the first processes of clones ids that the session's filter does not let it signal.

    A process sees the processes in PID namespaces below its own, and could kill them. If the kernel
    does not allow the next id to be chosen, ids are assigned as usual.
    """

    def __init__(self, settings: KeeperSettings) -> None:
        self._proc = settings.proc
        self._low = 0
        self._high = settings.high

    def rise(self) -> None:
        if self._low:
            return
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


def _clear(settings: KeeperSettings) -> None:
    with contextlib.suppress(OSError):
        syscalls.enter(os.pidfd_open(1), settings.namespaces & syscalls.NEW_MOUNTS)
        files.remove("/tmp")
