"""The owner's side: starts the supervisor, and asks it to start, clone and end sessions."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from scdpo import waiting
from scdpo.errors import InputError, SandboxError
from scdpo.errors.validation import settings_from_keywords
from scdpo.sandbox.host.base import SESSION_ENDING_CUTS, Cut, Execution
from scdpo.sandbox.host.config import SandboxConfig
from scdpo.sandbox.host.deadlines import Deadlines
from scdpo.sandbox.host.launch import await_start, launch, wait_until_ready
from scdpo.sandbox.host.session import ProcessSession
from scdpo.sandbox.processes import files, wire

_REPLY_SECONDS = 30.0
_MORE_SECONDS = 1.0
_MAX_ASKED = 128
"""Requests under way at a time; a socket holds more than twice as many."""


class Sandbox:
    """Starts sessions by forking one warm process; implements `Sandbox`.

    The constructor starts that process and waits until it has imported everything, which takes
    about a second. It accepts a `SandboxConfig` or the fields of one as keywords:
    `Sandbox(deadline=5)`. Raises InputError for settings that are not accepted, and
    SandboxError if the sandbox cannot start or cannot keep the promises of its level.

    `run` runs blocks in a session of their own and `session` opens a session that stays. Use it
    from one event loop at a time. docs/sandbox.md describes the threat model.
    """

    level: str
    """The level of `SandboxConfig.level`."""
    lost: str
    """Why the sandbox has ended without having been closed; empty while it has not."""
    isolation: str
    """The level and what it consists of on this machine: `namespace: user+mount+pid+…+seccomp`."""

    def __init__(self, config: SandboxConfig | None = None, **settings: Any) -> None:
        self.config = settings_from_keywords(SandboxConfig, config, settings)
        if not sys.platform.startswith("linux"):
            raise SandboxError(f"the sandbox runs on Linux only, not on {sys.platform}")
        self.level = self.config.level
        self._folder = ""
        self._numbers = itertools.count(1)
        self._ids = itertools.count(1)
        self._sessions: dict[int, ProcessSession] = {}
        self._replies: dict[int, asyncio.Future[Reply]] = {}
        self._opening = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self.lost = ""
        try:
            self.deadlines = Deadlines()
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = launch(self.config, theirs.fileno(), self.deadlines.fd)
        except OSError as error:
            raise SandboxError(f"the sandbox did not start: {wire.reason_of(error)}") from error
        try:
            started = await_start(self._process, self._control, self.config)
            self._folder = started.get("folder", "")
            self.isolation = f"{self.level}: {'+'.join(started['parts'])}"
        except BaseException:
            self.close()
            raise
        self._control.setblocking(False)

    def run(self, blocks: Sequence[str]) -> list[Execution]:
        """`run_async` for code without `await`; also works while an event loop is running."""
        return waiting.run(self.run_async(blocks))

    async def run_async(self, blocks: Sequence[str]) -> list[Execution]:
        """Run blocks of code one after another in a new session, which is closed afterwards.

        Returns one execution per block. The blocks after one that ended the session (see
        `SESSION_ENDING_CUTS`) have no output and the cut `not run`. Raises InputError if `blocks`
        is a single string, and SandboxError.
        """
        if isinstance(blocks, str):
            raise InputError("the sandbox runs a list of blocks, not a single string: use [code]")
        executions: list[Execution] = []
        if blocks:
            session = await self.session()
            try:
                for block in blocks:
                    executions.append(await session.run(block))
                    if executions[-1].cut in SESSION_ENDING_CUTS:
                        break
            finally:
                await session.close()
        n_left = len(blocks) - len(executions)
        return executions + [Execution(output="", cut="not run")] * n_left

    async def session(self) -> ProcessSession:
        """Start a fresh session, seeded and empty. Raises SandboxError."""
        with self._slot() as number:
            session = self._new(number)
            try:
                with session.child_ends() as fds:
                    await self._request("start", number, fds, slot=session.slot)
            except BaseException:
                self.abandon(session)
                raise
            self._sessions[number] = session
            return session

    def _new(self, number: int) -> ProcessSession:
        """The owner's side of a session that is about to open. Raises SandboxError."""
        try:
            return ProcessSession(self, number)
        except OSError as error:
            reason = wire.reason_of(error)
            raise SandboxError(f"no descriptors for another sandbox session: {reason}") from error

    def close(self) -> None:
        """Kill every session and all other processes, and delete their folder.

        Closing the sandbox again does nothing.
        """
        if self._closed:
            return
        self._closed = True
        for session in list(self._sessions.values()):
            session.forget()
        self._sessions.clear()
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().remove_reader(self._control.fileno())
        self._control.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        how = f"lost: {self.lost}" if self.lost else "closed"
        for future in self._replies.values():
            if not future.done():
                future.set_exception(SandboxError(f"the sandbox was {how}"))
        self._replies.clear()
        self.deadlines.close()
        if self._folder:
            files.remove(self._folder)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Sandbox:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _slot(self) -> Iterator[int]:
        """The number of a session about to open. Raises SandboxError if there are too many."""
        if self._closed:
            raise SandboxError("the sandbox is closed")
        self._bind()
        if len(self._sessions) + self._opening >= self.config.max_sessions:
            limit = self.config.max_sessions
            raise SandboxError(f"{limit} sandbox sessions are live, the most max_sessions allows")
        self._opening += 1
        try:
            yield next(self._numbers)
        finally:
            self._opening -= 1

    def _bind(self) -> None:
        """Have the running event loop read replies, with semaphores that belong to it."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            # A loop that is blocked by a call of `run` still needs its replies afterwards.
            self._replies = {
                number: reply
                for number, reply in self._replies.items()
                if not reply.get_loop().is_closed()
            }
            self._asking = asyncio.Semaphore(_MAX_ASKED)
            self._running = asyncio.Semaphore(self.config.parallel or os.cpu_count() or 1)
            loop.add_reader(self._control.fileno(), self._hear)

    def running(self) -> asyncio.Semaphore:
        """Held by a session while one of its blocks runs."""
        self._bind()
        return self._running

    def _hear(self) -> None:
        """Hand a reply to the request that waits for it."""
        try:
            packet, fds, _, _ = socket.recv_fds(self._control, wire.MAX_PACKET, 1)
        except BlockingIOError:
            return
        except OSError:
            packet, fds = b"", []
        if not packet:
            self.lost = self.lost or "it has ended"
            self.close()
            return
        message = json.loads(packet)
        if "lost" in message:
            self.lost = message["lost"]
            return
        reply = Reply(message, fds)
        future = self._replies.pop(message["id"], None)
        if future is None:
            reply.discard()
        elif future.get_loop() is asyncio.get_running_loop():
            _settle(future, reply)
        else:
            future.get_loop().call_soon_threadsafe(_settle, future, reply)

    async def _request(self, do: str, number: int, fds: tuple[int, ...] = (), **more: int) -> Reply:
        """Ask the supervisor and wait for its answer. Raises what `_answer` raises."""
        self._bind()
        async with self._asking:
            return await self._answer(self._ask(do, number, fds, **more), do)

    def _ask(
        self, do: str, number: int, fds: tuple[int, ...] = (), **more: int
    ) -> asyncio.Future[Reply]:
        """Ask the supervisor; `_answer` waits for the reply. Raises SandboxError."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._replies[self._send(do, number, fds, **more)] = future
        return future

    async def _answer(self, future: asyncio.Future[Reply], do: str) -> Reply:
        """Wait for a reply. Raises SandboxError, or TimeoutError for a clone that is too slow."""
        waits = (self.config.deadline,) if do == "clone" else (_REPLY_SECONDS, _MORE_SECONDS)
        try:
            for seconds in waits:
                await asyncio.wait([future], timeout=seconds)
                # The answer may have arrived while the event loop or the machine was held up.
                while not future.done() and self._has_answers():
                    self._hear()
                if future.done():
                    break
        except BaseException:
            if not future.cancel() and future.exception() is None:
                future.result().discard()
            raise
        if not future.done():
            future.cancel()
            if do == "clone":
                raise TimeoutError
            self.lost = "no answer"
            self.close()
            raise SandboxError(f"the sandbox was lost: {self.lost}")
        reply = future.result()
        if "error" in reply.message:
            what = "clone" if do == "adopt" else do
            raise SandboxError(f"the sandbox could not {what} a session: {reply.message['error']}")
        return reply

    def _has_answers(self) -> bool:
        return not self._closed and wait_until_ready(self._control, select.POLLIN, 0)

    def _send(self, do: str, number: int, fds: tuple[int, ...] = (), **more: int) -> int:
        if self._closed:
            raise SandboxError("the sandbox is closed")
        sent = next(self._ids)
        request = {"id": sent, "do": do, "session": number, "fds": len(fds), **more}
        packet = json.dumps(request).encode()
        try:
            wait_until_ready(self._control, select.POLLOUT, _REPLY_SECONDS)
            socket.send_fds(self._control, [packet], list(fds))
        except OSError as error:
            self.close()
            raise SandboxError(f"the sandbox was lost: {error}") from error
        return sent

    def abandon(self, session: ProcessSession) -> None:
        """Have a session killed without waiting for its end, such as after a cancellation."""
        self._sessions.pop(session.number, None)
        session.forget()
        if not self._closed:
            with contextlib.suppress(SandboxError):
                self._send("end", session.number)

    async def end(self, session: ProcessSession) -> Cut:
        """Kill a session. When this returns, nothing is left of it.

        Returns the cut if the supervisor had already ended it (`memory` or `deadline`), else "".
        """
        if self._sessions.pop(session.number, None) is None or self._closed:
            return ""
        try:
            reply = await self._request("end", session.number)
        except SandboxError:
            # Sessions that cannot be killed one by one die with the supervisor.
            self.close()
            raise
        why: Cut = reply.message.get("why", "")
        return why

    async def clone(self, session: ProcessSession) -> ProcessSession:
        """See `ProcessSession.clone`."""
        with self._slot() as number:
            copy = self._new(number)
            try:
                async with self._asking:
                    # The supervisor prepares the copy's place while the session forks.
                    with copy.child_ends() as (*fds, own):
                        asked = self._ask(
                            "clone", number, (own,), of=session.number, slot=copy.slot
                        )
                        try:
                            token = session.send_clone(fds)
                        except BaseException:
                            asked.cancel()
                            raise
                    place = await self._answer(asked, "clone")
                if self.level == "namespace" and not place.fds:
                    raise SandboxError("no descriptors for another sandbox session (ulimit -n)")
                try:
                    copy.send_place(str(place.message["folder"]), place.fds)
                finally:
                    place.discard()
                pid = await copy.await_copy(token)
                await self._request("adopt", number, pid=pid)
            except TimeoutError as error:
                self.abandon(copy)
                raise SandboxError("the sandbox session could not be cloned in time") from error
            except BaseException:
                self.abandon(copy)
                raise
            self._sessions[number] = copy
            return copy


class Reply(NamedTuple):
    """An answer of the supervisor, and the descriptors that came with it."""

    message: dict[str, Any]
    fds: list[int]

    def discard(self) -> None:
        """Close the descriptors."""
        for fd in self.fds:
            os.close(fd)


ProcessSandbox = Sandbox
"""The name that says how sessions are isolated: in processes."""


def _settle(future: asyncio.Future[Reply], reply: Reply) -> None:
    if future.done():
        reply.discard()
    else:
        future.set_result(reply)
