"""The magics that work in a session; all others are a `UsageError`."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import statistics
import sys
import time
import timeit
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol


class UsageError(Exception):
    """A magic does not exist, or was used wrongly."""


UsageError.__module__ = "IPython.core.error"


class Shell(Protocol):
    """What a magic needs from the shell that runs it."""

    @property
    def user_ns(self) -> dict[str, Any]:
        """The names of the notebook."""
        ...

    def evaluate(self, code: str, name: str) -> object:
        """Run code in the notebook; returns the value of its last expression."""
        ...

    def ev(self, expression: str) -> object:
        """The value of an expression."""
        ...

    def system(self, command: str) -> None:
        """Run a command of the operating system and print its output."""
        ...


def _nothing(shell: Shell, line: str) -> None:
    """Accept a setting of the screen, of which there is none."""


def _time(shell: Shell, line: str, cell: str | None = None) -> object:
    code = line if cell is None else f"{line}\n{cell}"
    if cell is not None and not cell:
        raise UsageError(
            "%%time is a cell magic, but the cell body is empty. "
            "Did you mean the line magic %time (single %)?"
        )
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    value = shell.evaluate(code, "<timed exec>")
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    parts = f"user {_span(user)}, sys: {_span(system)}, total: {_span(user + system)}"
    sys.stdout.write(f"CPU times: {parts}\nWall time: {_span(seconds)}\n")
    return value


def _timeit(shell: Shell, line: str, cell: str | None = None) -> None:
    words = line.split()
    number, repeat = 0, 7
    while words and words[0].startswith("-"):
        option = words.pop(0)
        value = option[2:] or (words.pop(0) if words else "")
        if option[:2] == "-n" and value.isdigit():
            number = int(value)
        elif option[:2] == "-r" and value.isdigit():
            repeat = max(int(value), 1)
    rest = " ".join(words)
    timer = timeit.Timer(
        rest if cell is None else cell,
        "pass" if cell is None or not rest else rest,
        globals=shell.user_ns,
    )
    number = number or timer.autorange()[0]
    runs = [seconds / number for seconds in timer.repeat(repeat, number)]
    mean, spread = statistics.fmean(runs), statistics.pstdev(runs)
    plural = ("" if repeat == 1 else "s", "" if number == 1 else "s")
    sys.stdout.write(
        f"{_span(mean)} ± {_span(spread)} per loop (mean ± std. dev. of {repeat} run{plural[0]}, "
        f"{number:,} loop{plural[1]} each)\n"
    )


def _span(seconds: float) -> str:
    """Seconds in a unit for which the number is between 1 and 1,000."""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "μs")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _capture(shell: Shell, line: str, cell: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        shell.evaluate(cell, "<captured exec>")


def _shell(shell: Shell, line: str, cell: str) -> None:
    shell.system(cell)


def _pip(shell: Shell, line: str) -> None:
    shell.system(f"{sys.executable} -m pip {line}")


def _pwd(shell: Shell, line: str) -> str:
    return str(Path.cwd())


def _cd(shell: Shell, line: str) -> None:
    os.chdir(line.strip("'\"") or "~")
    sys.stdout.write(f"{Path.cwd()}\n")


def _write_file(shell: Shell, line: str, cell: str) -> None:
    path = Path(line.strip())
    sys.stdout.write(f"{'Overwriting' if path.exists() else 'Writing'} {path}\n")
    path.write_text(cell)


def _explain(shell: Shell, line: str) -> None:
    """Only report a missing object: a notebook shows help outside its output."""
    if not line.strip("%?; "):
        return
    try:
        shell.ev(line.strip("%?; "))
    except Exception:
        sys.stdout.write(f"Object `{line}` not found.\n")


_SETTINGS = (
    *("matplotlib", "config", "load_ext", "reload_ext", "autoreload", "colors", "pdb"),
    *("automagic", "xmode"),
)

LINE: Mapping[str, Callable[[Shell, str], object]] = {
    **dict.fromkeys(_SETTINGS, _nothing),
    "time": _time,
    "timeit": _timeit,
    "pip": _pip,
    "pwd": _pwd,
    "cd": _cd,
    "pinfo": _explain,
}
CELL: Mapping[str, Callable[[Shell, str, str], object]] = {
    "time": _time,
    "timeit": _timeit,
    "capture": _capture,
    "bash": _shell,
    "sh": _shell,
    "writefile": _write_file,
}
