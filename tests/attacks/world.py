"""Runs attacks one after another and looks after each whether the host is as it was."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attacks import host
from attacks.attack import Attack
from attacks.stage import Stage
from scdpo.sandbox import ProcessSandbox, ProcessSession, SandboxConfig

KIT = (Path(__file__).parent / "kit.py").read_text()
WATCHDOG = 60
"""Seconds after which an attack that holds up the owner itself is given up."""
_MB = 1 << 20
_OWN_GROWTH = 64 * _MB
_SETTLE = 2.0
_LOOK = 0.01
_PACKAGES = ("numpy", "sympy")
_STANDARD = ("json", "random", "fractions", "decimal", "statistics")


@dataclass
class Result:
    """How one attack went; without complaints it was survived."""

    name: str
    kind: str
    level: str
    user: int
    seconds: float
    cut: str
    lag: float
    complaints: list[str]
    skipped: str = ""

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


class Frozen(Exception):
    """The owner's event loop was held up for long."""


@dataclass(frozen=True)
class Limits:
    """Of the sandbox under attack."""

    deadline: float = 0.5
    memory_mb: int = 128
    tmp_mb: int = 16
    processes: int = 32
    output_chars: int = 10_000
    grace: float = 0.5
    """Seconds past the deadline in which every call must have returned."""


class World:
    """A host, a sandbox under attack with a session beside it, and another sandbox."""

    def __init__(self, level: str, limits: Limits, *, bare: bool) -> None:
        """`bare`: the interpreter has no packages."""
        self.level = level
        self.limits = limits
        self.bare = bare
        self.host = host.Host()
        self.sandbox = self._sandbox()
        self.other = self._sandbox(preload=())
        self.words = self.sandbox.isolation
        self.allowances = self.host.allowances()
        self.ready = False

    def _sandbox(self, **changes: Any) -> ProcessSandbox:
        limits = {name: value for name, value in asdict(self.limits).items() if name != "grace"}
        if self.bare:
            limits["preload"] = _STANDARD
        return ProcessSandbox(SandboxConfig(**{"level": self.level, **limits, **changes}))

    async def prepare(self) -> None:
        """Open the sessions that live beside all attacks, and note the state of everything."""
        self.bystanders = [
            await _Bystander.open(self.sandbox),
            await _Bystander.open(self.other),
        ]
        self.kit = self._kit()
        await self.see_that_a_new_session_works()
        await self._settled(len(host.descendants()))
        self.quiet = len(host.descendants())
        self.memory = host.memory_used()
        self.facts = self.host.facts()
        self.ready = True

    def _kit(self) -> str:
        target = self.host.target()
        target |= asdict(self.limits) | {"level": self.level}
        target["pids"] = [*target["pids"], *host.descendants()]
        target["beside"] = [b.pid for b in self.bystanders]
        target["folders beside"] = [b.folder for b in self.bystanders]
        return KIT.replace("TARGET = {}", f"TARGET = {target!r}")

    async def survive(self, attack: Attack) -> Result:
        """Run one attack and say what it changed."""
        result = Result(attack.name, attack.kind, self.level, os.geteuid(), 0.0, "", 0.0, [])
        if attack.needs and attack.needs not in self.words:
            result.skipped = f"needs {attack.needs}, and there is {self.words}"
            return result
        if self.bare and any(name in step.code for name in _PACKAGES for step in attack.steps):
            result.skipped = "needs packages"
            return result
        if not self.ready:
            await self.prepare()
        signal.signal(signal.SIGALRM, _frozen)
        signal.alarm(WATCHDOG)
        try:
            await self._survive(attack, result)
        except BaseException as error:
            result.complaints.append(f"{type(error).__name__}: {error}"[:300])
            if isinstance(error, KeyboardInterrupt):
                raise
        finally:
            signal.alarm(0)
        if result.complaints:
            # The next attack shall find a whole world.
            self.rebuild()
        return result

    async def _survive(self, attack: Attack, result: Result) -> None:
        stage = Stage(self.sandbox, self.kit, self._beside)
        peak = host.peak_memory()
        async with _Ticker() as ticker:
            try:
                await stage.play(attack)
            except Exception as error:
                stage.complaints.append(f"{type(error).__name__}: {error}"[:600])
        result.complaints = stage.complaints
        result.seconds, result.cut, result.lag = stage.slowest, stage.cut, ticker.worst
        if stage.slowest > self.limits.deadline + self.limits.grace:
            result.complaints.append(f"took {stage.slowest:.2f} s")
        if ticker.worst > self.limits.grace:
            result.complaints.append(f"held the event loop up for {ticker.worst:.2f} s")
        for output in stage.outputs:
            if any(secret in output for secret in self.host.secrets.values()):
                result.complaints.append("a secret was in the output")
        await self._beside()
        await self.see_that_a_new_session_works()
        left = await self._settled(self.quiet)
        if len(left) > self.quiet:
            result.complaints.append(f"left behind: {left}")
        result.complaints += await self._changed()
        if (grown := host.peak_memory() - peak) > _OWN_GROWTH:
            result.complaints.append(f"the owner grew by {grown // _MB} MiB")

    async def _beside(self) -> None:
        """See that the sessions beside the attack work and have their state and files."""
        for bystander in self.bystanders:
            await bystander.look()
        assert self.host.allowances() == self.allowances, "the owner gets less of the kernel"

    async def see_that_a_new_session_works(self) -> None:
        """Raises AssertionError or SandboxError."""
        session = await self.sandbox.session()
        first = await session.run("import os, json, fractions\nos.listdir('.'), 1 + 1")
        assert (first.output, first.cut) == ("([], 2)", ""), f"a new session said {first}"
        second = await session.run("open('x', 'w').write('y'), str(fractions.Fraction(1, 3))")
        assert (second.output, second.cut) == ("(1, '1/3')", ""), f"a new session said {second}"
        await session.close()

    async def _changed(self) -> list[str]:
        """What is not as it was, as soon as nothing is, or after a while."""
        deadline = time.monotonic() + _SETTLE
        while True:
            changed = host.differences(self.facts, self.host.facts())
            if not changed or time.monotonic() > deadline:
                return changed
            await asyncio.sleep(_LOOK)

    async def _settled(self, wanted: int) -> dict[int, str]:
        """Our processes, as soon as there are no more than `wanted`, or after a while."""
        deadline = time.monotonic() + _SETTLE
        while True:
            left = host.descendants()
            if len(left) <= wanted or time.monotonic() > deadline:
                return left
            await asyncio.sleep(_LOOK)

    async def rest(self) -> list[str]:
        """Complaints about what goes on while nothing should."""
        if not self.ready:
            return []
        complaints = []
        before = host.seconds_used()
        await asyncio.sleep(0.3)
        if (used := host.seconds_used() - before) > 0.1:
            complaints.append(f"{used:.2f} s of CPU time in 0.3 s of rest")
        if (grown := host.memory_used() - self.memory) > 2 * _OWN_GROWTH:
            complaints.append(f"{grown // _MB} MiB more than before the attacks")
        return complaints

    def rebuild(self) -> None:
        """Start over with new sandboxes."""
        for sandbox in (self.sandbox, self.other):
            with contextlib.suppress(Exception):
                sandbox.close()
        host.bury()
        self.sandbox = self._sandbox()
        self.other = self._sandbox(preload=())
        self.ready = False

    def close(self) -> list[str]:
        """End everything; what is left of it, as complaints."""
        self.sandbox.close()
        self.other.close()
        canaries = {canary.pid for canary in self.host.canaries}
        deadline = time.monotonic() + _SETTLE
        while left := {p: name for p, name in host.descendants().items() if p not in canaries}:
            if time.monotonic() > deadline:
                break
            time.sleep(_LOOK)
        files = self.host.names(self.host.temporary)
        self.host.close()
        return [f"left when closed: {list(left.values())} {files}"[:600]] if left or files else []


