"""Runs blocks of code one after another, as a notebook runs its cells."""

from __future__ import annotations
import __future__

import ast
import builtins
import contextlib
import getpass
import linecache
import os
import re
import sys
import types
import warnings
from os import dup2 as _dup2
from os import set_blocking as _set_blocking
from sys import exc_info as _exc_info
from typing import Any

from scdpo.sandbox.notebook import ipython, source
from scdpo.sandbox.notebook.magics import UsageError
from scdpo.sandbox.notebook.mending import Mending
from scdpo.sandbox.notebook.plotting import PlottingWithoutScreen, close_figures
from scdpo.sandbox.notebook.shell import ZMQInteractiveShell
from scdpo.sandbox.notebook.tracebacks import class_name, format_error, last_line
from scdpo.sandbox.notebook.transcript import OutStream, Transcript

_LINES = linecache.cache
# A block may have replaced the builtin name.
_ANYTHING = BaseException
_UNDERSCORES = ("_", "__", "___")
# Compiled here, so that sessions need not compile it.
_UNSHOWN = re.compile(".*non-interactive, and thus cannot be shown", re.I)
_FUTURE = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)


class Notebook:
    """The names of a notebook and the history of its cells.

    Everything written to descriptors 1 and 2, and every result and traceback, goes to `fd`.
    """

    def __init__(self, fd: int) -> None:
        self._transcript = Transcript(fd)
        self._stdout = OutStream(self._transcript, "stdout", 1, hold=True)
        self._stderr = OutStream(self._transcript, "stderr", 2, hold=False)
        self._shell = ZMQInteractiveShell(self)
        self._take_over()
        self.restart()
        self.redirect(fd)
        # Text that is held back must not be written by a child as well.
        os.register_at_fork(before=self.flush)
        self._mending = Mending(self._stdout, self._stderr)

    def restart(self) -> None:
        """Forget all cells and their names."""
        self.count = 0
        self.cells: dict[str, str] = {}
        self._flags = 0
        self._fits = True
        self._inputs = [""]
        self._outputs: dict[int, object] = {}
        self._last: list[object] = ["", "", ""]
        self._previous = ""
        module = types.ModuleType("__main__", "Automatically created module for a notebook")
        self.names = module.__dict__
        sys.modules["__main__"] = module
        self.names |= {"__builtins__": builtins, "_ih": self._inputs, "_oh": self._outputs}
        self.names |= {"In": self._inputs, "Out": self._outputs, "_dh": [os.curdir]}
        self.names |= dict.fromkeys(("_", "__", "___", "_i", "_ii", "_iii"), "")
        self.names |= {"get_ipython": ipython.get_ipython, "exit": _Exit(), "quit": _Exit()}

    def _take_over(self) -> None:
        """Make this process look like a notebook to the code that runs in it."""
        vars(builtins).update(get_ipython=ipython.get_ipython, display=ipython.display)
        builtins.input = _no_input
        getpass.getpass = _no_password
        sys.stdout, sys.stderr = self._stdout, self._stderr
        sys.meta_path[:0] = [ipython.Finder(), PlottingWithoutScreen()]
        # Code that draws a figure need not hear that it cannot be shown.
        warnings.filterwarnings("ignore", message=_UNSHOWN.pattern)

    def redirect(self, fd: int) -> None:
        """From now on, write output to descriptor `fd`."""
        self.aim(fd)
        self._claim_descriptors()

    def aim(self, fd: int) -> None:
        """From the next cell on, write output to descriptor `fd`, which need not exist yet."""
        self._transcript.fd = fd

    def run(self, code: str) -> bool:
        """Run one block; False if it ran out of memory."""
        self._fits = True
        self._transcript.open_line = False
        self.names["__builtins__"] = builtins
        sys.displayhook = self._show_result
        self._claim_descriptors()
        try:
            self._execute(code)
        except _ANYTHING as error:
            self._show_error(error)
        self._mending.mend()
        close_figures()
        self.flush()
        return self._fits

    def evaluate(self, code: str, name: str) -> object:
        """Run code that is not a cell of its own; returns the value of its last expression.

        Raises whatever the code raises.
        """
        text = source.python_source(code)
        tree, text = self._parse(text, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        for node in tree.body:
            self._run_statement(node, name)
        if not isinstance(last, ast.Expr):
            return None
        return self._value(last, name)

    def show(self, value: object) -> None:
        """Show a value, or the error that showing it raises."""
        try:
            text = self._shell.display_formatter.text(value)
            if text is not None:
                self._write(text)
        except Exception as error:
            self._show_error(error)

    def flush(self) -> None:
        """Write all output that Python still holds."""
        for stream in (sys.stdout, sys.stderr, self._stdout):
            with contextlib.suppress(BaseException):
                stream.flush()

    def _execute(self, code: str) -> None:
        text = source.python_source(code)
        if not text.strip():
            return
        self.count += 1
        name = f"Cell In[{self.count}]"
        try:
            tree, text = self._parse(text, name)
        finally:
            self._remember_input(code, text)
        # A warning is shown once per line of a cell, not once per line number of all cells.
        self.names.pop("__warningregistry__", None)
        shown = self._shown(tree.body, text)
        for node in tree.body:
            if isinstance(node, ast.Expr) and node in shown:
                value = self._value(node, name)
                self._mending.mend()
                sys.displayhook(value)
            else:
                self._run_statement(node, name)

    def _parse(self, text: str, name: str) -> tuple[ast.Module, str]:
        """The statements of a cell, and its text with magics replaced by calls."""
        original, first = text, 0
        while True:
            self._note_source(text, name)
            try:
                return self._compile(text, name, "exec", ast.PyCF_ONLY_AST), text
            except SyntaxError as error:
                changed = source.repaired(text, error)
                if changed is None:
                    if first and (error.lineno or 0) <= first:
                        # What looked like a magic was not one.
                        self._note_source(original, name)
                        self._compile(original, name, "exec", ast.PyCF_ONLY_AST)
                    raise
                first = first or error.lineno or 0
                text = changed

    def _note_source(self, text: str, name: str) -> None:
        self.cells[name] = text
        _LINES[name] = (len(text), None, text.splitlines(keepends=True), name)

    def _compile(self, code: Any, name: str, mode: str, flags: int = 0) -> Any:
        # `dont_inherit`: the future imports of this file do not apply to the cell.
        return compile(code, name, mode, self._flags | flags, dont_inherit=True)

    def _run_statement(self, node: ast.stmt, name: str) -> None:
        code = self._compile(ast.Module([node], []), name, "exec")
        self._flags |= code.co_flags & _FUTURE
        exec(code, self.names)

    def _value(self, node: ast.Expr, name: str) -> object:
        return eval(self._compile(ast.Expression(node.value), name, "eval"), self.names)

    def _shown(self, nodes: list[ast.stmt], text: str) -> list[ast.stmt]:
        """The statements whose values are shown."""
        which = self._shell.ast_node_interactivity
        if not nodes or which == "none" or source.ends_silent(text, nodes[-1]):
            return []
        return nodes if which == "all" else nodes[-1:]

    def _show_result(self, value: object, /) -> None:
        if value is not None:
            self.show(value)
            self._remember_output(value)

    def _remember_input(self, code: str, text: str) -> None:
        before = [self.names.get(name, "") for name in ("_i", "_ii")]
        self.names |= {"_i": self._previous, "_ii": before[0], "_iii": before[1]}
        self.names[f"_i{self.count}"] = self._previous = code
        self._inputs.append(text)

    def _remember_output(self, value: object) -> None:
        if value is self._outputs:
            return
        # A name that the code uses for something else is left alone.
        free = all(
            name not in self.names or self.names[name] is value
            for name, value in zip(_UNDERSCORES, self._last, strict=True)
        )
        self._last = [value, *self._last[:2]]
        if free:
            self.names.update(zip(_UNDERSCORES, self._last, strict=True))
        self.names[f"_{self.count}"] = self._outputs[self.count] = value

    def show_current_error(self) -> None:
        """Show the exception that is being handled."""
        error = _exc_info()[1]
        if error is not None:
            self._show_error(error)

    def _show_error(self, error: BaseException) -> None:
        tb = _exc_info()[2]
        self._mending.mend()
        if issubclass(type(error), MemoryError):
            self._fits = False
        try:
            text = self._error_text(error, tb)
        except BaseException as again:
            text = f"{last_line(error)}\n<no traceback: {class_name(again)}>"
        with contextlib.suppress(BaseException):
            self._write(text)

    def _error_text(self, error: BaseException, tb: types.TracebackType | None) -> str:
        if isinstance(error, SystemExit):
            code = "" if error.code is None else f": {error.code}"
            hint = "An exception has occurred, use %tb to see the full traceback."
            return f"{hint}\n\nSystemExit{code}"
        if isinstance(error, UsageError):
            return f"UsageError: {error}"
        return format_error(error, tb, self.cells)

    def _write(self, text: str) -> None:
        self.flush()
        self._transcript.show(text)

    def _claim_descriptors(self) -> None:
        """Undo what an earlier block may have done to descriptors 1 and 2."""
        _set_blocking(self._transcript.fd, True)
        _dup2(self._transcript.fd, 1)
        _dup2(self._transcript.fd, 2)


class _Exit:
    """`exit` of a notebook, which ends neither the block nor, here, the session."""

    def __call__(self, keep_kernel: object = False) -> None:
        pass

    def _ipython_display_(self) -> None:
        pass


def _no_input(prompt: object = "", /) -> str:
    raise ipython.StdinNotImplementedError(
        "raw_input was called, but this frontend does not support input requests."
    )


def _no_password(prompt: object = "", stream: object = None) -> str:
    raise ipython.StdinNotImplementedError(
        "getpass was called, but this frontend does not support input requests."
    )
