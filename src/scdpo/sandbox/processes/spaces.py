"""Level `namespace`: every session has a keeper and namespaces of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from scdpo.sandbox.processes import keeper, wire
from scdpo.sandbox.processes.process_table import ProcessTable, send_signal
from scdpo.sandbox.processes.supervisor import Answer, Loop, Pulse, Warm, failure, over_limit
from scdpo.sandbox.walls import syscalls

_PATIENCE = 3.0
"""Seconds a session can delay being killed alone; after that, its clones are killed with it."""
_GLANCE = 0.1
_ATTEMPTS = 3


@dataclass
class _Space:
    """A session's keeper, and what is known about it.

    `above`: the space of the session that this one was cloned from, whose steward started the
    keeper; without it, the supervisor started the keeper on `stack`. `pidfd` and `pid`: those of
    the keeper, the latter in /proc. `namespace`: the number of its PID namespace. `steward`,
    `steward_pidfd` and `steward_pid`: the channel to the steward, and its process. `below`: numbers
    of the clones' spaces, which end with this one. `coming`: those of clones that have not arrived
    yet. `nesting`: spaces whose keepers were requested, in that order. `pending`: answers the
    request for this space. `on_end`: called when the space has ended; not empty once its end was
    requested. `husk`: the session has ended, but the keeper stays for the clones. `why`: the cut,
    if the supervisor has ended it.
    """

    number: int
    above: _Space | None
    pending: Answer | None
    stack: syscalls.Stack | None = None
    pidfd: int = -1
    pid: int = 0
    namespace: int = 0
    steward: socket.socket | None = None
    steward_pidfd: int = -1
    steward_pid: int = 0
    below: set[int] = field(default_factory=set)
    coming: set[int] = field(default_factory=set)
    nesting: deque[_Space] = field(default_factory=deque)
    on_end: list[Callable[[], None]] = field(default_factory=list)
    husk: bool = False
    why: str = ""

    def answer(self, **reply: Any) -> None:
        if self.pending is not None:
            pending, self.pending = self.pending, None
            pending(**reply)


class Spaces:
    """Implements `supervisor.SessionManager`."""

    def __init__(
        self,
        loop: Loop,
        warm: Warm,
        table: ProcessTable,
        settings: keeper.KeeperSettings,
        memory: int,
    ) -> None:
        self._loop = loop
        self._warm = warm
        self._table = table
        self._settings = settings
        self._own = table.own()
        self._memory = memory + max(map(table.resident, table.descendants([self._own])))
        self._folder = settings.scratch.folder
        self._spaces: dict[int, _Space] = {}
        # Why spaces have ended that the owner has not asked to end yet.
        self._reasons: dict[int, str] = {}
        # A steward in waiting.
        self._spare: socket.socket | None = self._start_steward()

    def start(self, number: int, fds: list[int], answer: Answer) -> None:
        """See `SessionManager`."""
        pid, stack = keeper.start(self._settings)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            raise
        space = self._spaces[number] = _Space(number, None, answer, stack)
        self._know(space, pidfd)
        try:
            keeper.map_user(space.pid, self._settings)
            fds = [*fds, space.pidfd]
            self._warm.fork(self._folder, None, fds, lambda pid: space.answer(**failure(pid)))
        except OSError as error:
            space.answer(error=wire.reason_of(error))

    def clone(self, number: int, source: int, answer: Answer) -> None:
        """See `SessionManager`; the answer has a pidfd of the keeper that the copy enters."""
        above = self._spaces.get(source)
        if above is None or above.husk or above.on_end:
            answer(error="its session is gone")
            return
        try:
            self._steward(above).send(keeper.NEST, socket.MSG_DONTWAIT)
        except OSError as error:
            answer(error=wire.reason_of(error))
            return
        space = self._spaces[number] = _Space(number, above, answer)
        above.below.add(number)
        above.coming.add(number)
        above.nesting.append(space)

    def adopt(self, number: int, pid: int, answer: Answer) -> None:
        """See `SessionManager`; a session can be told to answer from somewhere else."""
        space = self._spaces.get(number)
        self._settle(space)
        if space is not None and self._is_inside(space, pid):
            answer()
        else:
            answer(error="the copy is not in its namespaces")

    def end(self, number: int, answer: Answer) -> None:
        """See `SessionManager`."""
        space = self._spaces.get(number)
        self._settle(space)
        if space is None or space.husk:
            answer(why=self._reasons.pop(number, ""))
        elif space.above is not None and space.pidfd < 0:
            # Its keeper was requested; if it still arrives, it is killed.
            space.above.below.discard(number)
            space.on_end.append(lambda: None)
            answer()
        elif space.below and not space.on_end:
            self._kill_session(space)
            space.husk = True
            self._tell(space, keeper.CLEAR)
            answer(why=space.why)
        else:
            space.on_end.append(lambda: answer(why=space.why))
            self._kill(space)

    def expire(self, number: int) -> None:
        """See `SessionManager`."""
        space = self._spaces.get(number)
        if space is not None and not (space.why or space.husk or space.on_end):
            space.why = "deadline"
            self._kill_session(space)

    def watch(self, pulse: Pulse) -> None:
        """See `SessionManager`."""
        if not self._spaces:
            return
        members: dict[int, list[int]] = {}
        for pid in self._table.descendants([self._own]):
            members.setdefault(self._table.namespace(pid), []).append(pid)
        for space in list(self._spaces.values()):
            pids = self._without_ours(space, members.get(self._namespace(space), []))
            if pids and not space.on_end and over_limit(self._table, pids, self._memory, pulse):
                space.why = space.why or "memory"
                self._kill_session(space)

    def wants_to_prepare(self) -> bool:
        """See `SessionManager`."""
        return self._spare is None

    def prepare(self) -> None:
        """See `SessionManager`: starts the next steward."""
        if self._spare is None:
            self._spare = self._start_steward()

    def close(self) -> None:
        """Nothing to do: when process 1 ends, everything ends."""

    def _know(self, space: _Space, pidfd: int) -> None:
        space.pidfd = pidfd
        space.pid = self._table.of(pidfd) or 0
        self._loop.add(pidfd, lambda: self._ended(space))
        if space.on_end:
            self._kill(space)

    def _steward(self, space: _Space) -> socket.socket:
        """The channel to the steward of a space, which is sent there if needed. Raises OSError."""
        if space.steward is None:
            spare = self._spare or self._start_steward()
            self._spare = None
            socket.send_fds(spare, [keeper.ENTER], [space.pidfd])
            space.steward = spare
            self._loop.add(spare.fileno(), lambda: self._hear_steward(space))
        return space.steward

    def _start_steward(self) -> socket.socket:
        ours, theirs = _socketpair()
        with theirs:
            keeper.start_steward(theirs, self._settings)
        return ours

    def _tell(self, space: _Space, message: bytes) -> None:
        if space.steward is not None:
            with contextlib.suppress(OSError):
                # A steward that the session has stopped does not read.
                space.steward.send(message, socket.MSG_DONTWAIT)

    def _settle(self, space: _Space | None) -> None:
        """Tell the steward of the original that the copy has arrived or will not come.

        Not if another copy of the same session is still on its way.
        """
        above = space.above if space is not None else None
        if space is not None and above is not None and space.number in above.coming:
            above.coming.discard(space.number)
            if not above.coming:
                self._tell(above, keeper.LOWER)

    def _hear_steward(self, space: _Space) -> None:
        """Read a message of a steward, unless the channel has been closed."""
        if space.steward is None:
            return
        try:
            message, fds = wire.receive(space.steward, wire.MAX_PACKET, 1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            message, fds = b"", []
        if message == keeper.READY and fds:
            # Its pidfd tells when it ends: nested keepers hold its side of the channel open.
            space.steward_pidfd = fds[0]
            space.steward_pid = self._table.of(fds[0]) or 0
            self._loop.add(fds[0], lambda: self._forget_steward(space))
        elif message == keeper.NEST and fds and space.nesting:
            nested = space.nesting.popleft()
            self._know(nested, fds[0])
            nested.answer(fds=[nested.pidfd], folder=self._folder)
        elif message[:1] == keeper.FAILED and space.nesting:
            self._fail(space.nesting.popleft(), message[1:].decode())
        elif message in (keeper.READY, keeper.NEST) and not fds:
            # The kernel drops descriptors for which there is no room.
            self._forget_steward(space, "Too many open files (ulimit -n)")
        else:
            self._forget_steward(space)

    def _forget_steward(self, space: _Space, reason: str = "its session has changed") -> None:
        if space.steward is not None:
            self._loop.remove(space.steward.fileno())
            space.steward.close()
            if space.steward_pidfd >= 0:
                self._loop.remove(space.steward_pidfd)
                os.close(space.steward_pidfd)
            space.steward, space.steward_pidfd, space.steward_pid = None, -1, 0
        while space.nesting:
            self._fail(space.nesting.popleft(), reason)

    def _fail(self, space: _Space, reason: str) -> None:
        """Give up a nested space whose keeper was not started."""
        space.answer(error=reason)
        self._ended(space)

    def _kill(self, space: _Space) -> None:
        if space.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(space.pidfd, signal.SIGKILL)

    def _ended(self, space: _Space) -> None:
        """Forget a space whose keeper has ended, and with it all its processes."""
        if self._spaces.pop(space.number, None) is None:
            return
        if space.pidfd >= 0:
            self._loop.remove(space.pidfd)
            os.close(space.pidfd)
            # Its number will be that of another.
            space.pidfd = -1
        self._forget_steward(space)
        space.answer(error="its process 1 has ended")
        self._settle(space)
        if space.why and not space.on_end:
            self._reasons[space.number] = space.why
        above = space.above
        if above is not None:
            above.below.discard(space.number)
            # Both may have ended in the same round of the loop, the outer one first.
            lives = self._spaces.get(above.number) is above
            if lives and above.husk and not above.below:
                # Requests that wait for the end of the last clone also wait for that of the husk.
                above.on_end += space.on_end
                self._kill(above)
                return
        for callback in space.on_end:
            callback()

    def _kill_session(self, space: _Space) -> None:
        """Kill the processes of a session, and spare those of its clones if possible."""
        until = time.monotonic() + _PATIENCE
        for _ in range(_ATTEMPTS if space.below else 0):
            # Stopped processes cannot fork, so the list is complete.
            if self._freeze(space, until):
                found = self._members(space)
                here = (self._table.here(pid, self._own) for pid in found)
                send_signal(signal.SIGKILL, [pid for pid in here if pid is not None])
                self._tell(space, keeper.THAW)
                if self._wait_until_gone(space, set(found), until):
                    return
            if time.monotonic() > until:
                break
        self._kill(space)

    def _wait_until_gone(self, space: _Space, killed: set[int], until: float) -> bool:
        """Wait for the end of the processes; False as soon as there is one that was not killed."""
        while left := self._members(space):
            if not killed.issuperset(left) or time.monotonic() > until:
                return False
            time.sleep(0.0005)
        return True

    def _freeze(self, space: _Space, until: float) -> bool:
        """Stop everything in a space and below; False if the session prevented that."""
        with contextlib.suppress(OSError):
            self._steward(space).settimeout(_GLANCE)
            self._steward(space).send(keeper.FREEZE, socket.MSG_DONTWAIT)
            while (steward := space.steward) is not None:
                try:
                    if steward.recv(1, socket.MSG_PEEK) == keeper.FREEZE:
                        steward.recv(1)
                        steward.settimeout(None)
                        return True
                    self._hear_steward(space)
                except TimeoutError:
                    # The machine may be busy, or the session has stopped or killed the steward.
                    if self._hold_up(space) or time.monotonic() > until:
                        break
        self._forget_steward(space)
        return False

    def _hold_up(self, space: _Space) -> bool:
        """Whether the steward of a space, or its predecessor, has ended or is stopped."""
        if space.steward_pid:
            pid = space.steward_pid
            return self._table.stopped(pid) or self._table.of(space.steward_pidfd) != pid
        return any(self._table.stopped(pid) for pid in self._members(space))

    def _members(self, space: _Space) -> list[int]:
        own = self._namespace(space)
        found = self._table.descendants([self._own])
        return self._without_ours(space, [p for p in found if self._table.namespace(p) == own])

    def _is_inside(self, space: _Space, pid: int) -> bool:
        """Whether a copy has entered its space.

        `pid`: that of the process that answered, as the owner sees it. Its /proc may be that of
        another PID namespace, and then any process inside will do.
        """
        own = self._namespace(space)
        return own != 0 and (self._table.namespace(pid) == own or bool(self._members(space)))

    def _namespace(self, space: _Space) -> int:
        # Read only when needed: most sessions end before that.
        if not space.namespace:
            found = self._table.namespace(space.pid)
            # Otherwise the id may belong to another process by now.
            if self._table.of(space.pidfd) == space.pid:
                space.namespace = found
        return space.namespace

    @staticmethod
    def _without_ours(space: _Space, pids: list[int]) -> list[int]:
        return [pid for pid in pids if pid not in (space.pid, space.steward_pid)]


def _socketpair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