def _frozen(signum: int, frame: object) -> None:
    raise Frozen("the owner hung")


class _Bystander:
    """A session with a secret, which nobody else may notice or disturb."""

    def __init__(self, session: ProcessSession) -> None:
        self.session = session
        self.secret = secrets.token_hex(8)
        self.busy = asyncio.Lock()

    @classmethod
    async def open(cls, sandbox: ProcessSandbox) -> _Bystander:
        bystander = cls(await sandbox.session())
        code = f"import os\nsecret = '{bystander.secret}'\nn = open('own', 'w').write(secret)"
        await bystander.session.run(code)
        said = (await bystander.session.run("os.getpid(), os.getcwd()")).output
        bystander.pid, bystander.folder = eval(said)
        return bystander

    async def look(self) -> None:
        """Raises AssertionError or SandboxError."""
        async with self.busy:
            look = "secret, open('own').read(), os.listdir('.')"
            execution = await self.session.run(look)
        want = f"{(self.secret, self.secret, ['own'])}"
        assert execution.output == want, f"a session beside said {execution}"


class _Ticker:
    """Measures by how much the event loop runs late."""

    worst = 0.0
    _STEP = 0.01

    async def __aenter__(self) -> _Ticker:
        self._task = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _tick(self) -> None:
        while True:
            started = time.monotonic()
            await asyncio.sleep(self._STEP)
            self.worst = max(self.worst, time.monotonic() - started - self._STEP)
