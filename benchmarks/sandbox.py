"""What sessions of the sandbox cost, beside Jupyter kernels.

    python benchmarks/sandbox.py [--sessions 750] [--rounds 15] [--blocks 2000] [--clones 150]

First everything on one core: this process and all that it starts are pinned to it. In each round
every level runs sessions one after another (start, one block, end), then blocks and clones in a
live session; a Jupyter kernel per program does the same in between. Then the levels once more on
all cores, as many sessions at a time as there are cores. Needs the extra `bench`.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated, Protocol, get_args

import typer
from jupyter_kernel import JupyterKernel
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from scdpo.errors import SandboxError
from scdpo.sandbox import Level, ProcessSandbox, SandboxConfig, Session

JUPYTER = "Jupyter kernel"
SYMPY, IMPORTS, TRIVIAL = "sympy's solve", "imports", "print(1+1)"
PROGRAMS = {
    SYMPY: (
        "import numpy, sympy\n"
        "from sympy import symbols, solve\n"
        "x = symbols('x')\n"
        "print(solve(x**2 - 5*x + 6, x))",
        "[2, 3]",
    ),
    IMPORTS: ("import numpy, sympy\nprint(sympy.Rational(1, 3) + 1)", "4/3"),
    TRIVIAL: ("print(1+1)", "2"),
}
"""A program and what it prints."""
SOLUTION = """
import numpy as np
from sympy import Eq, Rational, expand, simplify, solve, sqrt, symbols
nickels, dimes = symbols('nickels dimes', positive=True)
coins = solve([Eq(nickels + dimes, 30), Eq(5*nickels + 10*dimes, 230)], [nickels, dimes])
x = symbols('x')
roots = solve(x**3 - 6*x**2 + 11*x - 6, x)
product = expand((x + 2)**6 - (x - 2)**6)
share = simplify((sqrt(8) + sqrt(18)) / sqrt(2) * Rational(3, 7))
table = np.arange(12).reshape(3, 4) @ np.ones(4)
total = sum(3 + 4*k for k in range(40))
print(coins, roots, product, share, table.sum(), total)
"""
"""Code in the manner of recorded solutions, written for this."""
SHOWN = "total, share"
REPLAYS_PER_ROUND = 10

START, FIRST, NEXT = "session()", "session(), first block", "next block"
CLONE, CLONE_NEXT = "clone()", "clone(), next block"
REPLAY = "session(), same code, next block"
MEASURES = (START, FIRST, NEXT, CLONE, CLONE_NEXT, REPLAY)


class Results:
    """Rates (sessions a second) and times (milliseconds), by executor and what was measured."""

    def __init__(self) -> None:
        self.rates: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        self.times: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.isolation: dict[str, str] = {}
        self.refused: dict[str, str] = {}

    def executors(self) -> list[str]:
        """Every level, in the order of its strength, and Jupyter."""
        return [*get_args(Level), JUPYTER]

    @contextmanager
    def timed(self, executor: str, measure: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.times[executor, measure].append(1000 * (time.perf_counter() - begin))


class Runs(Protocol):
    """Advances the progress bar."""

    def __call__(self) -> None: ...


def open_levels(stack: ExitStack, results: Results, parallel: int) -> dict[str, ProcessSandbox]:
    """A sandbox for each level that is to be had here; the others are noted as refused."""
    sandboxes = {}
    for level in get_args(Level):
        try:
            sandbox = ProcessSandbox(SandboxConfig(level=level, parallel=parallel))
        except SandboxError as error:
            results.refused[level] = str(error)
            continue
        sandboxes[level] = stack.enter_context(sandbox)
        results.isolation[level] = sandbox.isolation
    return sandboxes


async def run_checked(session: Session, code: str, wanted: str) -> None:
    """Run a block that must print `wanted`; what prints something else is not worth timing."""
    execution = await session.run(code)
    if execution.cut or execution.output != wanted:
        raise SandboxError(f"a block printed {execution.output!r} ({execution.cut or 'whole'})")


async def one_session(sandbox: ProcessSandbox, program: str, results: Results | None) -> None:
    """Start a session, run a program in it and end it."""
    begin = time.perf_counter()
    session = await sandbox.session()
    started = time.perf_counter()
    await run_checked(session, *PROGRAMS[program])
    ran = time.perf_counter()
    await session.close()
    if results is not None and program == TRIVIAL:
        results.times[sandbox.level, START].append(1000 * (started - begin))
        results.times[sandbox.level, FIRST].append(1000 * (ran - begin))


async def sessions_per_second(
    sandbox: ProcessSandbox, program: str, n: int, workers: int, results: Results | None = None
) -> float:
    """The rate of `n` sessions, `workers` of them at a time."""
    left = iter(range(n))

    async def work() -> None:
        for _ in left:
            await one_session(sandbox, program, results)

    begin = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(workers)))
    return n / (time.perf_counter() - begin)


async def blocks_and_clones(
    sandbox: ProcessSandbox, results: Results, blocks: int, clones: int
) -> None:
    """One round of blocks in a live session, of its clones, and of replays instead of clones."""
    level = sandbox.level
    session = await sandbox.session()
    for i in range(blocks):
        with results.timed(level, NEXT):
            await run_checked(session, f"{i}+1", f"{i + 1}")
    await session.close()

    session = await sandbox.session()
    await session.run(SOLUTION)
    shown = (await session.run(SHOWN)).output
    for _ in range(clones):
        with results.timed(level, CLONE_NEXT):
            with results.timed(level, CLONE):
                copy = await session.clone()
            await run_checked(copy, SHOWN, shown)
        await copy.close()
    await session.close()
    for _ in range(min(clones, REPLAYS_PER_ROUND)):
        with results.timed(level, REPLAY):
            fresh = await sandbox.session()
            await fresh.run(SOLUTION)
            await run_checked(fresh, SHOWN, shown)
        await fresh.close()


async def one_kernel(results: Results, program: str, blocks: int) -> None:
    """Start a kernel, run a program in it and end it; between the last two, untimed, blocks."""
    code, wanted = PROGRAMS[program]
    begin = time.perf_counter()
    kernel = await JupyterKernel().start()
    started = time.perf_counter()
    printed = await kernel.run(code)
    seconds = time.perf_counter() - begin
    if printed != wanted:
        raise SandboxError(f"the Jupyter kernel printed {printed!r}")
    if program == TRIVIAL:
        results.times[JUPYTER, START].append(1000 * (started - begin))
        results.times[JUPYTER, FIRST].append(1000 * seconds)
        for i in range(blocks):
            with results.timed(JUPYTER, NEXT):
                await kernel.run(f"{i}+1")
    begin = time.perf_counter()
    await kernel.stop()
    seconds += time.perf_counter() - begin
    results.rates[JUPYTER, program, "one"].append(1 / seconds)


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Keep every thread of this process, and what they start, on one core."""
    before = os.sched_getaffinity(0)
    _set_cores({core})
    try:
        yield
    finally:
        _set_cores(before)


