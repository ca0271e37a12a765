"""Plays one attack through the public interface."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from attacks import host
from attacks.attack import Attack, Step
from scdpo.errors import SandboxError
from scdpo.sandbox import Execution, ProcessSandbox, ProcessSession

HANG = 5.0
"""Seconds after which a call that does not return is given up."""
_MOMENT = 0.25
_LONG_LIST = 600
_LOOKS = 20


class Hang(Exception):
    """A call of the sandbox did not return."""


class Stage:
    """The sessions of one attack, and the times, outputs and complaints that come of them."""

    def __init__(
        self, sandbox: ProcessSandbox, kit: str, beside: Callable[[], Awaitable[None]]
    ) -> None:
        self.sandbox = sandbox
        self.kit = kit
        self.beside = beside
        self.slowest = 0.0
        self.cut = ""
        self.outputs: list[str] = []
        self.complaints: list[str] = []
        self.sessions: dict[str, ProcessSession] = {}

    def expect(self, condition: bool, complaint: str) -> None:
        if not condition:
            self.complaints.append(complaint)

    async def play(self, attack: Attack) -> None:
        """Run an attack to its end and judge its outputs; everything it opened is closed."""
        for _ in range(attack.times):
            try:
                await self._steps(attack)
                await asyncio.sleep(attack.pause)
                if self.cut in ("", "output"):
                    # While the hostile session lives, everyone else must be able to work.
                    await self.beside()
            finally:
                for session in self.sessions.values():
                    await self._timed(session.close())
                self.sessions.clear()
        for text in ("SUCCEEDED", *attack.never):
            for output in self.outputs:
                # A traceback shows the line that would have said it.
                said = [line for line in output.splitlines() if text in line]
                lines = [line for line in said if f"'{text}'" not in line]
                self.expect(not lines, f"said {lines[:5]}"[:_LONG_LIST])

    async def _steps(self, attack: Attack) -> None:
        self.sessions["source"] = await self._open()
        hostile = [n for n, step in enumerate(attack.steps) if step.what in ("", "copy")]
        for n, step in enumerate(attack.steps):
            if n == hostile[-1]:
                await self._last(attack, step)
            else:
                await self._step(step, must_clone=attack.clones)

    async def _step(self, step: Step, *, must_clone: bool) -> None:
        match step.what:
            case "" | "copy":
                await self._try_run(step.what or "source", step.code)
            case "other":
                await self._other(step.code)
            case "clone":
                await self._clone("source", "copy", must=must_clone)
            case "clone copy":
                await self._clone("copy", "second", must=must_clone)
            case "descend":
                await self._clone("source", "copy", must=must_clone)
                if "copy" in self.sessions:
                    await self._close("source")
                    self.sessions["source"] = self.sessions.pop("copy")
            case "close":
                await self._close("source")
            case "close copy":
                await self._close("copy")
            case "wait":
                await asyncio.sleep(_MOMENT)

    async def _clone(self, name: str, copy: str, *, must: bool) -> None:
        if name not in self.sessions:
            return
        await self._close(copy)
        try:
            self.sessions[copy] = await self._timed(self.sessions[name].clone())
        except SandboxError as error:
            self.expect(not must, f"could not be cloned: {error}")
        await self.beside()

    async def _close(self, name: str) -> None:
        """Close a session; what it has named after itself must be gone with it."""
        if name in self.sessions:
            await self._timed(self.sessions.pop(name).close())
            # Those that were killed may take a moment to be gone.
            for _ in range(_LOOKS):
                left = [who for who in host.descendants().values() if who.startswith(f"of {name}")]
                if not left:
                    break
                await asyncio.sleep(0.01)
            self.expect(not left, f"left of the {name} when it was closed: {left}")

    async def _last(self, attack: Attack, step: Step) -> None:
        """Run the block that matters, while the sessions beside it work too."""
        name = step.what or "source"
        if name == "copy" and name not in self.sessions:
            self.expect(not attack.clones, "there is no copy")
            return
        code = "print('started')\n" + step.code + ("\nprint('end')" if attack.ends else "")
        last, _ = await asyncio.gather(self._try_run(name, code), self.beside())
        if last is None:
            self.expect("gone" in attack.cuts, "the session was gone before the last block")
            self.cut = "gone"
            return
        said = repr(last.output[-_LONG_LIST:])
        self.expect(last.cut in attack.cuts, f"cut {last.cut!r}: {said}")
        # What an earlier block has broken may keep this one from beginning.
        excused = "gone" in attack.cuts
        self.expect("started" in last.output or excused, f"did not start: {said}")
        if last.cut == "" and "started" in last.output:
            for text in (*(["end"] if attack.ends else []), *attack.says):
                self.expect(text in last.output, f"did not say {text!r}: {said}")

    async def _other(self, code: str) -> None:
        """A session that has nothing to do with the attack must be able to do its work."""
        session = await self._open()
        self.sessions["other"] = session
        execution = await self._run(session, code + "\nprint('end')")
        self.expect(
            execution.cut == "" and execution.output.endswith("end"),
            f"another session: {execution.cut} {execution.output[-_LONG_LIST:]!r}",
        )
        await self._timed(self.sessions.pop("other").close())

    async def _open(self) -> ProcessSession:
        """A session that has the kit."""
        session: ProcessSession = await self._timed(self.sandbox.session())
        execution = await self._timed(session.run(self.kit))
        if execution.cut or execution.output:
            self.complaints.append(f"kit: {execution.cut} {execution.output[-300:]}")
        return session

    async def _try_run(self, name: str, code: str) -> Execution | None:
        """The execution, or None where the session is gone."""
        if name not in self.sessions:
            return None
        try:
            return await self._run(self.sessions[name], code)
        except SandboxError:
            return None

    async def _run(self, session: ProcessSession, code: str) -> Execution:
        """Run a block, and look at what holds for every execution."""
        started = time.monotonic()
        execution: Execution = await self._timed(session.run(code))
        took = time.monotonic() - started
        self.cut = execution.cut
        self.outputs.append(execution.output)
        execution.output.encode()
        limit = self.sandbox.config.output_chars
        self.expect(len(execution.output) <= limit, f"{len(execution.output)} characters of output")
        self.expect(0 <= execution.seconds <= took + 0.1, f"says it took {execution.seconds} s")
        return execution

    async def _timed(self, call: Awaitable[Any]) -> Any:
        """Await a call, however it ends, and note how long it took. Raises Hang."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(HANG):
                return await call
        except TimeoutError as error:
            raise Hang(f"no answer in {HANG} s") from error
        finally:
            self.slowest = max(self.slowest, time.monotonic() - started)
