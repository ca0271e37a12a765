"""Runs many rollouts side by side.

Rollouts advance in lockstep: every one that waits for the policy is completed in one batch,
then every one that waits for its program runs it. What is in a batch depends on the rollouts
alone, never on timing, so the same rollouts give the same rows to the last bit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from scdpo.engines.base import Completion, Engine, Request
from scdpo.errors import SandboxError
from scdpo.sampling.rollout import Execute, Outcome, Rollout
from scdpo.sandbox import Execution, Sandbox, Session

Progress = Callable[[int, int], None]
"""Called with how much is done, and of how much."""
T = TypeVar("T")


class Live:
    """A rollout under way with its session, which starts at its first program if not given."""

    def __init__(self, rollout: Rollout, sandbox: Sandbox | None, session: Session | None = None):
        self._rollout = rollout
        self._sandbox = sandbox
        self._session = session
        self.outcome: Outcome | None = None
        self.action: Request | Execute | None = None

    def start(self) -> None:
        """Take the rollout's first wish."""
        self._advance(lambda: next(self._rollout))

    def send(self, result: Completion | Execution) -> None:
        """Give the rollout what it asked for and take its next wish."""
        self._advance(lambda: self._rollout.send(result))

    async def execute(self, code: str) -> Execution:
        """Run a program in this rollout's session. Raises SandboxError."""
        if self._session is None:
            self._session = await fresh_session(self._sandbox)
        return await self._session.run(code)

    async def close(self) -> None:
        """End the session; closing twice does nothing."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _advance(self, step: Callable[[], Request | Execute]) -> None:
        try:
            self.action = step()
        except StopIteration as stop:
            self.action = None
            self.outcome = stop.value


async def drive(
    rollouts: Sequence[Rollout],
    engine: Engine,
    sandbox: Sandbox | None,
    *,
    sessions: Sequence[Session | None] | None = None,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Run rollouts to their end, in lockstep; outcomes in order.

    `sessions` are the interpreters that rollouts go on in (None: a fresh one of `sandbox`, at
    the first program); no session is left open, whatever happens. `progress` is told how many
    rollouts have ended. Raises EngineError and SandboxError.
    """
    given = sessions or [None] * len(rollouts)
    live = [Live(one, sandbox, session) for one, session in zip(rollouts, given, strict=True)]
    try:
        for one in live:
            one.start()
        while any(one.outcome is None for one in live):
            await _generate([one for one in live if isinstance(one.action, Request)], engine)
            await _execute([one for one in live if isinstance(one.action, Execute)])
            ended = [one for one in live if one.outcome is not None]
            await all_of(one.close() for one in ended)
            if progress is not None:
                progress(len(ended), len(live))
    finally:
        await all_of(one.close() for one in live)
    return [one.outcome for one in live if one.outcome is not None]


async def all_of(awaitables: Iterable[Awaitable[T]]) -> list[T]:
    """The results in order; where one fails, its error once all of them have ended."""
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


async def fresh_session(sandbox: Sandbox | None) -> Session:
    """A fresh session. Raises SandboxError, also where a run has no sandbox."""
    if sandbox is None:
        raise SandboxError("a solution has code to run, but this run has no sandbox")
    return await sandbox.session()


async def _generate(live: Sequence[Live], engine: Engine) -> None:
    requests = [one.action for one in live if isinstance(one.action, Request)]
    if not requests:
        return
    for one, completion in zip(live, await engine.generate(requests), strict=True):
        one.send(completion)


async def _execute(live: Sequence[Live]) -> None:
    codes = [one.action.code for one in live if isinstance(one.action, Execute)]
    executions = await all_of(one.execute(code) for one, code in zip(live, codes, strict=True))
    for one, execution in zip(live, executions, strict=True):
        one.send(execution)
