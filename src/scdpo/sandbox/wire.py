"""The messages between the owner of a sandbox, its zygote and its sessions.

Owner to zygote: one JSON object a packet, each answered by one with the same `id`.
Owner to session: `HEADER` (a kind and a length) and that many bytes; `CLONE` brings descriptors.
Session to owner: one `HEADER`, nothing else.
"""

from __future__ import annotations

import socket
import struct

HEADER = struct.Struct("<cI")
RUN = b"r"
"""To a session: run the UTF-8 code that follows."""
CLONE = b"c"
"""To a session: fork; the copy takes the socket and the output pipe that come along, and the
folder whose path follows."""
DONE = b"d"
"""From a session: the block has ended."""
MEMORY = b"m"
"""From a session: the block ended with a MemoryError."""
CLONED = b"p"
"""From a copy: it is ready; the number is its process id."""

MAX_PACKET = 4096


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    """The next `size` bytes; fewer only when the other side has closed."""
    parts: list[bytes] = []
    while size > 0:
        part = sock.recv(min(size, 1 << 20))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
