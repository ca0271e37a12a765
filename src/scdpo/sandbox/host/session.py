"""The owner's side of a session: sends blocks, enforces deadlines, collects output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import struct
import time
from collections.abc import Iterator
from typing import Protocol

from scdpo.errors import SandboxError
from scdpo.sandbox.host.base import SESSION_ENDING_CUTS, Cut, Execution
from scdpo.sandbox.host.config import SandboxConfig
from scdpo.sandbox.host.deadlines import Deadlines
from scdpo.sandbox.processes import wire

_MAX_PIPE = 1 << 20
_CHUNK = 1 << 16
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05
_CREDENTIALS = struct.Struct("3i")
_CREDENTIALS_SPACE = socket.CMSG_SPACE(_CREDENTIALS.size)
_FROM = socket.SCM_CREDENTIALS
_GONE = b"?"
_LATE = b"!"
_CUTS: dict[bytes, Cut] = {wire.DONE: "", wire.MEMORY: "memory", _LATE: "deadline"}


class SessionOwner(Protocol):
    """What a session needs from the sandbox that started it."""

    config: SandboxConfig
    deadlines: Deadlines
    lost: str
    """Why the sandbox has ended without having been closed; empty while it has not."""

    def running(self) -> asyncio.Semaphore:
        """Held by a session while one of its blocks runs."""
        ...

    def abandon(self, session: ProcessSession) -> None:
        """Kill a session without waiting for its end."""
        ...

    async def end(self, session: ProcessSession) -> Cut:
        """Kill a session and wait for its end; returns why the supervisor ended it, if it did."""
        ...

    async def clone(self, session: ProcessSession) -> ProcessSession:
        """See `ProcessSession.clone`."""
        ...


class ProcessSession:
    """A forked interpreter; implements `Session`."""

    def __init__(self, sandbox: SessionOwner, number: int) -> None:
        self.number = number
        self._sandbox = sandbox
        self._socket, self._their_socket = socket.socketpair()
        # Event loops get the number, as they would ask the object for its addresses.
        self._fd = self._socket.fileno()
        try:
            self._output, self._their_output = os.pipe()
        except OSError:
            self._socket.close()
            self._their_socket.close()
            raise
        self._socket.setblocking(False)
        os.set_blocking(self._output, False)
        self.slot = sandbox.deadlines.take()
        self._live = True
        self._busy = False
        self._token = b""
        self._due = 0.0
        self._ended: asyncio.Future[bytes] | None = None

    async def run(self, code: str) -> Execution:
        """Run one block. Raises SandboxError if the session is gone or busy."""
        with self._alone():
            async with self._sandbox.running():
                self._require_live()  # it may have ended while this block waited for its turn
                started = time.perf_counter()
                collected = _Output(self._output, self._sandbox.config.output_chars)
                try:
                    cut = await self._run(code, collected)
                    if cut:
                        why = await self._sandbox.end(self)
                        cut = (why or cut) if cut == "died" else cut
                except BaseException:
                    self._sandbox.abandon(self)
                    raise
                if not self._live:
                    lost = self._sandbox.lost
                    how = f"lost while a block ran: {lost}" if lost else "closed while a block ran"
                    raise SandboxError(f"the sandbox was {how}")
                text, whole = collected.finish()
                seconds = time.perf_counter() - started
            if cut in SESSION_ENDING_CUTS:
                self.forget()
            elif not whole:
                cut = "output"
            return Execution(output=text, cut=cut, seconds=seconds)

    async def clone(self) -> ProcessSession:
        """A second session with the same names, random state and files.

        Threads are not cloned, and memory that the session has mapped from a file as shared stays
        shared. Raises SandboxError, also if the session does not answer within the deadline.
        """
        with self._alone():
            return await self._sandbox.clone(self)

    async def close(self) -> None:
        """Kill the session. Closing it again does nothing."""
        try:
            await self._sandbox.end(self)
        finally:
            self.forget()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self._require_live()
        if self._busy:
            raise SandboxError("the sandbox session is still running another block")
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def _require_live(self) -> None:
        if not self._live:
            why = self._sandbox.lost
            what = f"sandbox was lost: {why}" if why else "sandbox session is gone"
            raise SandboxError(f"the {what}")

    async def _run(self, code: str, collected: _Output) -> Cut:
        loop = asyncio.get_running_loop()
        ended = self._ended = loop.create_future()
        payload = code.encode("utf-8", "surrogatepass")
        loop.add_reader(self._output, self._read, loop, collected)
        deadline = self._sandbox.config.deadline
        timer = loop.call_later(deadline, self._too_late)
        try:
            self._token = secrets.token_bytes(wire.TOKEN_BYTES)
            self._due = time.monotonic() + deadline
            self._sandbox.deadlines.note(self.slot, self._due, self._token)
            header = wire.HEADER.pack(wire.RUN, self._token, len(payload))
            await self._send(header + payload, ended)
            if self._live:
                loop.add_reader(self._fd, self._hear)
            kind = await ended
        finally:
            timer.cancel()
            if self._live:
                loop.remove_reader(self._fd)
                loop.remove_reader(self._output)
        return _CUTS.get(kind, "died")

    async def _send(self, data: bytes, ended: asyncio.Future[bytes]) -> None:
        """Send a message to the session; stops early if the session ends or its time is up."""
        pause = _SHORTEST_PAUSE
        while data and not ended.done():
            try:
                data = data[self._socket.send(data) :]
                pause = _SHORTEST_PAUSE
            except BlockingIOError:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            except ConnectionError:
                return

    def _read(self, loop: asyncio.AbstractEventLoop, collected: _Output) -> None:
        collected.read()
        if collected.closed:
            # Otherwise the loop would call back again and again.
            loop.remove_reader(self._output)

    def _hear(self) -> None:
        """Read the message that ends a block. Any other message ends the session."""
        if self._ended is None or self._ended.done():
            return
        # In this order: the supervisor takes a block without an answer and with a note for overdue.
        self._sandbox.deadlines.erase(self.slot)
        message = b""
        try:
            message = self._socket.recv(wire.ANSWER_BYTES)
        except BlockingIOError:
            self._sandbox.deadlines.note(self.slot, self._due, self._token)
            return
        except ConnectionError:
            pass
        if message[1:] != self._token:
            # Until the session has been killed.
            self._sandbox.deadlines.note(self.slot, self._due, self._token)
            message = _GONE
        self._resolve(message[:1])

    def _too_late(self) -> None:
        # The event loop itself may have been held up, long after the end of the block.
        self._hear()
        self._resolve(_LATE)

    def _resolve(self, kind: bytes) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(kind)

    def send_clone(self, fds: list[int]) -> bytes:
        """Ask the session to fork a copy that takes over `fds`.

        Returns the token that the copy will answer with. Raises SandboxError.
        """
        token = secrets.token_bytes(wire.TOKEN_BYTES)
        try:
            socket.send_fds(self._socket, [wire.HEADER.pack(wire.CLONE, token, 0)], fds)
        except OSError as error:
            raise SandboxError(f"the sandbox session is gone: {error}") from error
        return token

    def send_place(self, folder: str, fds: list[int]) -> None:
        """Tell a copy which folder and namespaces are its own. Raises SandboxError."""
        header = wire.HEADER.pack(wire.PLACE, bytes(wire.TOKEN_BYTES), len(folder.encode()))
        # Before the copy can answer: the kernel adds the sender's id when a message is sent.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        try:
            socket.send_fds(self._socket, [header + folder.encode()], fds)
        except OSError as error:
            raise SandboxError("the sandbox session could not be cloned") from error

    async def await_copy(self, token: bytes) -> int:
        """Wait until a new copy answers.

        Returns its process id as the kernel reports it, in the PID namespace of this process.
        Raises SandboxError.
        """
        loop = asyncio.get_running_loop()
        answered = asyncio.Event()
        loop.add_reader(self._fd, answered.set)
        try:
            async with asyncio.timeout(self._sandbox.config.deadline):
                await answered.wait()
            message, ancillary, _, _ = self._socket.recvmsg(wire.ANSWER_BYTES, _CREDENTIALS_SPACE)
        except (OSError, TimeoutError):
            message, ancillary = b"", []
        finally:
            if self._live:
                loop.remove_reader(self._fd)
        if message != wire.CLONED + token:
            raise SandboxError("the sandbox session could not be cloned")
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        pids = [_CREDENTIALS.unpack(data)[0] for _, kind, data in ancillary if kind == _FROM]
        return int(pids[0]) if pids else 0

    @contextlib.contextmanager
    def child_ends(self) -> Iterator[tuple[int, int, int]]:
        """The descriptors that the session's process takes over, and this end of its socket.

        This process closes the former afterwards.
        """
        try:
            yield self._their_socket.fileno(), self._their_output, self._fd
        finally:
            self._their_socket.close()
            os.close(self._their_output)

    def forget(self) -> None:
        """Close the owner's descriptors. This does not kill the session's process."""
        if not self._live:
            return
        self._live = False
        self._sandbox.deadlines.give_back(self.slot)
        with contextlib.suppress(RuntimeError):
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._fd)
            loop.remove_reader(self._output)
        self._socket.close()
        os.close(self._output)
        self._resolve(_GONE)


class _Output:
    """Keeps the first `limit` characters that come out of a pipe; reads and drops the rest."""

    def __init__(self, fd: int, limit: int) -> None:
        self._fd = fd
        self._limit = limit
        self._room = 4 * limit
        self._parts: list[bytes] = []
        self._dropped = False
        self.closed = False
        """Whether nothing can come any more."""

    def read(self) -> int:
        """Read what is there, at most one chunk; returns its size in bytes."""
        try:
            chunk = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return 0
        except OSError:
            chunk = b""
        self.closed = not chunk
        if self._room > 0 and chunk:
            self._parts.append(chunk[: self._room])
        self._dropped |= len(chunk) > self._room
        self._room = max(self._room - len(chunk), 0)
        return len(chunk)

    def finish(self) -> tuple[str, bool]:
        """Read the rest from the pipe; returns the text, and whether it is whole."""
        # Not until the pipe is empty: a process that was left behind may go on writing.
        taken = 0
        while taken < _MAX_PIPE and (n := self.read()):
            taken += n
        text = b"".join(self._parts).decode("utf-8", "replace")
        whole = not self._dropped and len(text.rstrip()) <= self._limit
        return text[: self._limit].rstrip(), whole
