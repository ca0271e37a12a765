"""Sessions per second of one core, of this checkout and of an earlier commit in turns.

    python benchmarks/sandbox_before.py REVISION [--sessions 300] [--rounds 14]

Each round starts a fresh process for each version and level, in alternating order: it runs
sessions one after another (start, print(1+1), end), pinned to one core with all that it starts.
The rates of two rounds differ more than those of two versions, so the ratio is taken within a
round. Use a quiet machine: the process of another program on the same core halves a rate.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

HERE = Path(__file__).resolve().parents[1]
LEVELS = ("namespace", "process")
WARM_UP = 30
ONE_PROCESS = """
import asyncio, os, sys, time
source, level, sessions, core, warm_up = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
sys.path.insert(0, source)
os.sched_setaffinity(0, {core})
import scdpo
assert scdpo.__file__.startswith(source), scdpo.__file__
from scdpo.sandbox import ProcessSandbox, SandboxConfig

async def rate(sandbox, n):
    begin = time.perf_counter()
    for _ in range(n):
        session = await sandbox.session()
        assert (await session.run("print(1+1)")).output == "2"
        await session.close()
    return n / (time.perf_counter() - begin)

async def main(sandbox):
    await rate(sandbox, warm_up)
    return await rate(sandbox, sessions)

with ProcessSandbox(SandboxConfig(level=level, parallel=1)) as sandbox:
    print(asyncio.run(main(sandbox)))
"""


def one_rate(source: Path, level: str, sessions: int) -> float:
    """Sessions per second of the package in `source`, in a process of its own."""
    core = max(os.sched_getaffinity(0))
    arguments = [str(source), level, str(sessions), str(core), str(WARM_UP)]
    # Elsewhere than in the checkout, whose own package would be found first.
    done = subprocess.run(
        [sys.executable, "-c", ONE_PROCESS, *arguments],
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout)


def main(
    revision: Annotated[str, typer.Argument(help="The earlier commit.")],
    sessions: Annotated[int, typer.Option(min=1)] = 300,
    rounds: Annotated[int, typer.Option(min=1)] = 14,
) -> None:
    """Measure, and print a table."""
    table = Table("level", f"{revision} (sessions/s)", "now (sessions/s)", "now / before")
    with tempfile.TemporaryDirectory() as folder:
        git = ["git", "-C", str(HERE), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", folder, revision], check=True)
        try:
            versions = {"before": Path(folder) / "src", "now": HERE / "src"}
            for level in LEVELS:
                rates: dict[str, list[float]] = {"before": [], "now": []}
                for i in track(range(rounds), level):
                    for name in sorted(versions, reverse=bool(i % 2)):
                        rates[name].append(one_rate(versions[name], level, sessions))
                ratio = median(
                    now / before for before, now in zip(rates["before"], rates["now"], strict=True)
                )
                before, now = (median(rates[name]) for name in ("before", "now"))
                table.add_row(level, f"{before:.1f}", f"{now:.1f}", f"{ratio:.3f}")
        finally:
            subprocess.run([*git, "remove", "--force", folder], check=True)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
