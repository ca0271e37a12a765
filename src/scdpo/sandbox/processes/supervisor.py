"""The process between the owner and the sessions: starts and ends them, and watches their memory.

The owner starts it as a program. At level `namespace` it is process 1 of a PID namespace, so that
everything it started ends with it. It runs no model-written code, and no session can reach it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Protocol

from scdpo.sandbox.processes import wire
from scdpo.sandbox.processes.deadlines import OverdueBlocks
from scdpo.sandbox.processes.process_table import ProcessTable

Answer = Callable[..., None]
"""Answers a request with the keys of a reply, or `error`, and with descriptors in `fds`."""

Pulse = Callable[[], None]
"""Called during work that may take long, so that no deadline has to wait for its end."""

_WATCH_SECONDS = 0.05
"""Seconds between two checks of the memory of sessions, unless a check takes long."""
_WATCH_SHARE = 20
"""Checks take at most 1/20 of the supervisor's time, unless `_MAX_PAUSE` requires more."""
_MAX_PAUSE = 0.25
"""The most seconds between two checks, however long a check takes."""
_CHECK_SECONDS = 0.1
"""Seconds between two looks for blocks that should have ended."""
_IDLE_SECONDS = 0.003
"""After so long without a request, there is time to prepare something in advance."""
_RESEND_SECONDS = 0.001
_BARE = 128 << 20
_SHARED = 4
_MAX_REASON = 500
_MAX_FDS = 3
"""In a request: a session's socket and output pipe, and the owner's end of that socket."""


class SessionManager(Protocol):
    """Starts, clones, watches and ends sessions; there is one implementation for each level."""

    def start(self, number: int, fds: list[int], answer: Answer) -> None:
        """Start a session that serves the socket and writes to the pipe in `fds`."""
        ...

    def clone(self, number: int, source: int, answer: Answer) -> None:
        """Make a place for a copy of `source`; the answer tells what the copy needs to know."""
        ...

    def adopt(self, number: int, pid: int, answer: Answer) -> None:
        """Register process `pid` as the copy in that place."""
        ...

    def end(self, number: int, answer: Answer) -> None:
        """Kill a session, and answer when nothing is left of it."""
        ...

    def expire(self, number: int) -> None:
        """Kill a session whose owner has not ended it at its deadline."""
        ...

    def watch(self, pulse: Pulse) -> None:
        """End sessions that use too much memory beyond that of the warm parent."""
        ...

    def wants_to_prepare(self) -> bool:
        """Whether there is something to prepare in advance."""
        ...

    def prepare(self) -> None:
        """Prepare it. Raises OSError."""
        ...

    def close(self) -> None:
        """End everything."""
        ...


