"""What a user sees while a run is in progress, all on stderr."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.progress_bar import ProgressBar
from rich.text import Text

from scdpo.waiting import Counter, Progress

LINE_SECONDS = 60.0
"""Without a terminal, progress is printed as lines, at most this often."""
_LABEL = 9
_BAR = 16
"""Columns of a bar; with all that stands beside it, a line fits into 80 columns."""
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories of what a terminal obeys, or does not show."""


def visible(text: str, style: str = "") -> Text:
    """A text of unknown origin, safe to print: its `pieces`, escapes in another colour."""
    shown = Text()  # without a style of its own, which what is appended to it would take on
    for piece, escape in pieces(text):
        shown.append(piece, style="magenta" if escape else style)
    return shown


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """A text of unknown origin in pieces that are safe to show, and whether each is an escape.

    Control characters (also those that begin ANSI codes), marks that change the direction of
    writing, characters without a width and unassigned ones become escapes such as `\\x1b`. Line
    breaks stay.
    """
    begin = 0
    for n, character in enumerate(text):
        if character != "\n" and (unicodedata.category(character) in _HIDDEN):
            if n > begin:
                yield text[begin:n], False
            yield _escape(character), True
            begin = n + 1
    if begin < len(text):
        yield text[begin:], False


def _escape(character: str) -> str:
    code = ord(character)
    known = {"\t": r"\t", "\r": r"\r"}.get(character)
    if known is not None:
        return known
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


class Terminal:
    """Notes and progress bars; plain lines if stderr is not a terminal. A context manager.

    `heading` is printed before the first note or bar, or when all is settled, so that a run that
    fails before it starts prints only the error.
    """

    def __init__(self, heading: Mapping[str, str] | None = None) -> None:
        self._heading = dict(heading or {})
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bars: Bars | None = None
        self._reports: dict[str, _Lines] = {}
        if self._console.is_terminal:
            columns = (TextColumn("{task.description:<19}"), _Bar(_BAR), _Count(), _Time())
            self._bars = Bars(*columns, console=self._console, redirect_stdout=False)

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop()

    def settle(self) -> None:
        """Leave the heading and the bars on the screen, so that later output appears below them."""
        self._head()
        self._stop()

    def _stop(self) -> None:
        if self._bars is not None and self._bars.live.is_started:
            self._bars.stop()
            self._console.print()

    def note(self, label: str, text: str) -> None:
        """Print a line, such as `sandbox   user+pid+ipc+net+seccomp`."""
        self._head()
        self._line(label, text)

    def progress(self, name: str) -> Progress:
        """Start a bar and return the function to call with the amounts done and in total."""
        self._head()
        if self._bars is None:
            self._reports[name] = _Lines(name, self._console.print)
            return self._reports[name]
        bars = self._bars
        task: TaskID = bars.add_task(name, total=None)

        def report(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        return report

    def counter(self, name: str, unit: str) -> Counter:
        """Show a number of `unit` (solutions) with the progress of that name, which was started
        last; returns the function to call with it."""
        if self._bars is None:
            return self._reports[name].counter(unit)
        bars = self._bars
        task: TaskID = bars.add_task(f"  {unit}", total=None, counter=True)
        return lambda n: bars.update(task, completed=n)

    def _head(self) -> None:
        while self._heading:
            label = next(iter(self._heading))
            self._line(label, self._heading.pop(label))

    def _line(self, label: str, text: str) -> None:
        line = Text(f"{label:<{_LABEL}} ", style="dim")
        self._console.print(line.append(text, style="not dim"))


class _Lines:
    """Progress as lines: `sample: 3 of 30 after 1:12, 2.5/min, 10:48 left (solutions: 41)`."""

    def __init__(self, name: str, write: Callable[[str], None]) -> None:
        self._name = name
        self._write = write
        self._started = self._printed = time.monotonic()
        self._first: tuple[int, float] | None = None
        self._state = (0, 0)
        self._counted = ""

    def __call__(self, done: int, total: int) -> None:
        if done >= total and self._state == (done, total):
            return  # the end has been said
        self._state = (done, total)
        now = time.monotonic()
        # What was done before the first report may be from an earlier process.
        first = self._first = self._first or (done, now)
        if done >= total or now - self._printed >= LINE_SECONDS:
            self._printed = now
            line = f"{self._name}: {done} of {total} after {_clock(now - self._started)}"
            new, used = done - first[0], now - first[1]
            if new and used and done < total:
                line += f", {_rate(new / used)}, {_clock(used * (total - done) / new)} left"
            self._write(f"{line}{self._counted}")

    def counter(self, unit: str) -> Counter:
        """The function to call with a number of `unit`; lines come while it grows, too."""

        def count(n: int) -> None:
            self._counted = f" ({unit}: {n})"
            done, total = self._state
            if done < total:
                self(done, total)

        return count


class _Bar(BarColumn):
    """A bar, except beside a number that has no total."""

    def render(self, task: Task) -> ProgressBar | Text:  # type: ignore[override]
        return Text(" " * _BAR) if task.fields.get("counter") else super().render(task)


class _Count(ProgressColumn):
    """The amounts done and in total, once the total is known; of a counter, its number."""

    def render(self, task: Task) -> Text:
        if task.fields.get("counter"):
            return Text(f"{task.completed:>9.0f}")
        total = "" if task.total is None else f"{task.completed:.0f}/{task.total:.0f}"
        return Text(f"{total:>9}")


class _Time(ProgressColumn):
    """Elapsed time, speed and remaining time."""

    def render(self, task: Task) -> Text:
        if task.fields.get("counter"):
            return Text("")
        used = task.finished_time if task.finished else task.elapsed
        text = Text(_clock(used or 0))
        if task.time_remaining and task.speed and not task.finished:
            left = f", {_rate(task.speed)}, {_clock(task.time_remaining)} left"
            text.append(left, style="dim")
        return text


def _rate(per_second: float) -> str:
    """A speed in the unit that makes it easy to read."""
    for seconds, unit in ((1, "s"), (60, "min")):
        if per_second * seconds >= 1:
            value = per_second * seconds
            return f"{value:.3g}/{unit}" if value < 1000 else f"{value:,.0f}/{unit}"
    return f"{per_second * 3600:.2g}/h"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
