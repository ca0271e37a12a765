"""How functions that take a while report how far they are."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is in all, in any unit."""


def silent(done: int, total: int) -> None:
    """Report nothing."""
