"""The warm parent: imports what sessions need, and forks one on request; it runs no other code."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from scdpo.sandbox import isolation, kernel, pages, seccomp, wire, worker

_MAX_DESCRIPTORS = 3


@dataclass(frozen=True)
class Settings:
    """What the warm parent gives every session."""

    preload: tuple[str, ...]
    rules: isolation.Rules
    proc: int
    """A descriptor of a /proc that shows this process."""


def start(channel: socket.socket, settings: Settings) -> None:
    """Fork the warm parent, which serves `channel` with one JSON object for each. Raises OSError.

    When everything is imported it sends `{}`, or an `error`. A request is a `folder` and, where
    the session is to be another user, a `user`; with it come descriptors of the session's socket,
    of its output pipe and, with namespaces, of its keeper. The answer has the session's `pid`, or
    an `error`.
    """
    if os.fork() == 0:
        try:
            isolation.close_all_but(0, 1, 2, channel.fileno(), settings.proc)
            # Sessions that end are gone at once.
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            _serve(channel, settings)
        finally:
            os._exit(1)


def _serve(channel: socket.socket, settings: Settings) -> None:
    try:
        kernel.die_with_parent()
        own = os.pidfd_open(os.getpid())
        _preload(settings)
    except Exception as error:
        _send(channel, {"error": f"{error}" or type(error).__name__})
        return
    os.environ.clear()
    bare = _address_space(settings.proc)
    _be_the_first_to_go(settings.proc)
    os.close(settings.proc)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    _send(channel, {})
    while True:
        packet, fds, _, _ = socket.recv_fds(channel, wire.MAX_PACKET, _MAX_DESCRIPTORS)
        if not packet:
            return
        request = json.loads(packet)
        try:
            reply: dict[str, object] = {
                "pid": _fork_session(request, fds, settings.rules, own, bare)
            }
        except OSError as error:
            reply = {"error": str(error.strerror or error)}
        finally:
            for fd in fds:
                os.close(fd)
        _send(channel, reply)


def _preload(settings: Settings) -> None:
    for name in settings.preload:
        import_module(name)
    if "sympy" in settings.preload:
        _warm_sympy()
    seccomp.assemble(**isolation.filter_options(settings.rules))
    gc.collect()
    # Keeps the collector from touching, and so copying, the pages that sessions share.
    gc.freeze()
    pages.settle(settings.proc)


def _warm_sympy() -> None:
    """Have sympy do once what every session would else do first: fill tables and lazy modules.

    The results that it remembers are forgotten again, so that sessions compute their own.
    """
    sympy = import_module("sympy")
    x, y = sympy.symbols("x y")
    sympy.solve(x**2 - 3 * x + 1, x)
    sympy.solve([x + y - 3, x - y - 1], [x, y])
    sympy.simplify((x**2 - 1) / (x - 1) + sympy.sqrt(8) * x)
    str(sympy.expand((x + 1) ** 3).subs(x, sympy.Rational(1, 3)).evalf())
    import_module("sympy.core.cache").clear_cache()


def _address_space(proc: int) -> int:
    """Bytes of address space this process takes."""
    with open("self/statm", opener=lambda path, flags: os.open(path, flags, dir_fd=proc)) as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGESIZE")


def _be_the_first_to_go(proc: int) -> None:
    """Have a machine out of memory kill sessions rather than their owner."""
    with contextlib.suppress(OSError):
        fd = os.open("self/oom_score_adj", os.O_WRONLY, dir_fd=proc)
        try:
            os.write(fd, b"500")
        finally:
            os.close(fd)


def _fork_session(
    request: dict[str, Any], fds: list[int], rules: isolation.Rules, own: int, bare: int
) -> int:
    """Fork a session's process; returns its id in this PID namespace. Raises OSError."""
    keeper = fds[2] if rules.namespaces else None
    if keeper is not None:
        kernel.enter(keeper, kernel.NEW_PIDS)
    pid = kernel.plain_fork()
    if pid == 0:
        with contextlib.suppress(OSError):
            place = worker.Place(request["folder"], request.get("user"), keeper)
            worker.begin(fds[0], fds[1], place, rules, bare)
        os._exit(1)
    if keeper is not None:
        # Else the namespaces of the last session would be kept by this process.
        kernel.enter(own, kernel.NEW_PIDS)
    return pid


def _send(channel: socket.socket, message: dict[str, object]) -> None:
    channel.send(json.dumps(message).encode()[: wire.MAX_PACKET])