def _set_cores(cores: set[int]) -> None:
    for task in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)


def share(n: int, rounds: int) -> int:
    """How many of `n` fall into each round."""
    return max(math.ceil(n / rounds), 1)


@contextmanager
def progress_bar(name: str, steps: int) -> Iterator[Runs]:
    """A bar that is drawn between measurements only, so that it takes no time from them."""
    with Progress(console=Console(stderr=True), auto_refresh=False) as progress:
        task = progress.add_task(name, total=steps)

        def advance() -> None:
            progress.advance(task)
            progress.refresh()

        yield advance


async def on_one_core(
    results: Results, rounds: int, sessions: int, blocks: int, kernel_blocks: int, clones: int
) -> None:
    """All executors in turn, in every round."""
    with ExitStack() as stack:
        sandboxes = open_levels(stack, results, 1)
        for sandbox in sandboxes.values():
            for program in PROGRAMS:
                await one_session(sandbox, program, None)
        steps = rounds * (len(PROGRAMS) * (len(sandboxes) + 1) + len(sandboxes))
        advance = stack.enter_context(progress_bar("one core", steps))
        for _ in range(rounds):
            for program in PROGRAMS:
                for level, sandbox in sandboxes.items():
                    n = share(sessions, rounds)
                    rate = await sessions_per_second(sandbox, program, n, 1, results)
                    results.rates[level, program, "one"].append(rate)
                    advance()
                await one_kernel(results, program, share(kernel_blocks, rounds))
                advance()
            for sandbox in sandboxes.values():
                await blocks_and_clones(
                    sandbox, results, share(blocks, rounds), share(clones, rounds)
                )
                advance()


