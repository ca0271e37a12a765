"""Tracebacks as a notebook shows them, without colours and without paths of the machine."""

from __future__ import annotations

import linecache
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from types import CodeType, TracebackType
from typing import Any

from scdpo.sandbox.notebook.excerpts import excerpt

RULE = "-" * 75
HEAD = "Traceback (most recent call last)"
MAX_FRAMES = 24
CONTEXT = 2
"""Statements shown before and after the one that raised; 1 for exceptions that led to it."""
_CAUSE = "The above exception was the direct cause of the following exception:"
_CONTEXT = "During handling of the above exception, another exception occurred:"


def format_error(error: BaseException, tb: TracebackType | None, cells: dict[str, str]) -> str:
    """The text shown for a cell that raised. `cells` maps file names of cells to their source."""
    stops = _stops(tb)
    if isinstance(error, SyntaxError):
        return _format_syntax_error(error, stops, cells)
    if isinstance(error, BaseExceptionGroup):
        return _format_group(error, tb)
    return f"{RULE}\n" + "\n\n".join(_format_chain(error, stops, cells, CONTEXT, set()))


def class_name(error: BaseException) -> str:
    """The name of an exception's class, whatever the class defines itself."""
    return str(type.__dict__["__name__"].__get__(type(error)))


def _attribute(error: BaseException, name: str) -> Any:
    """An attribute that every exception has, whatever its class defines itself."""
    return BaseException.__dict__[name].__get__(error)


@dataclass(frozen=True)
class _Stop:
    """The line of a frame at which the exception passed through it."""

    code: CodeType
    line: int


def _stops(tb: TracebackType | None) -> list[_Stop]:
    found = []
    while tb is not None:
        code = tb.tb_frame.f_code
        if not code.co_filename.startswith(_HERE):
            found.append(_Stop(code, tb.tb_lineno))
        tb = tb.tb_next
    return found


def _format_syntax_error(error: SyntaxError, stops: list[_Stop], cells: dict[str, str]) -> str:
    """The line with the syntax error, after the lines and the exceptions that led to it."""
    # If the cell itself has the error, no code has run, and earlier exceptions are our own.
    lines = [*_earlier(error, cells, {id(error)}), *_executed(stops, cells)] if stops else []
    file, number = error.filename or "<string>", error.lineno
    text = error.text
    if text is None and number is not None:
        text = _line(file, number, cells)
    lines.append(f"  {_place(file, number, cells)}")
    if text:
        stripped = text.strip()
        lines.append(f"    {stripped}")
        if error.offset is not None and error.offset > 0:
            shift = len(text) - len(text.lstrip())
            lines.append("    " + " " * max(error.offset - 1 - shift, 0) + "^")
    lines.append(f"{class_name(error)}: {error.msg}".rstrip())
    return "\n".join(lines)


def _executed(stops: list[_Stop], cells: dict[str, str]) -> list[str]:
    lines = [f"{HEAD}:", ""] if stops else []
    for stop in stops:
        name = stop.code.co_name
        where = "" if name == "<module>" else f" in {name}"
        lines.append(f"  {_place(stop.code.co_filename, stop.line, cells)}{where}")
        lines += [f"    {_line(stop.code.co_filename, stop.line, cells).strip()}", ""]
    return lines


def _earlier(error: BaseException, cells: dict[str, str], seen: set[int]) -> list[str]:
    """The exceptions that led to a syntax error, in its own simpler layout."""
    before, why = _reason(error)
    if before is None or id(before) in seen:
        return []
    seen.add(id(before))
    stops = _stops(_attribute(before, "__traceback__"))
    shown = [*_executed(stops, cells), last_line(before)]
    return [*_earlier(before, cells, seen), *shown, "", "", why, ""]


def _reason(error: BaseException) -> tuple[BaseException | None, str]:
    """The exception that led to another, and the sentence between them."""
    cause = _attribute(error, "__cause__")
    if cause is not None:
        return cause, _CAUSE
    suppressed = _attribute(error, "__suppress_context__")
    return (None if suppressed else _attribute(error, "__context__")), _CONTEXT