class Loop:
    """An event loop that calls back when descriptors can be read."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._stopped = False

    def add(self, fd: int, callback: Callable[[], None]) -> None:
        """From now on, call back whenever `fd` can be read or its other end was closed."""
        self._callbacks[fd] = callback
        self._poll.register(fd, select.POLLIN)

    def remove(self, fd: int) -> None:
        """Stop calling back for `fd`."""
        if self._callbacks.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def stop(self) -> None:
        """Make `run` return."""
        self._stopped = True

    def run(self, every: Callable[[bool], float]) -> None:
        """Call back until stopped.

        `every` is called before each wait, with whether the last wait ended without an event, and
        returns the seconds to wait at most.
        """
        idle = False
        while not self._stopped:
            events = self._poll.poll(1000 * every(idle))
            due = [(fd, self._callbacks.get(fd)) for fd, _ in events]
            for fd, callback in due:
                # An earlier callback may have closed the descriptor, and its number may be reused.
                if callback is not None and self._callbacks.get(fd) is callback:
                    callback()
            idle = not events


class Warm:
    """The channel to the warm parent, which answers requests in order."""

    def __init__(self, channel: socket.socket, loop: Loop) -> None:
        self._channel = channel
        self._waiting: deque[Callable[[int], None]] = deque()
        self._loop = loop
        loop.add(channel.fileno(), self._hear)

    def fork(
        self, folder: str, user: int | None, fds: list[int], done: Callable[[int], None]
    ) -> None:
        """Have a session forked; `done` gets its process id, or a negative error number.

        `fds`: see `warm.start`. Raises OSError.
        """
        head = wire.FORK.pack(-1 if user is None else user, len(fds) > 2)
        socket.send_fds(self._channel, [head + folder.encode()], fds)
        self._waiting.append(done)

    def _hear(self) -> None:
        packet = self._channel.recv(wire.MAX_PACKET)
        if not packet:
            self._loop.stop()
            return
        self._waiting.popleft()(wire.FORKED.unpack(packet)[0])


def failure(number: int) -> dict[str, str]:
    """The reply for a negative error number; empty for a process id."""
    if number == -errno.EAGAIN:
        return {"error": "this user may not have more processes (ulimit -u, or a cgroup's limit)"}
    return {"error": wire.reason_of(OSError(-number, os.strerror(-number)))} if number < 0 else {}


class Supervisor:
    """Serves the owner's requests until the owner is gone."""

    def __init__(self, control: socket.socket, loop: Loop, notes: int) -> None:
        """`notes`: see `OverdueBlocks`."""
        self._control = control
        self._overdue = OverdueBlocks(notes)
        self._checked = 0.0
        self._loop = loop
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._watched = 0.0
        self._pause = _WATCH_SECONDS

    def serve(self, manager: SessionManager, owner: int) -> None:
        """Serve until the process behind the pidfd `owner` ends. Does not return."""
        self._manager = manager
        self._loop.add(self._control.fileno(), self._hear)
        self._loop.add(owner, self._loop.stop)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: self._loop.stop())
        try:
            self._loop.run(self._watch)
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            why = f"{error!r} in {at.name}, line {at.lineno}"[:_MAX_REASON]
            with contextlib.suppress(OSError):
                self._control.send(json.dumps({"id": 0, "lost": why}).encode())
        finally:
            manager.close()
            os._exit(0)

    def _watch(self, idle: bool) -> float:
        self._send()
        self._end_overdue()
        now = time.monotonic()
        if now - self._watched >= self._pause:
            self._manager.watch(self._end_overdue)
            self._watched = time.monotonic()
            took = _WATCH_SHARE * (self._watched - now)
            self._pause = min(max(_WATCH_SECONDS, took), _MAX_PAUSE)
        if self._unsent:
            return _RESEND_SECONDS
        if self._manager.wants_to_prepare():
            if not idle:
                return _IDLE_SECONDS
            with contextlib.suppress(OSError):
                self._manager.prepare()
        return min(self._pause, _CHECK_SECONDS)

    def _end_overdue(self) -> None:
        now = time.monotonic()
        if now - self._checked >= _CHECK_SECONDS:
            self._checked = now
            for number in self._overdue:
                self._manager.expire(number)

    def _hear(self) -> None:
        try:
            packet, fds, _, _ = socket.recv_fds(self._control, wire.MAX_PACKET, _MAX_FDS)
        except OSError:
            packet, fds = b"", []
        if not packet:
            self._loop.stop()
            return
        request = json.loads(packet)
        number, answer = request["session"], self._answerer(request["id"], fds)
        try:
            if len(fds) < request.get("fds", 0):
                # The kernel drops those for which there is no room.
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            match request["do"]:
                case "start":
                    self._overdue.add(number, request["slot"], fds.pop())
                    self._manager.start(number, fds, answer)
                case "clone":
                    self._overdue.add(number, request["slot"], fds.pop())
                    self._manager.clone(number, request["of"], answer)
                case "adopt":
                    self._manager.adopt(number, request["pid"], answer)
                case "end":
                    self._overdue.remove(number)
                    self._manager.end(number, answer)
        except OSError as error:
            answer(error=wire.reason_of(error))

    def _answerer(self, number: int, received: list[int]) -> Answer:
        def answer(fds: list[int] | None = None, **reply: object) -> None:
            copies: list[int] = []
            try:
                # Copies, as the caller may close its descriptors before this is sent.
                copies += map(os.dup, fds or [])
            except OSError as error:
                reply = {"error": wire.reason_of(error)}
            self._unsent.append((json.dumps({"id": number, **reply}).encode(), copies))
            self._send()
            while received:
                os.close(received.pop())

        return answer

    def _send(self) -> None:
        """Send as much as the owner accepts: it may itself be waiting for this process to read."""
        while self._unsent:
            packet, fds = self._unsent[0]
            try:
                wire.send(self._control, packet, fds, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                # The owner is gone, which its pidfd reports.
                pass
            self._unsent.popleft()
            for fd in fds:
                os.close(fd)


def over_limit(table: ProcessTable, pids: list[int], limit: int, pulse: Pulse) -> bool:
    """Whether processes together use more than `limit` bytes of memory."""
    seen = sum(table.resident(pid) for pid in pids)
    if seen <= limit:
        return False
    # Shared memory was counted once for each process, and dividing it takes time: far too much is
    # decided without that. A bare interpreter has less than _BARE.
    if seen - _BARE * len(pids) > _SHARED * limit:
        return True
    total = 0
    for pid in pids:
        # For a process with many mappings, this takes a while.
        pulse()
        total += table.proportional(pid)
        if total > limit:
            return True
    return False
