"""Runs many rollouts side by side.

Rollouts advance in lockstep: every one that waits for the policy is completed in one batch,
then every one that waits for its program runs it. What is in a batch depends on the rollouts
alone, never on timing, so the same rollouts give the same rows to the last bit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from scdpo.engines.base import Completion, Engine, Request
from scdpo.errors import SandboxError
from scdpo.sampling.rollout import Execute, Outcome, Rollout
from scdpo.sandbox.base import Execution, Sandbox, Session

OpenSession = Callable[[], Awaitable[Session]]


class Live:
    """A rollout under way with its session, which starts at its first program."""

    def __init__(self, rollout: Rollout, open_session: OpenSession):
        self._rollout = rollout
        self._open_session = open_session
        self._session: Session | None = None
        self.outcome: Outcome | None = None
        self.action: Request | Execute | None = next(rollout, None)

    def send(self, result: Completion | Execution) -> None:
        """Give the rollout what it asked for and take its next wish."""
        try:
            self.action = self._rollout.send(result)
        except StopIteration as stop:
            self.action = None
            self.outcome = stop.value

    async def execute(self, code: str) -> Execution:
        """Run a program in this rollout's session."""
        if self._session is None:
            self._session = await self._open_session()
        return await self._session.run(code)

    async def close(self) -> None:
        """End the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def drive(
    rollouts: Sequence[Rollout],
    engine: Engine,
    sandbox: Sandbox | None,
    *,
    sessions: Sequence[OpenSession] | None = None,
) -> list[Outcome]:
    """Run rollouts to their end, in lockstep; outcomes in order.

    `sessions` open each rollout's session (a clone, for continuations); without it every one
    gets a fresh session of `sandbox`. Raises EngineError and SandboxError.
    """
    openers = sessions or [_opener(sandbox)] * len(rollouts)
    live = [Live(one, opener) for one, opener in zip(rollouts, openers, strict=True)]
    try:
        while any(one.outcome is None for one in live):
            await _generate([one for one in live if isinstance(one.action, Request)], engine)
            await _execute([one for one in live if isinstance(one.action, Execute)])
            await asyncio.gather(*(one.close() for one in live if one.outcome is not None))
    finally:
        await asyncio.gather(*(one.close() for one in live))
    return [one.outcome for one in live if one.outcome is not None]


async def _generate(live: Sequence[Live], engine: Engine) -> None:
    requests = [one.action for one in live if isinstance(one.action, Request)]
    if not requests:
        return
    for one, completion in zip(live, await engine.generate(requests), strict=True):
        one.send(completion)


async def _execute(live: Sequence[Live]) -> None:
    codes = [one.action.code for one in live if isinstance(one.action, Execute)]
    executions = await asyncio.gather(
        *(one.execute(code) for one, code in zip(live, codes, strict=True))
    )
    for one, execution in zip(live, executions, strict=True):
        one.send(execution)


def _opener(sandbox: Sandbox | None) -> OpenSession:
    async def opened() -> Session:
        if sandbox is None:
            raise SandboxError("a solution has code to run, but this run has no sandbox")
        return await sandbox.session()

    return opened
