"""Tells the supervisor when running blocks must end, in case the owner cannot end them itself."""

from __future__ import annotations

import mmap
import os

from scdpo.sandbox.processes import wire

_SLOTS = 256


class Deadlines:
    """A file in memory with a slot for each session, which `processes.deadlines` reads."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("scdpo-deadlines")
        os.ftruncate(self.fd, _SLOTS * wire.SLOT.size)
        self._memory = mmap.mmap(self.fd, 0)
        self._free = list(range(_SLOTS))

    def take(self) -> int:
        """The number of a slot that no other session uses."""
        if not self._free:
            size = len(self._memory)
            self._memory.resize(2 * size)
            self._free = list(range(size // wire.SLOT.size, 2 * size // wire.SLOT.size))
        return self._free.pop()

    def give_back(self, slot: int) -> None:
        """Erase a slot and let another session use it."""
        if not self._memory.closed:
            self.erase(slot)
            self._free.append(slot)

    def note(self, slot: int, due: float, token: bytes) -> None:
        """Note that the block with this token must end at `due` (as in `time.monotonic`)."""
        # The time is written last, as it makes the note valid.
        wire.SLOT.pack_into(self._memory, slot * wire.SLOT.size, 0.0, token)
        wire.DUE.pack_into(self._memory, slot * wire.SLOT.size, due)

    def erase(self, slot: int) -> None:
        """Note that no block is running, or that the owner is reading its answer."""
        wire.DUE.pack_into(self._memory, slot * wire.SLOT.size, 0.0)

    def close(self) -> None:
        """Close the file. Closing it again does nothing."""
        if not self._memory.closed:
            self._memory.close()
            os.close(self.fd)
