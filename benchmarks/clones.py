"""Is a cloned session in the state that a replay of its blocks gives?

    python benchmarks/clones.py ../shared/data/solutions [--solutions 500] [--level process]

Recorded solutions of two blocks and more, evenly from all files. Session A runs the first k
blocks, k at random, and is cloned; session B runs the same k blocks afresh. Then both run the
rest and a block that dumps their state: names, files, random state and more. All of it must be
equal. In two cases of three A is closed as soon as it is cloned; in the third it goes on by turns
with its copy, after another copy has spoiled all it can reach, and is compared with B as well.
Where there is a difference, the solution is replayed once more: what two replays do not agree on
is no fault of the copy's and is counted apart. Exit code 1 where anything else differs.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from replay import Block, read_solutions
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from state_probe import PROBE, VANDAL, differences

from scdpo.errors import DataError
from scdpo.sandbox import Level, ProcessSandbox, SandboxConfig, Session

INTERLEAVED = 3
"""One case in so many lets the original go on beside its copies."""
GONE = ("deadline", "memory", "died")


@dataclass(frozen=True, slots=True)
class Case:
    """A recorded solution, cut behind its first `k` blocks."""

    file: str
    row: int
    blocks: tuple[str, ...]
    k: int
    interleaved: bool

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}, after block {self.k} of {len(self.blocks)}"


@dataclass(slots=True)
class Outcome:
    """What differed, and how long the clone and the replay of the same blocks took."""

    case: Case
    ended_early: str = ""
    copy: list[str] = field(default_factory=list)
    original: list[str] = field(default_factory=list)
    unsteady: bool = False
    clone_ms: float = 0.0
    replay_ms: float = 0.0


class Trace:
    """The outputs of a session's blocks, and at the end its state."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.shown: list[tuple[str, str]] = []

    async def run(self, code: str) -> bool:
        """Run a block and keep what it showed; False where the session has ended with it."""
        if self.gone:
            return False
        execution = await self.session.run(code)
        self.shown.append((execution.cut, execution.output))
        return not self.gone

    @property
    def gone(self) -> bool:
        return bool(self.shown) and self.shown[-1][0] in GONE

    async def run_all(self, blocks: tuple[str, ...]) -> None:
        for block in blocks:
            await self.run(block)

    def compare(self, found: Trace, first: int) -> list[str]:
        """How another trace differs from this one, the replayed; it began at block `first`."""
        wanted = self.shown[first:]
        said = [
            f"block {first + i + 1}: replayed {a!r}, cloned {b!r}"
            for i, (a, b) in enumerate(zip(wanted[:-1], found.shown[:-1], strict=False))
            if a != b
        ]
        if len(wanted) != len(found.shown):
            return [*said, f"{len(wanted)} blocks replayed, {len(found.shown)} cloned"]
        if self.gone and found.gone:
            last_a, last_b = wanted[-1], found.shown[-1]
            return said if last_a == last_b else [*said, f"replayed {last_a}, cloned {last_b}"]
        return said + differences(wanted[-1][1], found.shown[-1][1])


def choose(folder: Path, n: int, seed: int) -> list[Case]:
    """About as many cases of every file, where it has them. Raises DataError."""
    draw = random.Random(seed)
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        raise DataError("no recorded solutions (*.jsonl) here", path=folder)
    rows: dict[str, list[tuple[int, list[Block]]]] = {}
    for path in paths:
        numbered = enumerate(read_solutions(path), 1)
        rows[path.stem] = [(i, blocks) for i, blocks in numbered if len(blocks) > 1]
        draw.shuffle(rows[path.stem])
    cases: list[Case] = []
    while len(cases) < n and any(rows.values()):
        for file, left in rows.items():
            if left and len(cases) < n:
                row, blocks = left.pop()
                k = draw.randint(1, len(blocks) - 1)
                codes = tuple(block.code for block in blocks)
                cases.append(Case(file, row, codes, k, draw.randrange(INTERLEAVED) == 0))
    return cases


async def replayed(sandbox: ProcessSandbox, case: Case) -> tuple[Trace, float]:
    """Every block in a fresh session, then the probe; the milliseconds of the first k."""
    begin = time.perf_counter()
    trace = Trace(await sandbox.session())
    await trace.run_all(case.blocks[: case.k])
    ms = 1000 * (time.perf_counter() - begin)
    await trace.run_all((*case.blocks[case.k :], PROBE))
    await trace.session.close()
    return trace, ms


