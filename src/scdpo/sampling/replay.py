"""Recreates the interpreter state after a solution's first k steps, for continuations.

A solution's programs run once, in order, in one session, which is cloned at each branch step.
Nothing is kept between calls: the live sessions are one per continuation and the one being
cloned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scdpo.errors import SandboxError
from scdpo.formats.base import Format
from scdpo.records import Solution
from scdpo.sampling.driver import all_of, fresh_session
from scdpo.sandbox import SESSION_ENDING_CUTS, Execution, SandboxProtocol, Session, same_output


@dataclass(frozen=True, slots=True)
class Start:
    """Where a continuation starts: its session, or None if no program ran before.

    `differs` is true if a rerun program printed something else than before.
    """

    session: Session | None
    differs: bool


async def starts_at(
    solution: Solution, ks: Sequence[int], format: Format, sandbox: SandboxProtocol | None
) -> list[Start]:
    """A start after the first k steps of `solution`, for every k in `ks`, in order.

    The caller must close the sessions. Raises SandboxError.
    """
    starts: dict[int, Start] = {}
    walk = _Walk(solution, format, sandbox)
    try:
        for i in sorted(range(len(ks)), key=lambda i: ks[i]):
            starts[i] = await walk.start(ks[i])
    except BaseException:
        await close_starts(starts.values())
        raise
    finally:
        await walk.close()
    return [starts[i] for i in range(len(ks))]


async def close_starts(starts: Iterable[Start]) -> None:
    """Close the sessions of unused starts."""
    await all_of(start.session.close() for start in starts if start.session is not None)


class _Lost:
    """Stands in for a session that a replayed program killed: every program dies in it."""

    async def run(self, code: str) -> Execution:
        return Execution(output="", cut="died")

    async def clone(self) -> Session:
        return self

    async def close(self) -> None:
        return None


class _Walk:
    """A session that runs through a solution's programs, step by step."""

    def __init__(self, solution: Solution, format: Format, sandbox: SandboxProtocol | None):
        self._solution = solution
        self._format = format
        self._sandbox = sandbox
        self._session: Session | None = None
        self._at = 0
        self._clonable = True
        self._differs = False

    async def start(self, k: int) -> Start:
        """A new start after the first k steps."""
        if self._clonable:
            await self._go(k)
            if self._session is None or isinstance(self._session, _Lost):
                return Start(self._session, self._differs)
            try:
                return Start(await self._session.clone(), self._differs)
            except SandboxError:
                # The programs may have broken what cloning needs, so from here on they run again
                # for every start. If the sandbox itself is lost, the next session raises.
                self._clonable = False
        again = _Walk(self._solution, self._format, self._sandbox)
        try:
            await again._go(k)
        except BaseException:
            await again.close()
            raise
        return Start(again._session, again._differs)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _go(self, k: int) -> None:
        for step in self._solution.steps[self._at : k]:
            code = self._format.code(step.text) if step.kind == "code" else None
            if code is None or isinstance(self._session, _Lost):
                continue
            if self._session is None:
                self._session = await fresh_session(self._sandbox)
            execution = await self._session.run(code)
            self._differs |= not same_output(execution.output, step.output or "")
            if execution.cut in SESSION_ENDING_CUTS:
                await self._session.close()
                self._session, self._differs = _Lost(), True
        self._at = max(self._at, k)
