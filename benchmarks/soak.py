"""Very many sessions in a row, one in ten of them hostile: what is left behind?

    python benchmarks/soak.py [--sessions 20000] [--level process] [--deadline 0.3]

Hostile programs run in a session alone, in a copy of one, or beside a copy; what shares nothing
with the program must go on. The session after a hostile one, and every other, must start empty
and compute right. The footprint (processes, descriptors, mounts, namespaces, files, memory of
this process and of all below it) is taken before the sandbox starts, after some sessions, after
the last, and when the sandbox is closed. This process adopts orphans, so that nothing gets out of
its sight. Exit code 1 where something was left behind or went wrong. Ctrl-C ends it early; the
table is printed all the same.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Literal

import footprint
import typer
from footprint import Footprint
from hostile import HOSTILE, MARK, Hostile
from rich.console import Console
from rich.table import Table

from scdpo.errors import SandboxError
from scdpo.sandbox import Level, ProcessSandbox, SandboxConfig, Session

LINE = WARM_UP = 500
"""Sessions between two lines of progress, and before the footprint that the last is held to."""
HOSTILE_IN = 10
CLONED_IN = 20
MEMORY_ALLOWED = 16 << 20
"""Bytes that a process which lives all along may grow after the warm-up."""
SHOWN = 40
"""Lines at most of what was left behind and what went wrong."""

EMPTY = "import os\nprint(sorted(os.listdir('.')), 'mine' in globals())\nmine = 1"
GOOD = (
    (EMPTY, "[] False"),
    ("mine += 41\nmine", "42"),
    ("from sympy import solve, symbols\nx = symbols('x')\nsolve(x**2 - 5*x + 6, x)", "[2, 3]"),
    ("_ = open('file', 'w').write('kept')\nprint(open('file').read(), mine)", "kept 42"),
)
"""Blocks and what they print, in a fresh session."""
ALIVE = ("print(mine + 1)", "2")

Way = Literal["alone", "in a copy", "beside a copy"]
Attacks = Iterator[tuple[Hostile, Way]]


@dataclass(slots=True)
class Log:
    """What came of the sessions."""

    sessions: int = 0
    late: int = 0
    failures: list[str] = field(default_factory=list)
    cuts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    longest: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    good_ms: list[float] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    stopped: str = ""

    def hostile(self) -> int:
        return sum(cuts.total() for cuts in self.cuts.values())


class Late(Exception):
    """A block that takes milliseconds met the deadline: so may it on a machine held up."""


async def expect(session: Session, code: str, wanted: str) -> None:
    """Raises SandboxError when a block prints something else or is cut, Late at the deadline."""
    execution = await session.run(code)
    if execution.cut == "deadline":
        raise Late(f"{code!r} met the deadline")
    if execution.cut or execution.output != wanted:
        said = execution.output[-200:]
        raise SandboxError(f"{code!r} was cut ({execution.cut or 'not'}) and printed {said!r}")


async def good(sandbox: ProcessSandbox, cloned: bool) -> None:
    """A session that must start empty and compute right, and so must its copy."""
    async with AsyncExitStack() as open_ones:
        session = await opened(open_ones, sandbox.session())
        for block in GOOD[:2] if cloned else GOOD:
            await expect(session, *block)
        if cloned:
            copy = await opened(open_ones, session.clone())
            for either in (copy, session):
                for block in GOOD[2:]:
                    await expect(either, *block)


async def opened(stack: AsyncExitStack, coming: Awaitable[Session]) -> Session:
    """A session that the stack closes."""
    session = await coming
    stack.push_async_callback(session.close)
    return session


async def hostile(sandbox: ProcessSandbox, program: Hostile, way: Way, log: Log) -> None:
    """Run a hostile program; the other of session and copy must not notice.

    Raises SandboxError where it does.
    """
    try:
        async with AsyncExitStack() as open_ones:
            victim = await opened(open_ones, sandbox.session())
            await expect(victim, EMPTY, "[] False")
            other = None
            if way != "alone":
                other = await opened(open_ones, victim.clone())
            if other is not None and way == "in a copy":
                victim, other = other, victim
            log.cuts[program.name][await outcome(victim, program, log, open_ones)] += 1
            if other is not None:
                await expect(other, *ALIVE)
    except SandboxError as error:
        raise SandboxError(f"{program.name!r} {way}: {error}") from error


async def outcome(victim: Session, program: Hostile, log: Log, open_ones: AsyncExitStack) -> str:
    """How the program ended; where the session survives it is cloned, live threads and all."""
    begin = time.perf_counter()
    try:
        execution = await victim.run(program.code)
    except SandboxError as error:
        log.failures.append(f"{program.name!r}: {error}")
        return "error"
    seconds = time.perf_counter() - begin
    log.longest[program.name] = max(log.longest[program.name], seconds)
    if execution.cut not in ("", "output"):
        return execution.cut
    try:
        await opened(open_ones, victim.clone())
    except SandboxError:
        return f"{execution.cut or 'ended'}, not cloned"
    return execution.cut or "ended"


def chosen(level: str, named: str) -> list[Hostile]:
    """The programs for a level that have `named` in their name. Raises BadParameter."""
    those = [p for p in HOSTILE if named in p.name and (level == "namespace" or not p.own_pids)]
    if not those:
        raise typer.BadParameter(f"no program for the level {level} has {named!r} in its name")
    return those


def endless(programs: list[Hostile], draw: random.Random) -> Attacks:
    """Every program in every way, in random order, again and again."""
    ways: tuple[Way, ...] = ("alone", "in a copy", "beside a copy")
    those = [(program, way) for program in programs for way in ways]
    while True:
        yield from draw.sample(those, len(those))


async def chunk(
    sandbox: ProcessSandbox, n: int, attacks: Attacks, draw: random.Random, log: Log
) -> None:
    """Run `n` sessions; a sandbox that starts none any more ends it."""
    turn, failed = 0, len(log.failures)
    for i in range(n):
        if i % HOSTILE_IN == 0:
            # Never the last of its ten: a good one follows.
            turn = i + draw.randrange(HOSTILE_IN - 1)
        log.sessions += 1
        if i == turn:
            await judged(log, partial(hostile, sandbox, *next(attacks), log))
        else:
            begin = time.perf_counter()
            cloned = draw.randrange(CLONED_IN) == 0
            await judged(log, partial(good, sandbox, cloned=cloned))
            log.good_ms.append(1000 * (time.perf_counter() - begin))
        if len(log.failures) > failed:
            failed = len(log.failures)
            try:
                await (await sandbox.session()).close()
            except SandboxError as error:
                log.stopped = f"the sandbox starts no session any more: {error}"
                return


async def judged(log: Log, play: Callable[[], Awaitable[None]]) -> None:
    """Note what goes wrong; what was late is played again, and must not be late twice."""
    try:
        try:
            await play()
        except Late:
            log.late += 1
            await play()
    except (SandboxError, Late) as error:
        log.failures.append(f"session {log.sessions}: {error}")


def soak(
    sandbox: ProcessSandbox, sessions: int, attacks: Attacks, draw: random.Random, log: Log
) -> Iterator[None]:
    """All sessions; yields after the warm-up. A line now and then says how far it is."""
    started = time.monotonic()
    warm_up = min(WARM_UP, sessions // 2)
    while log.sessions < sessions and not log.stopped:
        n = LINE if log.sessions else warm_up
        asyncio.run(chunk(sandbox, min(n, sessions - log.sessions), attacks, draw, log))
        recent = median(log.good_ms[-n:]) if log.good_ms else 0
        print(
            f"{log.sessions} sessions, {log.hostile()} hostile, {len(log.failures)} failed, "
            f"{recent:.1f} ms a good one, {time.monotonic() - started:.0f} s",
            file=sys.stderr,
        )
        if log.sessions == warm_up:
            yield


def watched(
    config: SandboxConfig, sessions: int, programs: list[Hostile], seed: int, log: Log
) -> dict[str, Footprint]:
    """The footprints around a soak, in a temporary folder of its own."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        tempfile.tempdir = folder

        def take() -> Footprint:
            footprint.reap()
            return footprint.measure(Path(folder), MARK)

        taken = {"before": take()}
        with ProcessSandbox(config) as sandbox:
            print(sandbox.isolation, file=sys.stderr)
            taken["started"] = footprint.settled(take)
            try:
                for _ in soak(sandbox, sessions, endless(programs, draw), draw, log):
                    taken["warm"] = footprint.settled(take)
            except KeyboardInterrupt:
                log.stopped = "interrupted"
            taken["at the end"] = footprint.settled(take)
        taken["closed"] = footprint.settled(take)
        log.left = [footprint.describe(pid) for pid in footprint.descendants()]
        log.left += sorted(taken["closed"].mounts - taken["before"].mounts)
        log.left += [str(path) for path in Path(folder).rglob("*")]
    for path in footprint.files_elsewhere(MARK):
        log.left.append(str(path))
        with suppress(OSError):
            path.unlink()
    footprint.end_everything_below()
    return taken


