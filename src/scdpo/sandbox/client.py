"""The owner's side: starts the zygote, and asks it to open and end sessions."""

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
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import scdpo
from scdpo.errors import SandboxError
from scdpo.sandbox import files, wire
from scdpo.sandbox.config import SandboxConfig
from scdpo.sandbox.session import ProcessSession

_START_SECONDS = 120.0
_REPLY_SECONDS = 30.0
_MORE_SECONDS = 1.0
_MAX_ASKED = 128
"""Requests under way; a socket holds more than twice as many."""
_PACKAGE_FOLDERS = ("site-packages", "dist-packages")


class ProcessSandbox:
    """Sessions forked from one warm process; implements `scdpo.sandbox.base.Sandbox`.

    The constructor starts that process and waits until it has imported everything (about a
    second). Raises SandboxError where it cannot start, or cannot keep the promise of the level
    that the config names. Use from one event loop at a time. docs/sandbox.md has the threat model.
    """

    level: str
    """The level of `SandboxConfig.level`."""
    lost: str
    """Why it has ended without having been closed; empty while it has not."""
    isolation: str
    """The level and what it consists of here, such as `namespace: user+mount+pid+…+seccomp`."""

    def __init__(self, config: SandboxConfig | None = None) -> None:
        self.config = config or SandboxConfig()
        if not sys.platform.startswith("linux"):
            raise SandboxError(f"the sandbox runs on Linux only, not on {sys.platform}")
        self.level = self.config.level
        self._folder: Path | None = None
        if self.level == "process":
            self._folder = Path(tempfile.mkdtemp(prefix="scdpo-sandbox-"))
        self._numbers = itertools.count(1)
        self._ids = itertools.count(1)
        self._sessions: dict[int, ProcessSession] = {}
        self._replies: dict[int, asyncio.Future[Reply]] = {}
        self._opening = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self.lost = ""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = self._launch(theirs.fileno())
        try:
            self.isolation = f"{self.level}: {'+'.join(self._await_start())}"
        except BaseException:
            self.close()
            raise
        self._control.setblocking(False)

    async def session(self) -> ProcessSession:
        """A fresh session, seeded and empty. Raises SandboxError."""
        with self._slot() as number:
            session = ProcessSession(self, number)
            try:
                with session.child_ends() as fds:
                    await self._request("start", number, fds)
            except BaseException:
                self.abandon(session)
                raise
            self._sessions[number] = session
            return session

    def close(self) -> None:
        """Kill every session and the warm process, and remove their folder; twice is fine."""
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
        for waiting in self._replies.values():
            if not waiting.done():
                waiting.set_exception(SandboxError(f"the sandbox was {how}"))
        self._replies.clear()
        if self._folder is not None:
            files.remove(str(self._folder))

    def __enter__(self) -> ProcessSandbox:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> ProcessSandbox:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def _launch(self, fd: int) -> subprocess.Popen[bytes]:
        config = self.config
        package = str(Path(scdpo.__file__).parents[1])
        settings = {
            "owner": os.getpid(),
            "level": config.level,
            "folder": str(self._folder),
            "package": package,
            # The owner's packages, wherever PYTHONPATH and the like led to; not his other folders.
            "packages": [p for p in sys.path if Path(p).name in _PACKAGE_FOLDERS],
            "network": config.network == "allow",
            "preload": config.preload,
            "memory": config.memory_mb << 20,
            "tmp": config.tmp_mb << 20,
            "processes": config.processes,
        }
        boot = (
            f"import sys; sys.path.insert(0, {package!r})\n"
            "from scdpo.sandbox.boot import main\n"
            f"import json; sys.path.pop(0); main({fd}, json.loads({json.dumps(settings)!r}))"
        )
        # -I would ignore the hash seed, which fixes the order of sets.
        return subprocess.Popen(
            [sys.executable, "-s", "-P", "-B", "-c", boot],
            env=_bare_environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(fd,),
            start_new_session=True,
        )

    def _await_start(self) -> list[str]:
        """Wait for the supervisor's first message; returns what the isolation consists of."""
        ready = _ready(self._control, select.POLLIN, _START_SECONDS)
        packet = self._control.recv(wire.MAX_PACKET) if ready else b""
        stderr = self._process.stderr
        assert stderr is not None
        if not packet:
            self._process.kill()
            said = stderr.read().decode(errors="replace").strip().splitlines()
            raise SandboxError(f"the sandbox did not start: {said[-1] if said else 'no answer'}")
        stderr.close()
        reply = json.loads(packet)
        if "error" in reply:
            raise SandboxError(f"no sandbox of level {self.level} here: {reply['error']}")
        return list(reply["parts"])

    @contextlib.contextmanager
    def _slot(self) -> Iterator[int]:
        """A number for a session that is about to open. Raises SandboxError when there is none."""
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
        """Make the running event loop the one that hears replies and holds the locks."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._replies.clear()
            self._asking = asyncio.Semaphore(_MAX_ASKED)
            self._running = asyncio.Semaphore(self.config.parallel or os.cpu_count() or 1)
            loop.add_reader(self._control.fileno(), self._hear)

    def running(self) -> asyncio.Semaphore:
        """Held by a session while one of its blocks runs."""
        self._bind()
        return self._running

    def _hear(self) -> None:
        """Hand replies to those who wait for them."""
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
        reply = json.loads(packet)
        if "lost" in reply:
            self.lost = reply["lost"]
            return
        waiting = self._replies.pop(reply["id"], None)
        if waiting is None or waiting.done():
            for fd in fds:
                os.close(fd)
        else:
            waiting.set_result(Reply(reply, fds))

    async def _request(self, do: str, number: int, fds: tuple[int, ...] = (), **more: int) -> Reply:
        """Ask the supervisor and wait for its answer; raises what `_answer` does."""
        self._bind()
        async with self._asking:
            return await self._answer(self._ask(do, number, fds, **more), do)

    def _ask(
        self, do: str, number: int, fds: tuple[int, ...] = (), **more: int
    ) -> asyncio.Future[Reply]:
        """Ask the supervisor; its answer is to be awaited by `_answer`. Raises SandboxError."""
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._replies[self._send(do, number, fds, **more)] = waiting
        return waiting

    async def _answer(self, waiting: asyncio.Future[Reply], do: str) -> Reply:
        """Raises SandboxError, and TimeoutError for a clone, which the session can delay."""
        waits = (self.config.deadline,) if do == "clone" else (_REPLY_SECONDS, _MORE_SECONDS)
        try:
            for seconds in waits:
                await asyncio.wait([waiting], timeout=seconds)
                # The event loop or the machine may have stood still, and the answer be there.
                while not waiting.done() and self._has_answers():
                    self._hear()
                if waiting.done():
                    break
        except BaseException:
            if not waiting.cancel() and waiting.exception() is None:
                for fd in waiting.result().fds:
                    os.close(fd)
            raise
        if not waiting.done():
            waiting.cancel()
            if do == "clone":
                raise TimeoutError
            self.lost = "no answer"
            self.close()
            raise SandboxError(f"the sandbox was lost: {self.lost}")
        reply = waiting.result()
        if "error" in reply.message:
            raise SandboxError(f"the sandbox could not {do} a session: {reply.message['error']}")
        return reply

    def _has_answers(self) -> bool:
        return not self._closed and _ready(self._control, select.POLLIN, 0)

    def _send(self, do: str, number: int, fds: tuple[int, ...] = (), **more: int) -> int:
        if self._closed:
            raise SandboxError("the sandbox is closed")
        sent = next(self._ids)
        packet = json.dumps({"id": sent, "do": do, "session": number, **more}).encode()
        try:
            _ready(self._control, select.POLLOUT, _REPLY_SECONDS)
            socket.send_fds(self._control, [packet], list(fds))
        except OSError as error:
            self.close()
            raise SandboxError(f"the sandbox was lost: {error}") from error
        return sent

    def abandon(self, session: ProcessSession) -> None:
        """Have a session killed without waiting for it, as where the waiting was cancelled."""
        self._sessions.pop(session.number, None)
        session.forget()
        if not self._closed:
            with contextlib.suppress(SandboxError):
                self._send("end", session.number)

    async def end(self, session: ProcessSession) -> str:
        """Kill a session; when this returns, nothing of it is left.

        Returns `memory` where the supervisor had ended it for that, else nothing.
        """
        if self._sessions.pop(session.number, None) is None or self._closed:
            return ""
        try:
            reply = await self._request("end", session.number)
        except SandboxError:
            # What could not be killed one by one dies with the supervisor.
            self.close()
            raise
        return str(reply.message.get("why", ""))

    async def clone(self, session: ProcessSession) -> ProcessSession:
        """See `ProcessSession.clone`."""
        with self._slot() as number:
            copy = ProcessSession(self, number)
            try:
                async with self._asking:
                    # The copy's place is made while the session forks.
                    asked = self._ask("clone", number, of=session.number)
                    try:
                        with copy.child_ends() as fds:
                            token = session.send_clone(fds)
                    except BaseException:
                        asked.cancel()
                        raise
                    place = await self._answer(asked, "clone")
                try:
                    copy.send_place(str(place.message["folder"]), place.fds)
                finally:
                    for fd in place.fds:
                        os.close(fd)
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
    """What the supervisor answered, and the descriptors that came with it."""

    message: dict[str, Any]
    fds: list[int]


def _ready(sock: socket.socket, event: int, seconds: float) -> bool:
    """Wait until a socket can be read or written to; `select` knows no descriptors above 1,023."""
    poll = select.poll()
    poll.register(sock, event)
    return bool(poll.poll(1000 * seconds))


def _bare_environment() -> dict[str, str]:
    """What Python itself needs, with one thread for numpy so that forking it is safe."""
    threads = ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR")
    env = {f"{library}_NUM_THREADS": "1" for library in threads}
    env |= {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "LC_ALL": "C.UTF-8"}
    if "LD_LIBRARY_PATH" in os.environ:
        env["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return env
