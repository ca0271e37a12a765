"""Turns a cell's text into Python, by removing or replacing what only a notebook accepts.

That is blank lines and an indentation at the beginning, prompts copied from a shell, and magics
(`%magic`, `!command`, `name?`), which become calls of `get_ipython()`.
"""

from __future__ import annotations

import ast
import re

_INDENT = re.compile(r"[ \t]+")
_PROMPT = re.compile(r"^(?:>>> ?|\.\.\.(?: |$))")
_NUMBERED_PROMPT = re.compile(r"^(?:In \[\d+\]: ?| *\.{3,}: ?)")
_FIRST_NUMBERED_PROMPT = re.compile(r"^In \[\d+\]:")
_CELL_MAGIC = re.compile(r"%%(\S*)[ \t]*(.*)")
_ASSIGNED = re.compile(r"^(\s*[\w.,\s\[\]'\"*]+=\s*)(!|%)(.*)$")
_LINE_MAGIC = re.compile(r"^(\s*)(!!|!|%%?|\?\??)(.*)$")
_HELP = re.compile(r"^(\s*)([%\w.*]+)\?\??\s*;?\s*$")
_COMMENT = re.compile(r"#.*")


def python_source(cell: str) -> str:
    """The cell without indentation and prompts; a `%%magic` cell becomes a single call."""
    lines = cell.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while len(lines) > 1 and not lines[0].strip():
        lines.pop(0)
    indent = _INDENT.match(lines[0])
    if indent is not None and lines[0].strip():
        lines = [line.removeprefix(indent[0]) for line in lines]
    if _FIRST_NUMBERED_PROMPT.match(lines[0]):
        lines = [_NUMBERED_PROMPT.sub("", line, count=1) for line in lines]
    magic = _CELL_MAGIC.match(lines[0])
    if magic is not None:
        body = "".join(f"{line}\n" for line in lines[1:])
        arguments = f"{magic[1]!r}, {magic[2].rstrip()!r}, {body!r}"
        return f"get_ipython().run_cell_magic({arguments})"
    return "\n".join(lines)


def repaired(source: str, error: SyntaxError) -> str | None:
    """The source, with the line of `error` changed to something that Python accepts.

    A magic becomes a call; prompts are removed from all lines. None if the line has neither.
    """
    lines = source.split("\n")
    at = (error.lineno or 0) - 1
    if not 0 <= at < len(lines):
        return None
    if lines[at].startswith(">>>"):
        return "\n".join(_PROMPT.sub("", line, count=1) for line in lines)
    call = _call(lines[at])
    if call is None:
        return None
    lines[at] = call
    return "\n".join(lines)


def _call(line: str) -> str | None:
    if assigned := _ASSIGNED.match(line):
        target, mark, rest = assigned.groups()
        return f"{target}{_magic(mark + '!' if mark == '!' else mark, rest)}"
    if asked := _HELP.match(line):
        return f"{asked[1]}{_magic('?', asked[2])}"
    if magic := _LINE_MAGIC.match(line):
        return f"{magic[1]}{_magic(magic[2], magic[3])}"
    return None


def _magic(mark: str, rest: str) -> str:
    rest = rest.strip()
    if mark == "!":
        return f"get_ipython().system({rest!r})"
    if mark == "!!":
        return f"get_ipython().getoutput({rest!r})"
    if mark.startswith("?"):
        return f"get_ipython().run_line_magic('pinfo', {rest!r})"
    name, _, arguments = rest.partition(" ")
    return f"get_ipython().run_line_magic({name!r}, {arguments.strip()!r})"


def ends_silent(source: str, node: ast.stmt) -> bool:
    """Whether a semicolon after the last statement `node` suppresses its value."""
    lines = source.split("\n")[(node.end_lineno or 1) - 1 :]
    lines[0] = lines[0].encode()[node.end_col_offset or 0 :].decode(errors="replace")
    return any(";" in _COMMENT.sub("", line) for line in lines)
