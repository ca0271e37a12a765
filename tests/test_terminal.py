"""What is printed while work goes on, with and without a terminal."""

from __future__ import annotations

import re

import pytest

from scdpo import terminal
from scdpo.terminal import Terminal

Capture = pytest.CaptureFixture[str]


def work(shown: Terminal) -> None:
    """Three questions, of which nothing is settled until eleven solutions are drawn."""
    bar = shown.progress("sample")
    drawn = shown.counter("sample", "solutions")
    bar(0, 3)
    for n in range(1, 12):
        drawn(n)
    bar(2, 3)
    bar(3, 3)


def test_lines_say_how_many_solutions_there_are(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Terminal({"run": "out"}) as shown:
        work(shown)
    said = capsys.readouterr().err.splitlines()
    assert said == ["run       out", "sample: 3 of 3 after 0:00 (solutions: 11)"]
    # Long before the first question is settled, there is something to see.
    monkeypatch.setattr(terminal, "LINE_SECONDS", 0.0)
    with Terminal() as shown:
        work(shown)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "sample: 0 of 3 after 0:00"
    assert said[1:12] == [f"sample: 0 of 3 after 0:00 (solutions: {n})" for n in range(1, 12)]


def test_the_heading_comes_before_what_is_printed_at_the_end(capsys: Capture) -> None:
    with Terminal({"run": "out"}) as shown:
        shown.settle()
        assert capsys.readouterr().err == "run       out\n"
    with pytest.raises(ValueError, match="fails early"), Terminal({"run": "out"}):
        raise ValueError("fails early")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("width", [80, 120])
def test_a_counter_stands_under_its_bar(
    width: int, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    with Terminal() as shown:
        work(shown)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    bar, counter = plain.replace("\r", "\n").strip().splitlines()[-2:]
    assert re.fullmatch(r"sample +━{16} +3/3 0:00:?\d* *", bar)
    assert re.fullmatch(r"  solutions +11 *", counter)
    assert bar.index("3/3") + 3 == counter.index("11") + 2, "numbers end in one column"