async def on_all_cores(results: Results, rounds: int, sessions: int, cores: int) -> None:
    """The levels in turn, as many sessions at a time as there are cores."""
    with ExitStack() as stack:
        sandboxes = open_levels(stack, results, cores)
        steps = rounds * len(PROGRAMS) * len(sandboxes)
        advance = stack.enter_context(progress_bar("all cores", steps))
        for _ in range(rounds):
            for program in PROGRAMS:
                for level, sandbox in sandboxes.items():
                    n = share(sessions, rounds)
                    rate = await sessions_per_second(sandbox, program, n, cores)
                    results.rates[level, program, "all"].append(rate)
                    advance()


def rate_table(results: Results, cores: int) -> Table:
    """Sessions a second, the median of the rounds and the best of them; beside Jupyter, the median
    of what each round gives."""
    table = Table("sessions/s", "program", title="started, one block run, ended", title_style="")
    for heading in ("one core", "best", "× Jupyter", f"{cores} cores", "best"):
        table.add_column(heading, justify="right")
    for executor in results.executors():
        if executor in results.refused:
            table.add_row(executor, "not to be had")
            continue
        for program in PROGRAMS:
            one = results.rates[executor, program, "one"]
            every = results.rates[executor, program, "all"]
            kernels = results.rates[JUPYTER, program, "one"]
            times = median(a / b for a, b in zip(one, kernels, strict=True))
            cells = [f"{median(one):.2f}", f"{max(one):.2f}", f"{times:.0f}"]
            cells += [f"{median(every):.2f}", f"{max(every):.2f}"] if every else ["–", "–"]
            table.add_row(executor, program, *cells)
    return table


def time_table(results: Results) -> Table:
    """Milliseconds on one core; of less than a hundred samples no 99th percentile is given."""
    table = Table("milliseconds, one core", "", title_style="")
    for heading in ("median", "p99", "samples", "Jupyter ÷"):
        table.add_column(heading, justify="right")
    for measure in MEASURES:
        for executor in results.executors():
            times = sorted(results.times.get((executor, measure), []))
            if executor in results.refused:
                table.add_row(measure, executor, "not to be had")
            elif times:
                kernel = results.times.get((JUPYTER, measure))
                ratio = f"{median(kernel) / median(times):.0f}" if kernel else "–"
                p99 = f"{times[math.ceil(0.99 * len(times)) - 1]:.2f}" if len(times) > 99 else "–"
                table.add_row(
                    measure, executor, f"{median(times):.2f}", p99, str(len(times)), ratio
                )
        table.add_section()
    return table


def main(
    sessions: Annotated[int, typer.Option(help="Sessions per level and program.")] = 750,
    rounds: Annotated[int, typer.Option(help="Rounds; one kernel per program in each.")] = 15,
    blocks: Annotated[int, typer.Option(help="Blocks in live sessions, per level.")] = 2000,
    kernel_blocks: Annotated[int, typer.Option(help="Blocks in live kernels.")] = 100,
    clones: Annotated[int, typer.Option(help="Clones per level.")] = 150,
    core: Annotated[int, typer.Option(help="The core to use alone; -1 for the last.")] = -1,
) -> None:
    """Measure and print both tables."""
    results = Results()
    cores = sorted(os.sched_getaffinity(0))
    alone = cores[-1] if core < 0 else core
    started = time.perf_counter()
    with pinned(alone):
        asyncio.run(on_one_core(results, rounds, sessions, blocks, kernel_blocks, clones))
    asyncio.run(on_all_cores(results, rounds, sessions, len(cores)))
    for level in get_args(Level):
        refused = f"{level}: not to be had: {results.refused.get(level)}"
        print(results.isolation.get(level, refused))
    console = Console(width=110)
    console.print(rate_table(results, len(cores)))
    console.print(time_table(results))
    print(f"core {alone}; {rounds} rounds; {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    typer.run(main)
