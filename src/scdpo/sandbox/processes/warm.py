"""The warm parent: imports what sessions need, and forks sessions on request."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import linecache
import os
import random
import signal
import socket
import sys
from dataclasses import dataclass
from importlib import import_module

from scdpo.sandbox.notebook.cell import Notebook
from scdpo.sandbox.processes import huge_pages, wire, worker
from scdpo.sandbox.walls import isolation, syscalls

# In the order in which the supervisor sends the descriptors.
_PLACES = (worker.SOCKET_FD, worker.OUTPUT_FD, worker.KEEPER_FD)
_REHEARSAL = (
    "print(1 + 1)",
    "for i in range(3):\n    print(i, end=' ')\nnames = [str(i) for i in range(3)]\nnames",
    "from math import sqrt\ndef half(x):\n    return x / 2\nhalf(sqrt(16))",
    "'text'",
    "1 / 0",
)
_REHEARSALS = 20
"""The interpreter specialises its bytecode after about eight runs, and again soon after that."""


@dataclass(frozen=True)
class WarmSettings:
    """The settings that the warm parent applies to every session."""

    preload: tuple[str, ...]
    rules: isolation.Rules
    proc: int
    """A descriptor of a /proc that shows this process."""


def start(channel: socket.socket, settings: WarmSettings) -> None:
    """Fork the warm parent, which serves `channel`. Raises OSError.

    When everything is imported, it sends a JSON object, with an `error` if there was one. Then it
    answers each `wire.FORK` with a `wire.FORKED`. The descriptors attached to a request are the
    session's socket, its output pipe and, if the session has a keeper, a pidfd of the keeper.
    """
    if os.fork() == 0:
        try:
            isolation.close_all_but(0, 1, 2, channel.fileno(), settings.proc)
            # Undo the supervisor's settings: sessions start with Python's default.
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            syscalls.ignore_children()
            _serve(channel, settings)
        finally:
            os._exit(1)


def _serve(channel: socket.socket, settings: WarmSettings) -> None:
    try:
        syscalls.perform([syscalls.DIE_WITH_PARENT])
        own = os.pidfd_open(os.getpid())
        _preload(settings)
        notebook = _open_notebook()
        runner = worker.Runner(settings.rules, _address_space(settings.proc), notebook)
        _share_memory(settings)
    except Exception as error:
        _send(channel, {"error": f"{error}" or type(error).__name__})
        return
    os.environ.clear()
    _be_the_first_to_go(settings.proc)
    os.close(settings.proc)
    _send(channel, {})
    while True:
        packet, fds, _, _ = socket.recv_fds(channel, wire.MAX_PACKET, len(_PLACES))
        if not packet:
            return
        user, nested = wire.FORK.unpack_from(packet)
        folder = packet[wire.FORK.size :].decode()
        try:
            for fd, place in zip(fds, _PLACES, strict=False):
                os.dup2(fd, place, inheritable=False)
                os.close(fd)
            result = _fork_session(runner, folder, user, own if nested else None)
        except OSError as error:
            result = -(error.errno or errno.EIO)
        os.closerange(min(_PLACES), max(_PLACES) + 1)
        channel.send(wire.FORKED.pack(result))


def _preload(settings: WarmSettings) -> None:
    for name in settings.preload:
        import_module(name)
    if "sympy" in settings.preload:
        _warm_sympy()


def _open_notebook() -> Notebook:
    """Create the notebook that every session starts with, and the rest of its initial state.

    Created here, it costs the sessions nothing. The cells run in advance cause the writes to memory
    that a session's first cells would cause: the interpreter records in its bytecode how often it
    ran, and with which types.
    """
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    notebook = Notebook(null)
    for code in _REHEARSAL * _REHEARSALS:
        notebook.run(code)
    notebook.restart()
    linecache.clearcache()
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    return notebook


def _share_memory(settings: WarmSettings) -> None:
    """Let forks share as much memory as possible, and copy it cheaply."""
    gc.collect()
    # Keeps the garbage collector from touching, and so copying, pages that sessions share.
    gc.freeze()
    huge_pages.settle(settings.proc)


def _warm_sympy() -> None:
    """Let sympy fill its tables and load lazy modules once, rather than in every session.

    Its cache of results is cleared afterwards, so that sessions compute their own.
    """
    sympy = import_module("sympy")
    x, y = sympy.symbols("x y")
    sympy.solve(x**2 - 3 * x + 1, x)
    sympy.solve([x + y - 3, x - y - 1], [x, y])
    sympy.simplify((x**2 - 1) / (x - 1) + sympy.sqrt(8) * x)
    str(sympy.expand((x + 1) ** 3).subs(x, sympy.Rational(1, 3)).evalf())
    import_module("sympy.core.cache").clear_cache()


def _address_space(proc: int) -> int:
    """Bytes of address space that this process uses."""
    with open("self/statm", opener=lambda path, flags: os.open(path, flags, dir_fd=proc)) as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGESIZE")


def _be_the_first_to_go(proc: int) -> None:
    """Make the kernel kill sessions rather than their owner when the machine runs out of memory."""
    with contextlib.suppress(OSError):
        fd = os.open("self/oom_score_adj", os.O_WRONLY, dir_fd=proc)
        try:
            os.write(fd, b"500")
        finally:
            os.close(fd)


def _fork_session(runner: worker.Runner, folder: str, user: int, own: int | None) -> int:
    """Fork a session's process; returns its id in this PID namespace. Raises OSError.

    `own`: a pidfd of this process if the session is to be born in the PID namespace of a keeper.
    """
    if own is not None:
        syscalls.enter(worker.KEEPER_FD, syscalls.NEW_PIDS)
    try:
        pid = syscalls.plain_fork()
        if pid == 0:
            try:
                _isolate(runner, folder, user)
                runner.serve()
            finally:
                os._exit(1)
    finally:
        if own is not None:
            # Otherwise this process would keep the last session's namespaces alive.
            syscalls.enter(own, syscalls.NEW_PIDS)
    return pid


def _isolate(runner: worker.Runner, folder: str, user: int) -> None:
    try:
        runner.begin(folder, None if user < 0 else user)
    except OSError as error:
        # No code has run yet, so this is all that the owner reads.
        said = f"this session could not be isolated: {wire.reason_of(error)}"
        os.write(worker.OUTPUT_FD, said.encode())
        raise


def _send(channel: socket.socket, message: dict[str, object]) -> None:
    channel.send(json.dumps(message).encode()[: wire.MAX_PACKET])
