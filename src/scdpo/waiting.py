"""Work that takes a while: how it reports progress, and how ordinary code waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, TypeVar

T = TypeVar("T")

Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is in total, in any unit."""

Counter = Callable[[int], None]
"""Called with a number that grows, such as that of solutions drawn so far."""

Note = Callable[[str], None]
"""Called with a line for the user."""


def silent(done: int, total: int) -> None:
    """Report nothing."""


def uncounted(n: int) -> None:
    """Report nothing."""


def counting(counter: Counter) -> Callable[[], Progress]:
    """Pieces of work that go on side by side, counted together: each call gives the progress
    callback of one more piece, and `counter` receives how much all of them have done."""
    total_done = 0

    def another() -> Progress:
        before = 0

        def report(done: int, total: int) -> None:
            nonlocal before, total_done
            total_done, before = total_done + done - before, done
            counter(total_done)

        return report

    return another


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end and return its result, or raise what it raises.

    Where this thread runs no event loop, this is `asyncio.run`. Where it runs one, as in a notebook
    cell, the coroutine gets an event loop of its own in a new thread while this thread waits; it
    must then not await anything that belongs to the loop of this thread. It sees the context
    variables of the caller.

    A KeyboardInterrupt cancels the coroutine, waits until it has cleaned up, and is raised again. A
    second one does not wait.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    return _run_in_thread(coroutine)


def _run_in_thread(coroutine: Coroutine[Any, Any, T]) -> T:
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()
    done: Future[T] = Future()

    async def announced() -> T:
        task = asyncio.current_task()
        assert task is not None
        begun.set_result((asyncio.get_running_loop(), task))
        return await coroutine

    def work() -> None:
        try:
            done.set_result(asyncio.run(announced()))
        except BaseException as error:
            done.set_exception(error)
        finally:
            # It never began where the thread found no descriptors for an event loop.
            coroutine.close()

    context = contextvars.copy_context()
    # A daemon thread: a second interrupt must be able to end the program.
    thread = threading.Thread(target=context.run, args=(work,), name="scdpo-run", daemon=True)
    try:
        thread.start()
        wait([done])
    except BaseException:
        if thread.ident is None:
            coroutine.close()
        else:
            _cancel(begun, done)
        raise
    thread.join()
    return done.result()


def _cancel(
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]], done: Future[Any]
) -> None:
    """Cancel the task in the other thread, and wait until it has ended."""
    wait([begun, done], return_when=FIRST_COMPLETED)
    if begun.done():
        loop, task = begun.result()
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(task.cancel)
    wait([done])
