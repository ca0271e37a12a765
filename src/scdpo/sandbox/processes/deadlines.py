"""When running blocks must end: written by the owner, read by the supervisor.

The owner ends its sessions itself. Where it cannot, because its event loop is blocked or the whole
process is stopped, the supervisor does it a moment later. Both share a file in memory with a slot
for each session (`wire.SLOT`), so that a block costs no message.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

from scdpo.sandbox.processes import wire

_GRACE = 0.1
"""Seconds that an owner has for ending a block itself."""


class OverdueBlocks:
    """Finds the sessions whose block should have ended."""

    def __init__(self, notes: int) -> None:
        """`notes`: a descriptor of the file that the owner writes to."""
        self._notes = notes
        self._sessions: dict[int, tuple[int, int]] = {}

    def add(self, number: int, slot: int, end: int) -> None:
        """Watch a session with this slot. `end`: the owner's end of its socket, kept open here."""
        self._sessions[number] = slot, end

    def remove(self, number: int) -> None:
        """Forget a session; numbers that are not known are ignored."""
        if number in self._sessions:
            os.close(self._sessions.pop(number)[1])

    def __iter__(self) -> Iterator[int]:
        """The numbers of sessions that have neither ended their block nor been ended in time."""
        if not self._sessions:
            return
        late = time.monotonic() - _GRACE
        used = max(slot for slot, _ in self._sessions.values()) + 1
        notes = os.pread(self._notes, used * wire.SLOT.size, 0)
        for number, (slot, end) in list(self._sessions.items()):
            at = slot * wire.SLOT.size
            due, token = wire.SLOT.unpack_from(notes, at)
            if not 0 < due < late or _has_answered(end, token):
                continue
            # The owner erases its note before it reads the answer.
            if os.pread(self._notes, wire.SLOT.size, at) == notes[at : at + wire.SLOT.size]:
                yield number


def _has_answered(end: int, token: bytes) -> bool:
    """Whether the end of a block has been reported, and only the owner has not looked yet."""
    with socket.socket(fileno=os.dup(end)) as sock:
        try:
            answer = sock.recv(wire.ANSWER_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:
            return False
    return answer in (wire.DONE + token, wire.MEMORY + token)
