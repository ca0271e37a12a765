"""The supervisor's loop, on real descriptors of this process."""

from __future__ import annotations

import os

import pytest

from scdpo.sandbox.processes.supervisor import Loop


def test_a_descriptor_closed_in_the_same_round_is_not_heard_under_its_number() -> None:
    """Two can be read at once; the first callback closes the second, whose number is reused."""
    loop, heard = Loop(), []
    (first, first_end), (second, second_end) = os.pipe(), os.pipe()
    os.write(first_end, b"x")
    os.write(second_end, b"x")

    def close_and_reuse() -> None:
        os.read(first, 1)
        loop.remove(second)
        os.close(second)
        reused, _ = os.pipe()
        assert reused == second
        loop.add(reused, lambda: heard.append("someone else's event"))
        heard.append("first")

    rounds = iter(range(3))

    def every(idle: bool) -> float:
        heard.append("idle" if idle else "busy")
        if next(rounds) == 2:
            loop.stop()
        return 0.0

    loop.add(first, close_and_reuse)
    loop.add(second, lambda: heard.append("second"))
    loop.run(every)
    assert heard == ["busy", "first", "busy", "idle"]


def test_what_a_callback_raises_ends_the_loop() -> None:
    loop = Loop()
    readable, writable = os.pipe()
    os.write(writable, b"x")

    def fail() -> None:
        raise ValueError("broken")

    loop.add(readable, fail)
    with pytest.raises(ValueError, match="broken"):
        loop.run(lambda idle: 1.0)
