"""A session: a forked process that runs blocks one after another."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import sys
import tempfile
import time
import warnings

from scdpo.sandbox.notebook.cell import Notebook
from scdpo.sandbox.processes import files, wire
from scdpo.sandbox.walls import isolation, syscalls, view

# Near the highest descriptor that a session may have, out of the way of those that code opens.
KEEPER_FD = isolation.MAX_FILES - 3
SOCKET_FD = isolation.MAX_FILES - 2
OUTPUT_FD = isolation.MAX_FILES - 1


class Runner:
    """Answers the owner of a session; after a clone, in the copy too.

    The warm parent creates it for all sessions that are forked from it. Little runs after the fork,
    because every object that it touches costs the session a copy of the page around it.
    """

    def __init__(self, rules: isolation.Rules, bare: int, notebook: Notebook) -> None:
        """`bare`: see `isolation.Confinement`."""
        self._rules = rules
        self._notebook = notebook
        self._confinement = isolation.Confinement(rules, bare)
        self._privileges = syscalls.dropping_privileges(read_everything=rules.read_everything)
        self._scratch = view.Scratch(rules.file_size, rules.paths)
        self._entering = [syscalls.entering(KEEPER_FD, rules.namespaces & ~syscalls.NEW_PIDS)]
        self._staying = [syscalls.STAY_READABLE, syscalls.DIE_WITH_PARENT]
        self._sock = _socket_to_come(SOCKET_FD)
        self._folder = ""
        self._last_fd = os.sysconf("SC_OPEN_MAX")
        self._in_group_of_original = False
        notebook.aim(OUTPUT_FD)
        # A process that code starts must not hold the socket open when this process is gone.
        os.register_at_fork(after_in_child=self._let_go)

    def begin(self, folder: str, user: int | None) -> None:
        """Isolate this process, which then can only `serve`.

        The session's socket, its output pipe and, if it has a keeper, a pidfd of the keeper are at
        `SOCKET_FD`, `OUTPUT_FD` and `KEEPER_FD`. `folder`: where the session lives. `user`: the
        user id that it takes. Raises OSError.
        """
        if self._rules.namespaces:
            syscalls.perform(self._entering)
            self._scratch.mount()
        # The user that the session becomes may have no access to the folders above.
        os.chdir(folder)
        if user is not None:
            isolation.become(user)
        syscalls.perform(self._staying)
        os.setsid()
        # Not that of the warm parent, whose flags all sessions could set and read.
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.closerange(3, SOCKET_FD)
        os.closerange(OUTPUT_FD + 1, self._last_fd)
        # A clone's folder is beside this one, and a right to it cannot be added later.
        self._confinement.apply(os.path.dirname(folder))  # noqa: PTH120
        syscalls.await_children()
        self._folder = tempfile.tempdir = folder
        sys.path.insert(0, "")

    def serve(self) -> None:
        """Run blocks until the owner closes the socket. Does not return."""
        while True:
            kind, token, payload, fds = wire.receive_request(self._sock)
            if kind == wire.CLONE:
                self._clone(fds, token)
            elif kind == wire.RUN:
                self._leave_group()
                fits = self._notebook.run(payload.decode("utf-8", "surrogatepass"))
                self._sock.sendall((wire.DONE if fits else wire.MEMORY) + token)
            else:
                os._exit(0)

    def _leave_group(self) -> None:
        """Leave the process group of the original, so that signals to it do not reach this copy.

        Not before the first block: until the intermediate process has ended, the kernel takes a
        stopped copy with a group of its own for an orphaned job, and sends it SIGHUP.
        """
        if self._in_group_of_original:
            self._in_group_of_original = False
            with contextlib.suppress(OSError):
                os.setpgid(0, 0)

    def _let_go(self) -> None:
        with contextlib.suppress(OSError):
            os.close(SOCKET_FD)

    def _clone(self, fds: list[int], token: bytes) -> None:
        """Fork a copy that serves the socket and the pipe in `fds`; returns in both processes.

        The copy is a grandchild. The intermediate process enters the PID namespace that the copy is
        born in, and its end makes the copy an orphan that can outlive this session.
        """
        self._notebook.flush()
        try:
            middle = _fork()
        except OSError:
            middle = -1
        if middle != 0:
            for fd in fds:
                os.close(fd)
            if middle > 0:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(middle, 0)
            return
        try:
            middle = os.getpid()
            with contextlib.suppress(OSError):
                self._sock.close()
            self._sock = socket.socket(fileno=fds[0])
            kind, _, path, keeper = wire.receive_request(self._sock)
            if kind != wire.PLACE or bool(keeper) != bool(self._rules.namespaces):
                # The supervisor has no place for the copy.
                os._exit(1)
            old = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            inside = _below(self._folder)
            if keeper:
                syscalls.enter(keeper[0], self._rules.namespaces)
            if _fork() != 0:
                # Let the copy run first: freeing this process's memory takes a while.
                os.sched_yield()
                os._exit(0)
            if not keeper:
                _wait_for_end_of(middle)
                syscalls.perform([syscalls.DIE_WITH_PARENT])
            self._become_copy([fds[1], *keeper], path.decode(), old, inside)
        except BaseException:
            os._exit(1)
        self._sock.sendall(wire.CLONED + token)

    def _become_copy(self, fds: list[int], folder: str, old: int, inside: str) -> None:
        null = os.open(os.devnull, os.O_RDONLY)
        taken = self._sock.detach()
        for source, target in ((null, 0), (fds[0], OUTPUT_FD), (taken, SOCKET_FD)):
            os.dup2(source, target, inheritable=target == 0)
        for fd in (null, *fds, taken):
            os.close(fd)
        self._sock = socket.socket(fileno=SOCKET_FD)
        files.copy(old, folder)
        os.close(old)
        syscalls.perform([*self._privileges, syscalls.STAY_READABLE])
        self._in_group_of_original = True
        self._folder = tempfile.tempdir = folder
        os.chdir(folder + inside)
        self._notebook.redirect(OUTPUT_FD)


def _socket_to_come(fd: int) -> socket.socket:
    """A socket object for a socket that will be at descriptor `fd` later."""
    for end in socket.socketpair():
        with end:
            os.dup2(end.fileno(), fd)
    found = socket.socket(fileno=fd)
    os.close(fd)
    return found


def _below(folder: str) -> str:
    """The path from a folder to the current one, if that is below it; otherwise empty."""
    with contextlib.suppress(OSError):
        here = os.getcwd()  # noqa: PTH109 - a Path would create many objects
        if here.startswith(folder + "/"):
            return here[len(folder) :]
    return ""


def _wait_for_end_of(parent: int) -> None:
    """Return when the parent has ended and this process has a new one."""
    while os.getppid() == parent:
        time.sleep(0.0001)


def _fork() -> int:
    """Fork without running fork handlers, as these may be those of the code."""
    if len(sys._current_frames()) == 1:
        return syscalls.plain_fork()
    # If the code has started threads, Python must know that the child does not have them.
    random_state = random.getstate()
    with warnings.catch_warnings():
        # Python warns about forking with threads, which is intended here.
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        # The module reseeds itself in a forked child.
        random.setstate(random_state)
    return pid
