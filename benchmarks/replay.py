"""Executes recorded solutions again and counts the outputs that come out the same.

    python benchmarks/replay.py ../shared/data/solutions [--file NAME] [--show 3] [--limit N]

Reads two layouts: MathCoder's (`debug_result`, a list of blocks with roles) and ToRA's (`code`,
a fenced text, whose outputs are what the program printed). Prints, per file, blocks, the share
reproduced, and how many of the rest fall under each reason.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from scdpo.errors import DataError
from scdpo.sandbox import ProcessSandbox, SandboxConfig, normalise_output, same_output

EMPTY = "<empty_execution>"
ERROR_LINE = re.compile(
    r"^(?:[\w.]*\.)?([A-Z]\w*(?:Error|Exception|Interrupt|NonUnique|Singular))\b", re.M
)
FENCED = re.compile(r"```python\n(.*?)```(?:\s*```output\n(.*?)```)?", re.S)
RECORDED_TIMEOUT = re.compile(r"Timeout waiting for reply|TimeoutError: 'Timed Out'")


class Block(NamedTuple):
    code: str
    output: str


class Replayed(NamedTuple):
    """A block, what it printed this time and why that differs; empty when it does not."""

    solution: int
    block: Block
    output: str
    reason: str


def main(
    folder: Annotated[Path, typer.Argument(help="Folder with the recorded *.jsonl files.")],
    file: Annotated[str, typer.Option(help="Only files whose name contains this.")] = "",
    limit: Annotated[int, typer.Option(help="Solutions per file; 0 for all.")] = 0,
    show: Annotated[int, typer.Option(help="Examples to print per reason.")] = 0,
    parallel: Annotated[int, typer.Option(help="Sessions at the same time.")] = 2,
    deadline: Annotated[float, typer.Option(help="Seconds a block may run.")] = 10.0,
) -> None:
    """Replay every file and print the table."""
    paths = sorted(p for p in folder.glob("*.jsonl") if file in p.name)
    if not paths:
        raise DataError("no recorded solutions (*.jsonl) here", path=folder)
    config = SandboxConfig(deadline=deadline, parallel=parallel, output_chars=1_000_000)
    results: dict[str, list[Replayed]] = {}
    started = time.perf_counter()
    with ProcessSandbox(config) as sandbox, Progress(console=Console(stderr=True)) as progress:
        print(f"isolation: {sandbox.isolation}")
        for path in paths:
            solutions = list(read_solutions(path))[: limit or None]
            task = progress.add_task(path.stem, total=len(solutions))
            advance = lambda task=task: progress.advance(task)  # noqa: E731
            results[path.stem] = asyncio.run(replay(sandbox, solutions, parallel, advance))
    print_table(results, time.perf_counter() - started)
    if show:
        print_examples(results, show)


def read_solutions(path: Path) -> Iterator[list[Block]]:
    """The executed blocks of each row of a file."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            row = json.loads(line)
            if "debug_result" in row:
                yield _mathcoder_blocks(row["debug_result"])
            elif "code" in row:
                yield [Block(*pair) for pair in FENCED.findall(row["code"][0])]
            else:
                raise DataError("neither `debug_result` nor `code` in this row", path, number)


def _mathcoder_blocks(messages: list[dict[str, str]]) -> list[Block]:
    return [
        Block(code["content"], "" if reply["content"] == EMPTY else reply["content"])
        for code, reply in pairwise(messages)
        if code["role"] == "code" and reply["role"] == "execution"
    ]


async def replay(
    sandbox: ProcessSandbox,
    solutions: list[list[Block]],
    parallel: int,
    advance: Callable[[], None],
) -> list[Replayed]:
    """Run every solution in a session of its own, `parallel` of them at a time."""
    waiting = iter(enumerate(solutions))
    done: list[Replayed] = []

    async def work() -> None:
        for index, blocks in waiting:
            done.extend(await replay_solution(sandbox, index, blocks))
            advance()

    await asyncio.gather(*(work() for _ in range(parallel)))
    return sorted(done, key=lambda r: r.solution)


async def replay_solution(
    sandbox: ProcessSandbox, index: int, blocks: list[Block]
) -> list[Replayed]:
    """The blocks of one solution, run one after another in a fresh session."""
    session = await sandbox.session()
    replayed: list[Replayed] = []
    lost = False
    for block in blocks:
        if lost:
            # The recording kernel answered nothing more either, once it was stuck.
            stuck = RECORDED_TIMEOUT.search(block.output)
            reason = "" if stuck else "after a block that was killed"
            replayed.append(Replayed(index, block, "", reason))
            continue
        execution = await session.run(block.code)
        lost = execution.cut in ("deadline", "memory", "died")
        reason = why_different(block.output, execution.output, execution.cut)
        replayed.append(Replayed(index, block, execution.output, reason))
    await session.close()
    return replayed


def why_different(recorded: str, output: str, cut: str) -> str:
    """The reason under which a difference is counted; empty when there is none."""
    if RECORDED_TIMEOUT.search(recorded):
        return "" if cut == "deadline" else "recorded timed out"
    if cut:
        return f"cut: {cut}"
    if same_output(recorded, output):
        return ""
    then, now = error_name(recorded), error_name(output)
    if then and now:
        return "other error text" if then == now else "other error"
    if then or now:
        return f"only recorded fails: {then}" if then else f"only now fails: {now}"
    return "other value"


def error_name(output: str) -> str:
    """The kind of exception an output ends in, or nothing."""
    names = ERROR_LINE.findall(normalise_output(output))
    return names[-1] if names else ""


def print_table(results: dict[str, list[Replayed]], seconds: float) -> None:
    table = Table("file", "solutions", "blocks", "reproduced", "the rest")
    table.columns[0].no_wrap = table.columns[4].no_wrap = True
    every = [r for rows in results.values() for r in rows]
    for name, rows in [*results.items(), ("all", every)]:
        reasons = Counter(r.reason for r in rows if r.reason)
        same = sum(1 for r in rows if not r.reason)
        share = f"{100 * same / max(len(rows), 1):.2f} %"
        rest = "\n".join(f"{n} {reason}" for reason, n in reasons.most_common())
        solutions = "" if name == "all" else str(len({r.solution for r in rows}))
        table.add_row(name, solutions, str(len(rows)), share, rest)
    Console(width=120).print(table)
    print(f"{seconds:.0f} s")


def print_examples(results: dict[str, list[Replayed]], show: int) -> None:
    by_reason: dict[str, list[tuple[str, Replayed]]] = defaultdict(list)
    for name, rows in results.items():
        for row in rows:
            if row.reason:
                by_reason[row.reason].append((name, row))
    for reason, rows_ in sorted(by_reason.items()):
        for name, row in rows_[:show]:
            print(f"\n===== {reason}: {name}, solution {row.solution}\n{row.block.code}")
            print(f"--- recorded\n{normalise_output(row.block.output)[:1500]}")
            print(f"--- now\n{normalise_output(row.output)[:1500]}")


if __name__ == "__main__":
    typer.run(main)
