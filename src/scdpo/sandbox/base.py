"""What an executor of model-written code offers, whatever isolates it."""

from __future__ import annotations

from typing import Literal, Protocol

from scdpo.records import Record

Cut = Literal["", "deadline", "memory", "output", "died"]
"""Why an execution did not run to its end or was not kept whole; empty when it was. After
`deadline`, `memory` and `died` the session is gone; after `output` it lives on."""


SESSION_ENDING_CUTS: tuple[Cut, ...] = ("deadline", "memory", "died")


class Execution(Record):
    """What a notebook cell would show for one block, and why it was cut, if it was."""

    output: str
    cut: Cut = ""
    seconds: float = 0.0


class Session(Protocol):
    """A live interpreter: blocks run one after another and share state."""

    async def run(self, code: str) -> Execution:
        """Run one block. A session that is gone raises SandboxError."""
        ...

    async def clone(self) -> Session:
        """A second session with the same state, from here on independent."""
        ...

    async def close(self) -> None:
        """Kill the session; closing twice does nothing."""
        ...


class Sandbox(Protocol):
    """Starts sessions; a context manager that leaves nothing behind."""

    async def session(self) -> Session:
        """A fresh session. Raises SandboxError."""
        ...

    def close(self) -> None:
        """Kill every session and the parent process."""
        ...
