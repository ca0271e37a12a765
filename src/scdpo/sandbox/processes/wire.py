"""The messages between the owner of a sandbox, its supervisor and its sessions.

Owner to supervisor: one JSON object a packet, each answered by one with the same `id`.
Owner to session: `HEADER` (kind, token, length) and that many bytes; `CLONE` brings descriptors.
Session to owner: a kind and the token of the request, nothing else. A token is drawn for every
request, so that code cannot have prepared an answer.
"""

from __future__ import annotations

import socket
import struct
from array import array

TOKEN_BYTES = 16
HEADER = struct.Struct(f"<c{TOKEN_BYTES}sI")
RUN = b"r"
"""To a session: run the UTF-8 code that follows."""
CLONE = b"c"
"""To a session: fork; the copy takes the socket and the output pipe that come along."""
PLACE = b"p"
"""To a copy, before anything else: it has the folder whose path follows, and moves into the
namespaces of the keeper whose pidfd comes along, if one does."""
DONE = b"d"
"""From a session: the block has ended."""
MEMORY = b"m"
"""From a session: the block ended with a MemoryError."""
CLONED = b"c"
"""From a copy: it is ready."""
ANSWER_BYTES = 1 + TOKEN_BYTES

FORK = struct.Struct("<q?")
"""To the warm parent: fork a session that becomes this user (if not negative), whether below a
keeper; the path of its folder follows."""
FORKED = struct.Struct("<i")
"""From the warm parent: the session's process id, or an error number as a negative."""

MAX_PACKET = 4096
MAX_DESCRIPTORS = 2


def send(sock: socket.socket, packet: bytes, fds: list[int], flags: int = 0) -> None:
    """`socket.send_fds` with flags, which Python 3.11 takes and ignores."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
    sock.sendmsg([packet], rights, flags)


def receive(
    sock: socket.socket, size: int, max_fds: int, flags: int = 0
) -> tuple[bytes, list[int]]:
    """`socket.recv_fds` with flags, likewise."""
    fds = array("i")
    data, ancillary, _, _ = sock.recvmsg(size, socket.CMSG_SPACE(max_fds * fds.itemsize), flags)
    for level, kind, rights in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(rights[: len(rights) - len(rights) % fds.itemsize])
    return data, list(fds)


def receive_request(sock: socket.socket) -> tuple[bytes, bytes, bytes, list[int]]:
    """Kind, token, payload and descriptors of the next request; an empty kind when the owner has
    closed."""
    header, fds, _, _ = socket.recv_fds(sock, HEADER.size, MAX_DESCRIPTORS)
    header += receive_exactly(sock, HEADER.size - len(header))
    if len(header) < HEADER.size:
        return b"", b"", b"", fds
    kind, token, length = HEADER.unpack(header)
    return kind, token, receive_exactly(sock, length), fds


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
