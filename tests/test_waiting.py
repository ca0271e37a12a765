"""Coroutines run from ordinary code, outside of an event loop and inside one."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading

import pytest

from scdpo import waiting

name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")


async def double(number: int) -> int:
    await asyncio.sleep(0.001)
    return 2 * number


async def fail() -> None:
    await asyncio.sleep(0.001)
    raise KeyError("wrong")


def inside_a_loop(function):
    """What a function returns when it is called while an event loop runs in this thread."""

    async def call():
        return function()

    return asyncio.run(call())


def test_without_a_loop_the_result_comes_back() -> None:
    assert waiting.run(double(4)) == 8


def test_inside_a_loop_the_result_comes_back() -> None:
    assert inside_a_loop(lambda: waiting.run(double(4))) == 8


def test_it_can_be_nested() -> None:
    async def outer() -> int:
        return waiting.run(double(waiting.run(double(1))))

    assert waiting.run(outer()) == 4


@pytest.mark.parametrize("call", [lambda f: f(), inside_a_loop], ids=["no loop", "in a loop"])
def test_what_the_coroutine_raises_is_raised(call) -> None:
    with pytest.raises(KeyError, match="wrong"):
        call(lambda: waiting.run(fail()))


def test_the_loop_of_the_caller_still_works_afterwards() -> None:
    async def main() -> list[int]:
        beside = asyncio.create_task(double(10))
        here = waiting.run(double(1))
        return [here, await beside, await double(3)]

    assert asyncio.run(main()) == [2, 20, 6]


def test_the_coroutine_sees_the_context_of_the_caller() -> None:
    async def who() -> str:
        return name.get()

    def call() -> str:
        name.set("somebody")
        return waiting.run(who())

    assert inside_a_loop(call) == "somebody"


def test_no_thread_is_left() -> None:
    before = threading.active_count()
    inside_a_loop(lambda: waiting.run(double(1)))
    assert threading.active_count() == before


INTERRUPTED = """
import asyncio, os, signal, threading
from scdpo import waiting

async def main():
    try:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(0.1)
        print("cleaned up", flush=True)
        raise

async def cell():
    # As in a notebook, whose loop leaves the signal to Python.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    waiting.run(main())

try:
    CALL
except KeyboardInterrupt:
    print("interrupted", threading.active_count())
"""


@pytest.mark.parametrize(
    "call",
    ["waiting.run(main())", "asyncio.new_event_loop().run_until_complete(cell())"],
    ids=["no loop", "in a loop"],
)
def test_an_interrupt_cancels_the_coroutine_and_waits_for_it(call: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.replace("CALL", call)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[0] == "cleaned up", done.stderr
    assert done.stdout.splitlines()[1].startswith("interrupted"), done.stderr


def test_a_coroutine_that_cannot_start_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No warning about a coroutine that was never awaited: warnings are errors here."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def call() -> None:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        coroutine = double(1)
        with pytest.raises(RuntimeError, match="can't start"):
            waiting.run(coroutine)
        assert coroutine.cr_frame is None

    asyncio.run(call())
