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
from dataclasses import dataclass
from pathlib import Path

from scdpo.sandbox import files, isolation, kernel, view, wire
from scdpo.sandbox.cell import Notebook

# Near the top of the descriptors a session may have, out of the way of what code opens.
_SOCKET_FD = isolation.MAX_FILES - 2
_OUTPUT_FD = isolation.MAX_FILES - 1


@dataclass(frozen=True)
class Place:
    """Where a session lives: its folder, the user it becomes, a pidfd of its keeper."""

    folder: str
    user: int | None
    keeper: int | None


def begin(
    fds: list[int],
    place: Place,
    rules: isolation.Rules,
    limits: isolation.Limits,
    notebook: Notebook,
) -> None:
    """Move into a place for good, and run blocks until the owner closes the socket.

    `fds`: the session's socket, and where output goes; `limits`: those of `isolation.limits`;
    `notebook`: runs the blocks. Does not return. Raises OSError where isolation fails.

    What runs here is short for a reason: every object that it touches costs the session a copy of
    the memory around it.
    """
    if place.keeper is not None:
        kernel.enter(place.keeper, rules.namespaces & ~kernel.NEW_PIDS)
        view.prepare(rules.file_size, list(rules.paths))
    # A folder above may be closed to the user that the session becomes.
    os.chdir(place.folder)
    if place.user is not None:
        isolation.become(place.user)
    kernel.stay_readable()
    kernel.die_with_parent()
    os.setsid()
    sock, output_fd = _settle(*fds[:2])
    notebook.redirect(output_fd)
    isolation.close_all_but(0, 1, 2, _SOCKET_FD, _OUTPUT_FD)
    isolation.limit_resources(limits)
    # A clone has its folder beside this one, and cannot be given the right to it any more.
    isolation.give_up(rules, os.path.dirname(place.folder))  # noqa: PTH120
    kernel.await_children()
    tempfile.tempdir = place.folder
    sys.path.insert(0, "")
    _Runner(sock, place.folder, rules, notebook).serve()


class _Runner:
    """Answers the owner; after `clone`, in the copy too."""

    def __init__(
        self, sock: socket.socket, folder: str, rules: isolation.Rules, notebook: Notebook
    ) -> None:
        self._sock = sock
        self._folder = folder
        self._rules = rules
        self._notebook = notebook
        self._in_group_of_original = False
        # What code starts must not keep the owner waiting when this process is gone.
        os.register_at_fork(after_in_child=self._let_go)

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
            os.close(_SOCKET_FD)

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
            _, _, path, keeper = wire.receive_request(self._sock)
            old = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            inside = Path.cwd().relative_to(self._folder) if _is_in(self._folder) else Path()
            if keeper:
                kernel.enter(keeper[0], self._rules.namespaces)
            if _fork() != 0:
                os._exit(0)
            if not keeper:
                _wait_for_end_of(middle)
                kernel.die_with_parent()
            self._become_copy([fds[1], *keeper], path.decode(), old, inside)
        except BaseException:
            os._exit(1)
        self._sock.sendall(wire.CLONED + token)

    def _become_copy(self, fds: list[int], folder: str, old: int, inside: Path) -> None:
        self._sock, output_fd = _settle(self._sock.detach(), fds[0])
        for fd in fds[1:]:
            os.close(fd)
        files.copy(old, folder)
        os.close(old)
        kernel.drop_privileges(read_everything=self._rules.read_everything)
        kernel.stay_readable()
        self._in_group_of_original = True
        self._folder = tempfile.tempdir = folder
        os.chdir(Path(folder) / inside)
        self._notebook.redirect(output_fd)


def _settle(fd: int, output_fd: int) -> tuple[socket.socket, int]:
    """Put the descriptors in their places; nothing is to be read from standard input."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for source, target in ((output_fd, _OUTPUT_FD), (fd, _SOCKET_FD)):
        os.dup2(source, target, inheritable=False)
        os.close(source)
    return socket.socket(fileno=_SOCKET_FD), _OUTPUT_FD


def _is_in(folder: str) -> bool:
    with contextlib.suppress(OSError):
        return Path.cwd().is_relative_to(folder)
    return False


def _wait_for_end_of(parent: int) -> None:
    """Return when the parent has ended and this process has another."""
    while os.getppid() == parent:
        time.sleep(0.0001)


def _fork() -> int:
    """Fork a process that differs in nothing but its descriptors: no handlers of the code run."""
    if len(sys._current_frames()) == 1:
        return kernel.plain_fork()
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

