"""The owner's side: starts the zygote, and asks it to open and end sessions."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

import scdpo
from scdpo.errors import SandboxError
from scdpo.sandbox import wire
from scdpo.sandbox.session import ProcessSession

_START_SECONDS = 120.0
_REPLY_SECONDS = 30.0


class SandboxConfig(BaseModel):
    """Limits of a session and what it is cut off from.

    `deadline`: wall-clock seconds a block may run. `memory_mb`: address space (MiB) each of a
    session's processes may take beyond the bare interpreter. `file_mb`: size of a written file.
    `output_chars`: characters of output that are kept, the first ones. `max_sessions`: live
    sessions; one more is an error. `parallel`: blocks that run at the same time, by default one
    per core, so that deadlines do not depend on how many sessions wait. `network`: `allow` leaves
    the host's network reachable. `namespaces: false` does not even try them and relies on the
    seccomp filter. `preload`: modules that every session finds imported already.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    deadline: float = Field(default=10.0, gt=0)
    memory_mb: int = Field(default=1024, ge=16)
    file_mb: int = Field(default=64, ge=1)
    output_chars: int = Field(default=10_000, ge=1)
    max_sessions: int = Field(default=256, ge=1)
    parallel: int | None = Field(default=None, ge=1)
    network: Literal["deny", "allow"] = "deny"
    namespaces: bool = True
    preload: tuple[str, ...] = (
        *("math", "cmath", "random", "itertools", "functools", "collections", "fractions"),
        *(
            "decimal",
            "statistics",
            "datetime",
            "re",
            "json",
            "numpy",
            "numpy.random",
            "numpy.linalg",
        ),
        # What sympy itself would import at the first `solve` or `integrate`, a quarter of a second.
        *("sympy", "sympy.physics.units", "sympy.combinatorics", "sympy.integrals.heurisch"),
        *("sympy.integrals.manualintegrate", "sympy.integrals.risch", "sympy.polys.polymatrix"),
        *("sympy.sets.handlers.functions", "sympy.sets.handlers.issubset", "sympy.tensor.tensor"),
    )


class ProcessSandbox:
    """Sessions forked from one warm process; implements `scdpo.sandbox.base.Sandbox`.

    The constructor starts that process and waits until it has imported everything (about a
    second). Raises SandboxError where it cannot start, or cannot withhold the network although
    it should. Use from one event loop at a time.

    Not covered: code reads and writes files as the owner's user may, sessions can signal each
    other, memory and disk are capped per process and file and not in total, and the number of
    processes is not capped for root.
    """

    isolation: str
    """What the kernel granted, such as `user+pid+ipc+net+seccomp`."""

    def __init__(self, config: SandboxConfig | None = None) -> None:
        self.config = config or SandboxConfig()
        if not sys.platform.startswith("linux"):
            raise SandboxError(f"the sandbox runs on Linux only, not on {sys.platform}")
        self._folder = Path(tempfile.mkdtemp(prefix="scdpo-sandbox-"))
        self._numbers = itertools.count(1)
        self._ids = itertools.count(1)
        self._sessions: dict[int, ProcessSession] = {}
        self._opening = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = self._launch(theirs.fileno())
        try:
            self.isolation = self._await_zygote()
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
        self._control.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        shutil.rmtree(self._folder, ignore_errors=True)

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
        settings = {
            "owner": os.getpid(),
            "folder": str(self._folder),
            "network": config.network == "allow",
            "namespaces": config.namespaces,
            "preload": config.preload,
            "memory": config.memory_mb << 20,
            "file_size": config.file_mb << 20,
            "processes": config.max_sessions + 256,
        }
        boot = (
            f"import sys; sys.path.insert(0, {str(Path(scdpo.__file__).parents[1])!r})\n"
            "from scdpo.sandbox.zygote import main\n"
            f"import json; sys.path.pop(0); main({fd}, json.loads({json.dumps(settings)!r}))"
        )
        # -I would ignore the hash seed, which fixes the order of sets.
        return subprocess.Popen(
            [sys.executable, "-s", "-P", "-B", "-c", boot],
            env=_bare_environment(),
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(fd,),
            start_new_session=True,
        )

    def _await_zygote(self) -> str:
        """Wait for the zygote's first message; returns the isolation obtained."""
        ready, _, _ = select.select([self._control], [], [], _START_SECONDS)
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
            raise SandboxError(f"the sandbox did not start: {reply['error']}")
        return str(reply["isolation"])

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
        """Make the locks belong to the running event loop."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._requests = asyncio.Lock()
            self._running = asyncio.Semaphore(self.config.parallel or os.cpu_count() or 1)

    def running(self) -> asyncio.Semaphore:
        """Held by a session while one of its blocks runs."""
        self._bind()
        return self._running

    async def _request(self, do: str, number: int, fds: tuple[int, ...] = (), **more: int) -> None:
        """Ask the zygote and wait for its answer. Raises SandboxError."""
        self._bind()
        async with self._requests:
            sent = self._send(do, number, fds, **more)
            try:
                async with asyncio.timeout(_REPLY_SECONDS):
                    reply: dict[str, Any] = {"id": 0}
                    while reply["id"] < sent:
                        loop = asyncio.get_running_loop()
                        packet = await loop.sock_recv(self._control, wire.MAX_PACKET)
                        if not packet:
                            raise ConnectionResetError("it has ended")
                        reply = json.loads(packet)
            except (OSError, TimeoutError) as error:
                self.close()
                raise SandboxError(f"the sandbox was lost: {error or 'no answer'}") from error
        if "error" in reply:
            raise SandboxError(f"the sandbox could not {reply['error']}")

    def _send(self, do: str, number: int, fds: tuple[int, ...] = (), **more: int) -> int:
        if self._closed:
            raise SandboxError("the sandbox is closed")
        sent = next(self._ids)
        packet = json.dumps({"id": sent, "do": do, "session": number, **more}).encode()
        try:
            select.select([], [self._control], [], _REPLY_SECONDS)
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

    async def end(self, session: ProcessSession) -> None:
        """Kill a session; when this returns, nothing of it is left."""
        if self._sessions.pop(session.number, None) is None or self._closed:
            return
        try:
            await self._request("end", session.number)
        except SandboxError:
            # What could not be killed one by one dies with the PID namespace.
            self.close()
            raise

    async def clone(self, session: ProcessSession) -> ProcessSession:
        """See `ProcessSession.clone`."""
        with self._slot() as number:
            copy = ProcessSession(self, number)
            try:
                with copy.child_ends() as fds:
                    await self._request("expect", number)
                    session.send_clone(fds, str(self._folder / str(number)))
                pid = await copy.receive_pid()
                await self._request("adopt", number, pid=pid)
            except BaseException:
                self.abandon(copy)
                raise
            self._sessions[number] = copy
            return copy


def _bare_environment() -> dict[str, str]:
    """What Python itself needs, with one thread for numpy so that forking it is safe."""
    threads = ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR")
    env = {f"{library}_NUM_THREADS": "1" for library in threads}
    env |= {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "LC_ALL": "C.UTF-8"}
    if "LD_LIBRARY_PATH" in os.environ:
        env["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return env
