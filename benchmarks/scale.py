"""How fast rollouts are scheduled in this process: in lockstep, and freely.

    python benchmarks/scale.py [--prompts 32] [--rounds 7] [--threads 1]

The embedded policy writes solutions in the plain format, where a line is a step and nothing is
executed. The same engine also writes each solution in one request, which is the most that a step
loop can reach. Passes are forward passes that draw tokens; those that only read prompts are not
counted. Rates are medians over rounds that alternate.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Annotated
from unittest.mock import patch

import torch
import typer
from rich.console import Console
from rich.table import Table

from scdpo.engines import LocalEngine, LocalEngineConfig
from scdpo.engines.base import Request
from scdpo.engines.decode import Batch, Decoder
from scdpo.formats import Format, get_format
from scdpo.problems import load_embedded
from scdpo.sampling.driver import drive
from scdpo.sampling.rollout import Limits, Schedule, Task, rollout

LIMITS = Limits(context=512, step_tokens=400)
WAYS = {
    "whole completions": ("free", False),
    "steps, lockstep": ("lockstep", True),
    "steps, free": ("free", True),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """Tokens, seconds and forward passes, and the token ids of each solution."""

    tokens: int
    seconds: float
    passes: int
    ids: list[tuple[int, ...]]


@contextmanager
def counted_passes() -> Iterator[list[int]]:
    """A list of one number: the forward passes since the block began."""
    passes, original = [0], Decoder.feed

    def feed(decoder: Decoder, batch: Batch, tokens: torch.Tensor) -> torch.Tensor:
        passes[0] += 1
        return original(decoder, batch, tokens)

    with patch.object(Decoder, "feed", feed):
        yield passes


def measured(write: Callable[[], list[tuple[int, ...]]]) -> Measured:
    """What it takes to write solutions."""
    with counted_passes() as passes:
        begin = time.perf_counter()
        ids = write()
        seconds = time.perf_counter() - begin
    return Measured(sum(map(len, ids)), seconds, passes[0], ids)


def whole(
    engine: LocalEngine, prompts: list[tuple[int, ...]], format: Format
) -> list[tuple[int, ...]]:
    """Each solution in one request."""
    requests = [
        Request(ids, (), format.end, 1.0, LIMITS.context - len(ids), seed=i)
        for i, ids in enumerate(prompts)
    ]
    return [done.token_ids for done in asyncio.run(engine.generate(requests))]


def in_steps(
    engine: LocalEngine, prompts: list[tuple[int, ...]], format: Format
) -> list[tuple[int, ...]]:
    """Each solution step by step."""
    schedule = Schedule(start=1.0, increment=0, cap=1.0)
    tasks = [Task(ids, schedule, i) for i, ids in enumerate(prompts)]
    rollouts = [rollout(task, format, LIMITS, engine.encode) for task in tasks]
    results = asyncio.run(drive(rollouts, engine, None))
    return [tuple(i for step in r.steps for i in step.token_ids) for r in results]


def main(
    prompts: Annotated[int, typer.Option(min=1)] = 32,
    rounds: Annotated[int, typer.Option(min=1)] = 7,
    threads: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Measure, and print a table."""
    torch.set_num_threads(threads)
    written, asked = get_format("plain"), get_format("blocks")
    runs: dict[str, list[Measured]] = {way: [] for way in WAYS}
    engines = {
        kind: LocalEngine("embedded", LocalEngineConfig(scheduling=kind, cache_mb=64))  # type: ignore[arg-type]
        for kind in ("free", "lockstep")
    }
    problems = load_embedded("train")[:prompts]
    ids = [engines["free"].encode(asked.prompt(p.question), start=True) for p in problems]
    for _ in range(rounds + 1):
        for way, (kind, steps) in WAYS.items():
            engine = engines[kind]
            engine.clear()
            write = in_steps if steps else whole
            runs[way].append(measured(partial(write, engine, ids, written)))
    table = Table("", "tokens", "passes", "tokens/s", "of whole", "same text")
    best = runs["whole completions"][1:]
    for way, all_of in runs.items():
        done = all_of[1:]  # the first one warms up
        share = median(
            (a.tokens / a.seconds) / (b.tokens / b.seconds) for a, b in zip(done, best, strict=True)
        )
        same = sum(a == b for a, b in zip(done[0].ids, runs["steps, lockstep"][1].ids, strict=True))
        rate = median(a.tokens / a.seconds for a in done)
        table.add_row(
            way,
            str(done[0].tokens),
            str(done[0].passes),
            f"{rate:,.0f}",
            f"{share:.2f}",
            f"{same} of {len(ids)}",
        )
    Console().print(table)
    for engine in engines.values():
        engine.close()


if __name__ == "__main__":
    typer.run(main)