async def check(sandbox: ProcessSandbox, case: Case) -> Outcome:
    """Clone and replay one solution and compare what both became."""
    outcome = Outcome(case)
    original = Trace(await sandbox.session())
    await original.run_all(case.blocks[: case.k])
    if original.gone:
        outcome.ended_early = original.shown[-1][0]
        return outcome
    begin = time.perf_counter()
    copy = Trace(await original.session.clone())
    outcome.clone_ms = 1000 * (time.perf_counter() - begin)
    rest = (*case.blocks[case.k :], PROBE)
    if case.interleaved:
        vandal = await original.session.clone()
        await vandal.run(VANDAL)
        for i, block in enumerate(rest):
            for trace in (copy, original) if i % 2 else (original, copy):
                await trace.run(block)
        await vandal.close()
        await original.session.close()
    else:
        await original.session.close()
        await copy.run_all(rest)
    await copy.session.close()

    fresh, outcome.replay_ms = await replayed(sandbox, case)
    outcome.copy = fresh.compare(copy, case.k)
    if case.interleaved:
        outcome.original = fresh.compare(original, 0)
    if outcome.copy or outcome.original:
        again, _ = await replayed(sandbox, case)
        outcome.unsteady = bool(fresh.compare(again, 0))
    return outcome


async def check_all(sandbox: ProcessSandbox, cases: list[Case], parallel: int) -> list[Outcome]:
    """All cases, `parallel` of them at a time; differences are printed as they are found."""
    waiting = iter(cases)
    outcomes: list[Outcome] = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("solutions", total=len(cases))

        async def work() -> None:
            for case in waiting:
                outcome = await check(sandbox, case)
                outcomes.append(outcome)
                print_differences(outcome)
                progress.advance(task)

        await asyncio.gather(*(work() for _ in range(parallel)))
    return outcomes


def print_differences(outcome: Outcome) -> None:
    kind = "two replays differ too; " if outcome.unsteady else ""
    for whose, said in (("copy", outcome.copy), ("original", outcome.original)):
        for line in said:
            print(f"{outcome.case}: {kind}{whose}: {line}", flush=True)


def summary(outcomes: list[Outcome]) -> Table:
    """A row a file: how many cases, and in how many copy and original were as replayed."""
    table = Table("file")
    headings = ("cases", "copy = replay", "originals beside", "unaffected", "ended early")
    for heading in (*headings, "replays differ"):
        table.add_column(heading, justify="right")
    files = sorted({outcome.case.file for outcome in outcomes})
    for file in [*files, "all"]:
        those = [o for o in outcomes if file in (o.case.file, "all")]
        compared = [o for o in those if not o.ended_early and not o.unsteady]
        beside = [o for o in compared if o.case.interleaved]
        early = Counter(o.ended_early for o in those if o.ended_early)
        table.add_row(
            file,
            str(len(those)),
            percent(sum(not o.copy for o in compared), len(compared)),
            str(len(beside)),
            percent(sum(not o.original for o in beside), len(beside)),
            ", ".join(f"{n} {cut}" for cut, n in early.items()) or "0",
            str(sum(o.unsteady for o in those)),
        )
    return table


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "–"


def main(
    folder: Annotated[Path, typer.Argument(help="Folder with the recorded *.jsonl files.")],
    solutions: Annotated[int, typer.Option(help="Recorded solutions to check.")] = 500,
    level: Annotated[Level, typer.Option(help="How strongly sessions are isolated.")] = "namespace",
    parallel: Annotated[int, typer.Option(help="Solutions at the same time.")] = 1,
    deadline: Annotated[float, typer.Option(help="Seconds a block may run.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Draws the solutions and where they are cut.")] = 0,
) -> None:
    """Check every case and print the table."""
    cases = choose(folder, solutions, seed)
    config = SandboxConfig(
        level=level, deadline=deadline, parallel=parallel, output_chars=4_000_000
    )
    started = time.perf_counter()
    with ProcessSandbox(config) as sandbox:
        print(sandbox.isolation, flush=True)
        outcomes = asyncio.run(check_all(sandbox, cases, parallel))
    Console(width=120).print(summary(outcomes))
    absent = sorted({p.stem for p in folder.glob("*.jsonl")} - {o.case.file for o in outcomes})
    if absent:
        print(f"nothing of two blocks or more chosen from: {', '.join(absent)}")
    whole = [o for o in outcomes if not o.ended_early]
    if whole:
        clone = median(o.clone_ms for o in whole)
        replay = median(o.replay_ms for o in whole)
        print(f"median: clone {clone:.2f} ms, replay of the same blocks {replay:.2f} ms")
    print(f"{time.perf_counter() - started:.0f} s")
    if any((o.copy or o.original) and not o.unsteady for o in outcomes):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
