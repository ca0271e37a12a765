"""The messages between the owner of a sandbox, its supervisor and its sessions.

Owner to supervisor: one JSON object per packet, answered by an object with the same `id`.
Owner to session: `HEADER` (kind, token, length) and that many bytes; `CLONE` carries descriptors.
Session to owner: a kind and the token of the request, nothing else. Every request has a new random
token, so that code cannot prepare an answer in advance.
"""

from __future__ import annotations

import errno
import socket
import struct
from array import array

TOKEN_BYTES = 16
HEADER = struct.Struct(f"<c{TOKEN_BYTES}sI")
RUN = b"r"
"""To a session: run the UTF-8 code that follows."""
CLONE = b"c"
"""To a session: fork; the copy takes the attached socket and output pipe."""
PLACE = b"p"
"""To a copy, before anything else: the path of its folder. If a pidfd of a keeper is attached, the
copy enters its namespaces."""
DONE = b"d"
"""From a session: the block has ended."""
MEMORY = b"m"
"""From a session: the block ended with a MemoryError."""
CLONED = b"c"
"""From a copy: it is ready."""
ANSWER_BYTES = 1 + TOKEN_BYTES

FORK = struct.Struct("<q?")
"""To the warm parent: fork a session. The user it becomes (if not negative), and whether it has a
keeper; the path of its folder follows."""
FORKED = struct.Struct("<i")
"""From the warm parent: the session's process id, or a negative error number."""

DUE = struct.Struct("<d")
SLOT = struct.Struct(f"<d{TOKEN_BYTES}s")
"""What the owner notes about a session: when its running block must end, as in `time.monotonic`
(0 if no block is running; alone as `DUE`), and the token of the request."""

MAX_PACKET = 4096
MAX_DESCRIPTORS = 2


def reason_of(error: OSError) -> str:
    """What to tell the owner about an error."""
    words = str(error.strerror or error)
    if error.errno == errno.EMFILE:
        words += " (ulimit -n)"
    return f"{error.filename}: {words}" if error.filename else words


def send(sock: socket.socket, packet: bytes, fds: list[int], flags: int = 0) -> None:
    """`socket.send_fds` with flags, which Python 3.11 accepts but ignores."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
    sock.sendmsg([packet], rights, flags)


def receive(
    sock: socket.socket, size: int, max_fds: int, flags: int = 0
) -> tuple[bytes, list[int]]:
    """`socket.recv_fds` with flags, which Python 3.11 accepts but ignores."""
    fds = array("i")
    data, ancillary, _, _ = sock.recvmsg(size, socket.CMSG_SPACE(max_fds * fds.itemsize), flags)
    for level, kind, rights in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(rights[: len(rights) - len(rights) % fds.itemsize])
    return data, list(fds)


def receive_request(sock: socket.socket) -> tuple[bytes, bytes, bytes, list[int]]:
    """The kind, token, payload and descriptors of the next request.

    The kind is empty if the owner has closed the socket.
    """
    header, fds, _, _ = socket.recv_fds(sock, HEADER.size, MAX_DESCRIPTORS)
    header += receive_exactly(sock, HEADER.size - len(header))
    if len(header) < HEADER.size:
        return b"", b"", b"", fds
    kind, token, length = HEADER.unpack(header)
    return kind, token, receive_exactly(sock, length), fds


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    """The next `size` bytes; fewer only if the other side has closed the socket."""
    parts: list[bytes] = []
    while size > 0:
        part = sock.recv(min(size, 1 << 20))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
