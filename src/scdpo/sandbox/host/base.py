"""The interface of an executor of model-written code, whatever isolates it."""

from __future__ import annotations

from typing import Literal, Protocol

from scdpo.records import Record

Cut = Literal["", "deadline", "memory", "output", "died", "not run"]
"""Why a block did not run to its end, or why its output was not kept whole; empty when neither
happened. `not run`: an earlier block had ended the session."""

SESSION_ENDING_CUTS: frozenset[Cut] = frozenset({"deadline", "memory", "died"})
"""The cuts after which the session is gone. After `output` it lives on."""


class Execution(Record):
    """What a notebook cell would show for a block.

    `cut`: why the block or its output was cut, see `Cut`. `seconds`: wall-clock time it took.
    """

    output: str
    cut: Cut = ""
    seconds: float = 0.0


class Session(Protocol):
    """A live interpreter in which blocks run one after another and share state."""

    async def run(self, code: str) -> Execution:
        """Run one block. Raises SandboxError when the session is gone."""
        ...

    async def clone(self) -> Session:
        """A second session with the same state, independent of this one from now on."""
        ...

    async def close(self) -> None:
        """Kill the session. Closing it again does nothing."""
        ...


class SandboxProtocol(Protocol):
    """Starts sessions; closing it ends everything it started."""

    async def session(self) -> Session:
        """Start a fresh session. Raises SandboxError."""
        ...

    def close(self) -> None:
        """Kill every session and all other processes of the sandbox."""
        ...
