"""A session: the forked process that runs the blocks of one solution."""

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

# Near the top of the descriptors a session may have, out of the way of what code opens.
KEEPER_FD = isolation.MAX_FILES - 3
SOCKET_FD = isolation.MAX_FILES - 2
OUTPUT_FD = isolation.MAX_FILES - 1
_LAST_FD = os.sysconf("SC_OPEN_MAX")


class Runner:
    """Answers the owner of a session; after `clone`, in the copy too.

    Made by the warm parent, for all sessions that are forked from it. What runs after the fork is
    short for a reason: each object that it touches costs the session a copy of the page around it.
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
        self._in_group_of_original = False
        notebook.aim(OUTPUT_FD)
        # What code starts must not keep the owner waiting when this process is gone.
        os.register_at_fork(after_in_child=self._let_go)

    def begin(self, folder: str, user: int | None) -> None:
        """Move this process into a place for good, and run blocks until the owner closes the
        socket.

        The session's socket, where its output goes, and a pidfd of its keeper if it has one are
        at the descriptors named above. `folder` is where it lives, `user` whom it becomes.
        Does not return. Raises OSError where isolation fails.
        """
        if self._rules.namespaces:
            syscalls.perform(self._entering)
            self._scratch.mount()
        # A folder above may be closed to the user that the session becomes.
        os.chdir(folder)
        if user is not None:
            isolation.become(user)
        syscalls.perform(self._staying)
        os.setsid()
        os.closerange(3, SOCKET_FD)
        os.closerange(OUTPUT_FD + 1, _LAST_FD)
        # A clone has its folder beside this one, and cannot be given the right to it any more.
        self._confinement.apply(os.path.dirname(folder))  # noqa: PTH120
        syscalls.await_children()
        self._folder = tempfile.tempdir = folder
        sys.path.insert(0, "")
        self.serve()

    def serve(self) -> None:
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
        """Have signals to the group of the original pass by its copy.

        Not before its first block: until the process between has ended, a copy that is stopped in
        a group of its own is taken for a job that no one looks after, and gets SIGHUP.
        """
        if self._in_group_of_original:
            self._in_group_of_original = False
            with contextlib.suppress(OSError):
                os.setpgid(0, 0)

    def _let_go(self) -> None:
        with contextlib.suppress(OSError):
            os.close(SOCKET_FD)

    def _clone(self, fds: list[int], token: bytes) -> None:
        """Fork a copy that serves the descriptors `fds`, as those of `begin`; both return.

        The copy is a grandchild: the process between enters the PID namespace that the copy is
        born in, and its end makes the copy an orphan, which outlives this session.
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
                # There is no place for it after all.
                os._exit(1)
            old = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            inside = _below(self._folder)
            if keeper:
                syscalls.enter(keeper[0], self._rules.namespaces)
            if _fork() != 0:
                # The copy first: to give this process's memory back takes a while.
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
    """An object for the socket that will be at descriptor `fd`."""
    for end in socket.socketpair():
        with end:
            os.dup2(end.fileno(), fd)
    found = socket.socket(fileno=fd)
    os.close(fd)
    return found


def _below(folder: str) -> str:
    """What leads from a folder to the one this process is in, if that lies below; else nothing."""
    with contextlib.suppress(OSError):
        here = os.getcwd()  # noqa: PTH109 - a path object is a hundred others
        if here.startswith(folder + "/"):
            return here[len(folder) :]
    return ""


def _wait_for_end_of(parent: int) -> None:
    """Return when the parent has ended and this process has another."""
    while os.getppid() == parent:
        time.sleep(0.0001)


def _fork() -> int:
    """Fork a process that differs in nothing but its descriptors: no handlers of the code run."""
    if len(sys._current_frames()) == 1:
        return syscalls.plain_fork()
    # Where the code has started threads, Python must know that they are not cloned.
    random_state = random.getstate()
    with warnings.catch_warnings():
        # That is known, and no news for the code that started them.
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        # The module reseeds itself in a forked child.
        random.setstate(random_state)
    return pid
