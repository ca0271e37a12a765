"""What the tests of the sandbox share: sessions to run blocks in, and a look at processes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from scdpo.sandbox import Execution, Level, ProcessSandbox, SandboxConfig
from scdpo.sandbox.processes.process_table import ProcessTable

T = TypeVar("T")
LEVELS: list[Level] = ["namespace", "process"]
DEADLINE = 1.0
GRACE = 1.5
"""Seconds past the deadline that a busy machine may take to have a session killed."""


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


@pytest.fixture(scope="module", params=LEVELS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[ProcessSandbox]:
    config = SandboxConfig(level=request.param, deadline=DEADLINE, memory_mb=256)
    with ProcessSandbox(config) as sandbox:
        assert sandbox.level == request.param
        assert sandbox.isolation.startswith(f"{request.param}: ")
        yield sandbox


async def play(sandbox: ProcessSandbox, *blocks: str) -> list[Execution]:
    """The executions of blocks in one session."""
    session = await sandbox.session()
    try:
        return [await session.run(code) for code in blocks]
    finally:
        await session.close()


def last(sandbox: ProcessSandbox, *blocks: str) -> Execution:
    return run(play(sandbox, *blocks))[-1]


def attack(sandbox: ProcessSandbox, code: str) -> tuple[Execution, float]:
    """Run hostile code, then see that a new session works; also the seconds the attack took."""
    started = time.monotonic()
    execution = last(sandbox, code)
    took = time.monotonic() - started
    assert last(sandbox, "1 + 1").output == "2"
    return execution, took


def below_us() -> list[int]:
    """Processes that descend from this one."""
    return ProcessTable().descendants([os.getpid()])


def processes_with(mark: str) -> list[int]:
    """Processes that have `mark` in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in line:
                found.append(int(entry.name))
    return found


def wait_until_gone(mark: str, seconds: float = 5) -> list[int]:
    until = time.monotonic() + seconds
    while (left := processes_with(mark)) and time.monotonic() < until:
        time.sleep(0.05)
    return left


def wait_until_there(mark: str, seconds: float = 5) -> list[int]:
    until = time.monotonic() + seconds
    while not (there := processes_with(mark)) and time.monotonic() < until:
        time.sleep(0.02)
    return there
