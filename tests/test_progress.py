"""What is said about work that takes a while: lines, and `progress.json`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scdpo import terminal
from scdpo.pipeline.progress import KEEP_SECONDS, KeptProgress
from scdpo.pipeline.services import Silent


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_file_says_how_far_the_work_is(tmp_path: Path) -> None:
    clock = Clock()
    report = KeptProgress(Silent(), tmp_path, clock).progress("sample")
    path = tmp_path / "progress.json"
    report(100, 300)
    state = json.loads(path.read_text())
    assert state.pop("updated").startswith("20")
    assert state == {
        "work": "sample",
        "done": 100,
        "total": 300,
        "seconds": 0.0,
        "per_second": None,
        "seconds_left": None,
    }
    clock.now += KEEP_SECONDS / 2
    report(110, 300)
    assert json.loads(path.read_text())["done"] == 100
    clock.now += 20 - KEEP_SECONDS / 2
    report(140, 300)
    state = json.loads(path.read_text())
    assert (state["per_second"], state["seconds_left"], state["seconds"]) == (2.0, 80.0, 20.0)
    report(300, 300)
    assert json.loads(path.read_text())["seconds_left"] == 0.0


def test_work_goes_on_where_the_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "progress.json").mkdir()
    report = KeptProgress(Silent(), tmp_path).progress("sample")
    report(1, 2)
    report(2, 2)


def test_lines_say_speed_and_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(terminal.time, "monotonic", clock)
    report = terminal.Terminal().progress("sample")
    report(50, 300)
    clock.now += terminal.LINE_SECONDS
    report(80, 300)
    clock.now += 3600
    report(300, 300)
    report(300, 300)
    assert capsys.readouterr().err.splitlines() == [
        "sample: 80 of 300 after 1:00, 30/min, 7:20 left",
        "sample: 300 of 300 after 1:01:00",
    ]


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(1234.0, "1,234/s"), (12.34, "12.3/s"), (0.5, "30/min"), (0.01, "36/h")],
)
def test_a_speed_has_a_readable_unit(per_second: float, text: str) -> None:
    assert terminal._rate(per_second) == text