def memory(first: Footprint, last: Footprint) -> dict[str, tuple[int, int]]:
    """Resident bytes then and now: this process, and that below it which grew most of those that
    lived all along."""
    lived = first.resident.keys() & last.resident.keys() - {os.getpid()}
    pairs = [(first.resident[pid], last.resident[pid]) for pid in lived]
    found = {"own": (first.resident[os.getpid()], last.resident[os.getpid()])}
    if pairs:
        found["below, grown most"] = max(pairs, key=lambda pair: (pair[1] - pair[0], pair[1]))
    return found


def print_footprints(taken: dict[str, Footprint]) -> list[str]:
    """The table of all footprints; returns what leaked."""
    leaks: list[str] = []
    table = Table("", title="footprint", title_style="")
    for heading in (*taken, ""):
        table.add_column(heading, justify="right")
    held_to = {"at the end": "warm" if "warm" in taken else "started", "closed": "before"}
    for name in taken["before"].counts:
        more = [
            f"{taken[late].counts[name] - taken[early].counts[name]:+d} {late}"
            for late, early in held_to.items()
            if taken[late].counts[name] > taken[early].counts[name]
        ]
        leaks += [f"{name}: {said}" for said in more]
        cells = [str(one.counts[name]) for one in taken.values()]
        table.add_row(name, *cells, ", ".join(more) or "none left")
    if "warm" in taken:
        for whose, (then, now) in memory(taken["warm"], taken["at the end"]).items():
            more_mib = f"{(now - then) / 2**20:+.1f}"
            if now - then > MEMORY_ALLOWED:
                leaks.append(f"memory, {whose}: {more_mib} MiB")
            cells = ["", "", f"{then / 2**20:.1f}", f"{now / 2**20:.1f}", ""]
            table.add_row(f"memory, {whose}, MiB", *cells, more_mib)
    table.add_section()
    for name in taken["before"].machine:
        cells = [str(one.machine[name]) for one in taken.values()]
        table.add_row(f"machine: {name}", *cells, "not judged")
    Console(width=120).print(table)
    return leaks


