"""Tracebacks as a notebook shows them, without colours and without the paths of the machine."""

from __future__ import annotations

import ast
import linecache
import sys
from itertools import groupby
from types import CodeType, TracebackType

RULE = "-" * 75
HEAD = "Traceback (most recent call last)"
CONTEXT = 2
"""Pieces of source shown before and after the line that raised."""
MAX_FRAMES = 24


def format_error(error: BaseException, tb: TracebackType | None, cells: dict[str, str]) -> str:
    """The text under a cell that raised. `cells` maps file names of cells to their source."""
    if isinstance(error, SyntaxError) and (tb is None or _is_own_syntax_error(error, cells)):
        return _format_syntax_error(error)
    return "\n\n".join(_format_chain(error, tb, cells, set()))


def _is_own_syntax_error(error: SyntaxError, cells: dict[str, str]) -> bool:
    return error.filename in cells


def _format_syntax_error(error: SyntaxError) -> str:
    lines = [f"  {error.filename}, line {error.lineno}"]
    if error.text:
        text = error.text.rstrip("\n")
        lines.append(f"    {text.lstrip()}")
        if error.offset is not None and error.offset > 0:
            shift = len(text) - len(text.lstrip())
            lines.append("    " + " " * max(error.offset - 1 - shift, 0) + "^")
    lines.append(_last_line(error))
    return "\n".join(lines)


def _format_chain(
    error: BaseException, tb: TracebackType | None, cells: dict[str, str], seen: set[int]
) -> list[str]:
    seen.add(id(error))
    parts: list[str] = []
    cause = error.__cause__
    context = None if error.__suppress_context__ else error.__context__
    before = cause or context
    if before is not None and id(before) not in seen:
        parts += _format_chain(before, before.__traceback__, cells, seen)
        parts.append(
            "The above exception was the direct cause of the following exception:"
            if cause is not None
            else "During handling of the above exception, another exception occurred:"
        )
    name = type(error).__name__
    header = f"{RULE}\n{name}{HEAD:>{max(len(RULE) - len(name), len(HEAD) + 1)}}"
    frames = _frames(tb, cells)
    shown = "\n\n".join([*frames, _last_line(error)])
    parts.append(f"{header}\n{shown}")
    return parts


def _last_line(error: BaseException) -> str:
    """The name of the exception, without its module, and its message."""
    name = type(error).__name__
    if isinstance(error, SyntaxError):
        return f"{name}: {error.msg}"
    try:
        message = str(error)
    except Exception:
        message = "<exception str() failed>"
    lines = [f"{name}: {message}" if message else f"{name}: ", *getattr(error, "__notes__", ())]
    return "\n".join(str(line) for line in lines).rstrip()


def _frames(tb: TracebackType | None, cells: dict[str, str]) -> list[str]:
    stops: list[tuple[CodeType, int]] = []
    while tb is not None:
        code = tb.tb_frame.f_code
        if not _is_ours(code):
            stops.append((code, tb.tb_lineno))
        tb = tb.tb_next
    runs = [(code, lineno, len(list(same))) for (code, lineno), same in groupby(stops)]
    if len(runs) <= MAX_FRAMES:
        return [_frame(*run, cells) for run in runs]
    half = MAX_FRAMES // 2
    skipped = sum(times for _, _, times in runs[half:-half])
    return [
        *(_frame(*run, cells) for run in runs[:half]),
        f"    [... skipping {skipped} frames]",
        *(_frame(*run, cells) for run in runs[-half:]),
    ]


def _is_ours(code: CodeType) -> bool:
    return code.co_filename.startswith(_HERE)


def _frame(code: CodeType, lineno: int, times: int, cells: dict[str, str]) -> str:
    name = code.co_qualname
    where = "" if name == "<module>" else f", in {name}{_arguments(code)}"
    source = cells.get(code.co_filename)
    if source is not None:
        head = f"{code.co_filename}, line {lineno}{where}"
        pieces = _pieces(source)
    else:
        head = f"File {_short(code.co_filename)}:{lineno}{where}"
        source = "".join(linecache.getlines(code.co_filename))
        pieces = [(n, n) for n in range(max(lineno - CONTEXT, 1), lineno + CONTEXT + 1)]
    lines = [head, *_excerpt(source.splitlines(), pieces, lineno)]
    if times > 1:
        again = f"{name} at line {lineno} ({times - 1} times)"
        lines.append(f"\n    [... skipping similar frames: {again}]")
    return "\n".join(lines)


def _arguments(code: CodeType) -> str:
    if code.co_name in ("<lambda>", "<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>"):
        return f"({', '.join(code.co_varnames[: code.co_argcount])})"
    n = code.co_argcount + code.co_kwonlyargcount
    names = list(code.co_varnames[:n])
    if code.co_flags & 0x04:
        names.insert(code.co_argcount, f"*{code.co_varnames[n]}")
        n += 1
    if code.co_flags & 0x08:
        names.append(f"**{code.co_varnames[n]}")
    return f"({', '.join(names)})"


def _excerpt(lines: list[str], pieces: list[tuple[int, int]], lineno: int) -> list[str]:
    at = next((i for i, (lo, hi) in enumerate(pieces) if lo <= lineno <= hi), None)
    if at is None:
        return []
    out = []
    for lo, hi in pieces[max(at - CONTEXT, 0) : at + CONTEXT + 1]:
        for n in range(lo, min(hi, len(lines)) + 1):
            mark = f"{n:>7} " if n != lineno else "-" * max(5 - len(str(n)), 1) + f"> {n} "
            out.append(f"{mark}{lines[n - 1]}".rstrip())
    return out


def _pieces(source: str) -> list[tuple[int, int]]:
    """Line ranges (1-based, inclusive) of a cell's statements and of what stands between them."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return [(n, n) for n in range(1, source.count("\n") + 2)]
    lines = source.splitlines()
    spans: list[tuple[int, int]] = []
    _statement_spans(tree.body, spans)
    pieces: list[tuple[int, int]] = []
    done = 0
    for lo, hi in sorted(spans):
        if lo > done + 1:
            pieces.append((done + 1, lo - 1))
        if hi > done:
            pieces.append((max(lo, done + 1), hi))
            done = hi
    if done < len(lines):
        pieces.append((done + 1, len(lines)))
    trimmed = (_trim(lines, lo, hi) for lo, hi in pieces)
    return [(lo, hi) for lo, hi in trimmed if lo <= hi]


def _statement_spans(body: list[ast.stmt], spans: list[tuple[int, int]]) -> None:
    for node in body:
        inner: list[ast.stmt] = []
        for field in ("body", "orelse", "finalbody"):
            inner += getattr(node, field, [])
        for handler in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            inner += handler.body
        start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        end = node.end_lineno or node.lineno
        spans.append((start, max(start, inner[0].lineno - 1) if inner else end))
        _statement_spans(inner, spans)


def _trim(lines: list[str], lo: int, hi: int) -> tuple[int, int]:
    while lo <= hi and not lines[lo - 1].strip():
        lo += 1
    while lo <= hi and not lines[hi - 1].strip():
        hi -= 1
    return lo, hi


def _short(path: str) -> str:
    """A library file by its name under the folder it is imported from."""
    for folder in sorted((p for p in sys.path if p), key=len, reverse=True):
        if path.startswith(folder.rstrip("/") + "/"):
            return path[len(folder.rstrip("/")) + 1 :]
    return path


_HERE = __file__.rpartition("/")[0] + "/"
