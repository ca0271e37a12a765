"""Runs many rollouts side by side.

In lockstep, all rollouts that wait for the policy are completed in one batch, then all that wait
for a program run theirs. The contents of a batch depend only on the rollouts, never on timing, so
the same rollouts give bit-identical rows. With an engine that runs freely, each rollout goes on as
soon as it can; the rows are the same but for what rounding changes in that engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import TypeVar

from scdpo.engines.base import (
    Completion,
    EngineProtocol,
    FreeRunningEngine,
    Request,
    runs_freely,
)
from scdpo.errors import SandboxError
from scdpo.sampling.rollout import Execute, Rollout, RolloutResult
from scdpo.sandbox import Execution, SandboxProtocol, Session
from scdpo.waiting import Progress, silent

T = TypeVar("T")


class _Running:
    """A rollout with its session; `wants` is what it waits for, or None once it has ended."""

    def __init__(self, rollout: Rollout, session: Session | None):
        self.rollout = rollout
        self.session = session
        self.result: RolloutResult | None = None
        self.wants: Request | Execute | None = None
        self.advance(None)

    def advance(self, answer: Completion | Execution | None) -> None:
        """Give the rollout what it asked for (None to start it) and get its next request."""
        try:
            self.wants = self.rollout.send(answer)  # type: ignore[arg-type]  # None starts it
        except StopIteration as stop:
            self.wants, self.result = None, stop.value

    async def execute(self, sandbox: SandboxProtocol | None) -> None:
        """Run the wanted program in this rollout's session. Raises SandboxError."""
        assert isinstance(self.wants, Execute)
        if self.session is None:
            self.session = await fresh_session(sandbox)
        self.advance(await self.session.run(self.wants.code))

    async def close(self) -> None:
        """End the session; closing twice does nothing."""
        session, self.session = self.session, None
        if session is not None:
            await session.close()


async def drive(
    rollouts: Sequence[Rollout],
    engine: EngineProtocol,
    sandbox: SandboxProtocol | None,
    *,
    sessions: Sequence[Session | None] | None = None,
    progress: Progress = silent,
) -> list[RolloutResult]:
    """Run rollouts to their end, in lockstep or freely; returns their results in order.

    `sessions` are the interpreter sessions in which rollouts continue (None: a fresh one from
    `sandbox` at the first program). All sessions are closed, whatever happens. `progress`
    receives the number of rollouts that have ended. Raises EngineError and SandboxError.
    """
    given = sessions or [None] * len(rollouts)
    running: list[_Running] = []
    try:
        running += [_Running(r, session) for r, session in zip(rollouts, given, strict=True)]
        if runs_freely(engine):
            await _freely(running, engine, sandbox, progress)
        else:
            await _in_lockstep(running, engine, sandbox, progress)
    finally:
        await all_of(r.close() for r in running)
        if len(running) < len(given):
            await all_of(s.close() for s in given[len(running) :] if s is not None)
    return [r.result for r in running if r.result is not None]


async def _in_lockstep(
    running: Sequence[_Running],
    engine: EngineProtocol,
    sandbox: SandboxProtocol | None,
    progress: Progress,
) -> None:
    while any(r.result is None for r in running):
        generating = [r for r in running if isinstance(r.wants, Request)]
        if generating:
            requests = [r.wants for r in generating if isinstance(r.wants, Request)]
            completions = await engine.generate(requests)
            for r, completion in zip(generating, completions, strict=True):
                r.advance(completion)
        await all_of(r.execute(sandbox) for r in running if isinstance(r.wants, Execute))
        ended = [r for r in running if r.result is not None]
        await all_of(r.close() for r in ended if r.session is not None)
        progress(len(ended), len(running))


async def _freely(
    running: Sequence[_Running],
    engine: FreeRunningEngine,
    sandbox: SandboxProtocol | None,
    progress: Progress,
) -> None:
    ended = 0

    async def to_its_end(r: _Running) -> None:
        nonlocal ended
        while r.result is None:
            if isinstance(r.wants, Request):
                r.advance(await engine.complete(r.wants))
            else:
                await r.execute(sandbox)
        await r.close()
        ended += 1
        progress(ended, len(running))

    tasks = [asyncio.ensure_future(to_its_end(r)) for r in running]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def all_of(awaitables: Iterable[Awaitable[T]]) -> list[T]:
    """The results in order; the first error, if any, is raised after all have ended."""
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


async def fresh_session(sandbox: SandboxProtocol | None) -> Session:
    """A fresh session. Raises SandboxError, also if there is no sandbox."""
    if sandbox is None:
        raise SandboxError("a solution has code to run, but no sandbox was given")
    return await sandbox.session()