def print_hostile(log: Log) -> None:
    table = Table("hostile program", "how it ended", title="hostile", title_style="")
    table.add_column("runs", justify="right")
    table.add_column("longest, s", justify="right")
    for name in sorted(log.cuts):
        ended = ", ".join(f"{n} {cut}" for cut, n in log.cuts[name].most_common())
        table.add_row(name, ended, str(log.cuts[name].total()), f"{log.longest[name]:.2f}")
    Console(width=120).print(table)


def main(
    sessions: Annotated[int, typer.Option(help="Sessions in all.")] = 20_000,
    level: Annotated[Level, typer.Option(help="How strongly sessions are isolated.")] = "namespace",
    deadline: Annotated[float, typer.Option(help="Seconds a block may run.")] = 0.3,
    seed: Annotated[int, typer.Option(help="Draws the programs and their order.")] = 0,
    program: Annotated[str, typer.Option(help="Only programs whose name contains this.")] = "",
) -> None:
    """Run the sessions and print what is left."""
    programs = chosen(level, program)
    config = SandboxConfig(level=level, deadline=deadline, memory_mb=256, tmp_mb=16, processes=64)
    footprint.adopt_orphans()
    log = Log()
    taken = watched(config, sessions, programs, seed, log)
    print_hostile(log)
    leaks = print_footprints(taken)
    for line in [*(f"left: {one}" for one in log.left), *log.failures][:SHOWN]:
        print(line)
    print(
        f"{log.sessions} sessions, {log.hostile()} of them hostile; "
        f"{len(log.failures)} failed, {log.late} late; "
        f"leaked: {', '.join(leaks) or 'nothing'}" + (f"; {log.stopped}" if log.stopped else "")
    )
    if leaks or log.failures:
        raise typer.Exit(1)
    if log.stopped:
        raise typer.Exit(130)


if __name__ == "__main__":
    typer.run(main)
