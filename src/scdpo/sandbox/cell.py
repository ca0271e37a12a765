"""Runs blocks of code one after another as a notebook runs its cells."""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import linecache
import os
import sys
import textwrap
import types
import warnings

from scdpo.sandbox.pretty import pretty
from scdpo.sandbox.tracebacks import format_error


class StdinNotImplementedError(NotImplementedError):
    """`input()` was called where no one can answer."""


class _Stdout(io.TextIOWrapper):
    """Line-buffered, and knows whether what it wrote last ended a line."""

    def __init__(self, fd: int) -> None:
        raw = io.FileIO(fd, "w", closefd=False)
        buffered = io.BufferedWriter(raw)
        super().__init__(buffered, "utf-8", "backslashreplace", line_buffering=True)
        self.at_line_start = True

    def write(self, text: str, /) -> int:
        n = super().write(text)
        if text:
            self.at_line_start = text[-1] == "\n"
        return n


class _Stderr(_Stdout):
    """Unbuffered, and lets standard output go first so that the two stay in order."""

    def write(self, text: str, /) -> int:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        n = super().write(text)
        self.flush()
        return n


class Notebook:
    """A namespace and the counter of its cells.

    Everything written to descriptors 1 and 2 and every result and traceback goes to `fd`.
    """

    def __init__(self, fd: int) -> None:
        self.count = 0
        self.cells: dict[str, str] = {}
        self.module = types.ModuleType("__main__")
        self.names = self.module.__dict__
        sys.modules["__main__"] = self.module
        self.names["__builtins__"] = builtins
        self.names["display"] = self.display
        self.names["exit"] = self.names["quit"] = sys.exit
        builtins.input = _no_input
        sys.displayhook = self._show_result
        self.redirect(fd)
        # A figure that cannot be shown is no news for the code that drew it.
        warnings.filterwarnings("ignore", message=".*non-interactive, and thus cannot be shown")

    def redirect(self, fd: int) -> None:
        """From here on, output goes to descriptor `fd`."""
        self.fd = fd
        self._claim_descriptors()
        self.stdout = _Stdout(1)
        self.stderr = _Stderr(2)
        sys.stdout = self.stdout
        sys.stderr = self.stderr

    def run(self, code: str) -> bool:
        """Run one block; False when it ended for want of memory."""
        self.count += 1
        self._claim_descriptors()
        if self.stdout.closed or self.stderr.closed:
            self.redirect(self.fd)
        self.stdout.at_line_start = self.stderr.at_line_start = True
        fits = True
        try:
            self._execute(code)
        except BaseException as error:
            fits = not isinstance(error, MemoryError)
            self._show_error(error)
        self.flush()
        return fits

    def display(self, *values: object) -> None:
        """Show values as a cell shows its last one."""
        for value in values:
            self._emit(pretty(value) + "\n")

    def _execute(self, code: str) -> None:
        name = f"Cell In[{self.count}]"
        source = _dedented(code.replace("\r\n", "\n").replace("\r", "\n"))
        self.cells[name] = source
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        tree = ast.parse(source, name)
        last = _last_expression(tree, source)
        if tree.body:
            exec(compile(tree, name, "exec"), self.names)
        if last is not None:
            sys.displayhook(eval(compile(last, name, "eval"), self.names))

    def _show_result(self, value: object, /) -> None:
        if value is None:
            return
        text = pretty(value)
        self.names["_"] = self.names[f"_{self.count}"] = value
        self._emit(text + "\n")

    def _show_error(self, error: BaseException) -> None:
        if isinstance(error, SystemExit):
            code = "" if error.code is None else f": {error.code}"
            hint = "An exception has occurred, use %tb to see the full traceback."
            self._emit(f"{hint}\n\nSystemExit{code}\n")
            return
        try:
            text = format_error(error, error.__traceback__, self.cells)
        except BaseException as again:
            text = f"{type(error).__name__}: <unprintable, {type(again).__name__}>"
        with contextlib.suppress(BaseException):
            self._emit(text + "\n")

    def _emit(self, text: str) -> None:
        self.flush()
        self._claim_descriptors()
        if not (self.stdout.at_line_start and self.stderr.at_line_start):
            text = "\n" + text
        self.stdout.at_line_start = self.stderr.at_line_start = True
        data = memoryview(text.encode("utf-8", "backslashreplace"))
        while data:
            data = data[os.write(self.fd, data) :]

    def flush(self) -> None:
        """Let go of all output that Python still holds."""
        for stream in (sys.stdout, sys.__stdout__, self.stdout, self.stderr):
            with contextlib.suppress(BaseException):
                if stream is not None:
                    stream.flush()

    def _claim_descriptors(self) -> None:
        """Undo what an earlier block may have done to descriptors 1 and 2."""
        os.set_blocking(self.fd, True)
        os.dup2(self.fd, 1)
        os.dup2(self.fd, 2)


def _no_input(prompt: object = "", /) -> str:
    raise StdinNotImplementedError(
        "raw_input was called, but this frontend does not support input requests."
    )


def _dedented(code: str) -> str:
    """The block without the indentation of its first line, which notebooks forgive."""
    first = next((line for line in code.split("\n") if line.strip()), "")
    return textwrap.dedent(code) if first[:1] in (" ", "\t") else code


def _last_expression(tree: ast.Module, source: str) -> ast.Expression | None:
    """Takes the last statement off `tree` if it is an expression whose value is shown."""
    if not tree.body or not isinstance(tree.body[-1], ast.Expr):
        return None
    node = tree.body[-1]
    lines = source.split("\n")
    end_line, end_column = node.end_lineno or 1, node.end_col_offset or 0
    rest = lines[end_line - 1].encode()[end_column:].decode(errors="replace")
    if rest.lstrip(" \t)").startswith(";"):
        return None
    tree.body.pop()
    return ast.Expression(node.value)