def _place(file: str, line: int | None, cells: dict[str, str]) -> str:
    if file in cells:
        return f"{file}, line {line}"
    return f"File {_short(file)}" + ("" if line is None else f":{line}")


def _line(file: str, line: int, cells: dict[str, str]) -> str:
    lines = _source(file, cells).splitlines()
    return lines[line - 1] if 0 < line <= len(lines) else ""


def _source(file: str, cells: dict[str, str]) -> str:
    if file in cells:
        return cells[file]
    try:
        return "".join(linecache.getlines(file))
    except Exception:
        return ""


def _format_group(error: BaseException, tb: TracebackType | None) -> str:
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(_HERE):
        tb = tb.tb_next
    return "".join(traceback.format_exception(type(error), error, tb)).rstrip()


def _format_chain(
    error: BaseException, stops: list[_Stop], cells: dict[str, str], context: int, seen: set[int]
) -> Iterator[str]:
    seen.add(id(error))
    before, why = _reason(error)
    if before is not None and id(before) not in seen:
        earlier = _stops(_attribute(before, "__traceback__"))
        yield from _format_chain(before, earlier, cells, 1, seen)
        yield why
    name = class_name(error)
    header = f"{name}{HEAD:>{max(len(RULE) - len(name), len(HEAD) + 1)}}"
    yield f"{header}\n" + "\n\n".join([*_frames(stops, cells, context), last_line(error)])


def last_line(error: BaseException) -> str:
    """The name of an exception (without its module), its message and its notes."""
    try:
        message = str(error)
    except Exception:
        message = "<exception str() failed>"
    lines = [f"{class_name(error)}: {message}".rstrip()]
    try:
        notes = getattr(error, "__notes__", ())
        lines += [str(note) for note in (notes if isinstance(notes, list | tuple) else (notes,))]
    except Exception:
        lines.append("<exception notes failed>")
    return "\n".join(lines).rstrip()


def _frames(stops: list[_Stop], cells: dict[str, str], context: int) -> list[str]:
    runs = [(stop, len(list(same))) for stop, same in groupby(stops)]
    if len(runs) <= MAX_FRAMES:
        return [_frame(stop, times, cells, context) for stop, times in runs]
    half = MAX_FRAMES // 2
    skipped = sum(times for _, times in runs[half:-half])
    return [
        *(_frame(stop, times, cells, context) for stop, times in runs[:half]),
        f"    [... skipping {skipped} frames]",
        *(_frame(stop, times, cells, context) for stop, times in runs[-half:]),
    ]


def _frame(stop: _Stop, times: int, cells: dict[str, str], context: int) -> str:
    code, file = stop.code, stop.code.co_filename
    name = code.co_qualname
    where = "" if name == "<module>" else f", in {name}({', '.join(_arguments(code))})"
    lines = [f"{_place(file, stop.line, cells)}{where}"]
    try:
        lines += excerpt(_source(file, cells), code, stop.line, context)
    except Exception:
        # The code that raised may have changed the modules that read source.
        lines += []
    if times > 1:
        again = f"{name} at line {stop.line} ({times - 1} times)"
        lines.append(f"\n    [... skipping similar frames: {again}]")
    return "\n".join(lines)


def _arguments(code: CodeType) -> list[str]:
    """The names of the arguments, with `*args` and `**kwargs` last."""
    n = code.co_argcount + code.co_kwonlyargcount
    names = list(code.co_varnames[:n])
    for flag, stars in ((_VARARGS, "*"), (_VARKEYWORDS, "**")):
        if code.co_flags & flag:
            names.append(f"{stars}{code.co_varnames[n]}")
            n += 1
    return names


def _short(path: str) -> str:
    """The path of a library file relative to the folder it is imported from."""
    folders = (p for p in sys.path if isinstance(p, str) and p)
    for folder in sorted(folders, key=len, reverse=True):
        if path.startswith(folder.rstrip("/") + "/"):
            return path[len(folder.rstrip("/")) + 1 :]
    return path


_VARARGS, _VARKEYWORDS = 0x04, 0x08
_HERE = __file__.rpartition("/")[0] + "/"
