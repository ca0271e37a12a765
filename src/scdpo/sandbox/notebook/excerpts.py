"""The lines of source around the line that raised, as a notebook's traceback shows them.

These are whole statements of the function that raised, with some before and after, moved to the
left margin, without blank lines, and without the middle of long statements.
"""

from __future__ import annotations

import ast
import textwrap
from types import CodeType

MAX_LINES = 6
"""Lines shown of a statement that did not raise."""
MAX_PARSED = 200_000
"""The largest source, in characters, that is parsed to show a line of it."""

Piece = tuple[int, int]
"""First and last line (from 1) of a statement, or of the text between two statements."""
_Scope = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def excerpt(source: str, code: CodeType, line: int, context: int) -> list[str]:
    """The numbered lines shown for `line` of the text `source`, in which `code` was running.

    `context`: the number of pieces (see `Piece`) shown before and after.
    """
    lines = source.splitlines()
    pieces = _pieces_around(source, lines, code)
    at = next((i for i, (first, last) in enumerate(pieces) if first <= line <= last), None)
    if at is None:
        return []
    numbers: list[int | None] = []
    for first, last in pieces[max(at - context, 0) : at + context + 1]:
        shown: list[int | None] = list(range(first, min(last, len(lines)) + 1))
        if len(shown) > MAX_LINES and not first <= line <= last:
            shown[MAX_LINES // 2 : -(MAX_LINES - MAX_LINES // 2 - 1)] = [None]
        numbers += shown
    texts = iter(textwrap.dedent("\n".join(lines[n - 1] for n in numbers if n)).split("\n"))
    return [_numbered(n, line, next(texts) if n else "") for n in numbers]


def _numbered(number: int | None, line: int, text: str) -> str:
    if number is None:
        return "   (...)"
    if number != line:
        return f"{number:>7} {text}".rstrip()
    return f"{'-' * max(5 - len(str(number)), 1)}> {number} {text}".rstrip()


def _pieces_around(source: str, lines: list[str], code: CodeType) -> list[Piece]:
    """The pieces of the scope that `code` belongs to."""
    try:
        if code.co_name.startswith("<") or code.co_filename.startswith("Cell "):
            if len(source) > MAX_PARSED:
                return _single_lines(lines)
            tree = ast.parse(source)
            return _pieces(_scope(tree, code), lines, 0)
        first, last = _span(code)
        tree = ast.parse(textwrap.dedent("\n".join(lines[first - 1 : last])))
        return _pieces(_scope(tree, code, first - 1), lines, first - 1)
    except (SyntaxError, ValueError):
        return _single_lines(lines)


def _single_lines(lines: list[str]) -> list[Piece]:
    return [(n, n) for n in range(1, len(lines) + 1)]


def _span(code: CodeType) -> Piece:
    """First and last line of a function's source, as far as its code object tells."""
    last = code.co_firstlineno
    for constant in (code, *(c for c in code.co_consts if isinstance(c, CodeType))):
        if constant is not code:
            last = max(last, _span(constant)[1])
        last = max([last, *(end for _, end, _, _ in constant.co_positions() if end)])
    return code.co_firstlineno, last


def _scope(tree: ast.Module, code: CodeType, skipped: int = 0) -> _Scope:
    """The function or class that `code` was compiled from, or that contains its lambda.

    `skipped`: the number of lines of the file before those of `tree`.
    """
    start = code.co_firstlineno - skipped
    found: _Scope = tree
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        first, last = _lines_of(node)
        if code.co_name == node.name and first == start:
            return node
        if code.co_name.startswith("<") and code.co_name != "<module>" and first < start <= last:
            found = node
    return found


def _lines_of(node: ast.stmt) -> Piece:
    decorators = getattr(node, "decorator_list", ())
    return min([node.lineno, *(d.lineno for d in decorators)]), node.end_lineno or node.lineno


def _pieces(scope: _Scope, lines: list[str], skipped: int) -> list[Piece]:
    """The statements of a scope and the text between them, without blank lines at their ends."""
    if isinstance(scope, ast.Module):
        first, end, body = 1, len(lines) - skipped, scope.body
    else:
        first, end, body = *_lines_of(scope), [scope]
    spans: list[Piece] = []
    _add_spans(body, spans)
    found: list[Piece] = []
    done = first - 1
    for start, last in sorted(spans):
        if start > done + 1:
            found.append((done + 1, start - 1))
        if last > done:
            found.append((max(start, done + 1), last))
            done = last
    if done < end:
        found.append((done + 1, end))
    trimmed = (_trimmed(lines, start + skipped, last + skipped) for start, last in found)
    return [(start, last) for start, last in trimmed if start <= last]


def _add_spans(body: list[ast.stmt], spans: list[Piece]) -> None:
    for node in body:
        inner: list[ast.stmt] = []
        for field in ("body", "orelse", "finalbody"):
            inner += getattr(node, field, [])
        for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            inner += part.body
        first, last = _lines_of(node)
        spans.append((first, max(first, _lines_of(inner[0])[0] - 1) if inner else last))
        _add_spans(inner, spans)


def _trimmed(lines: list[str], first: int, last: int) -> Piece:
    while first <= last and not lines[first - 1].strip():
        first += 1
    while first <= last and not lines[last - 1].strip():
        last -= 1
    return first, last
