"""What `get_ipython()` returns in a session: the parts of IPython's shell that code uses."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from scdpo.sandbox.notebook import magics
from scdpo.sandbox.notebook.pretty import Show, pretty

_EXPRESSION = re.compile(r"\{([^{}]+)\}|\$(\w+)")


class Formatter:
    """How values of some classes are shown in a medium; only `text/plain` is ever shown."""

    enabled = True

    def __init__(self) -> None:
        self.type_printers: dict[type, Show] = {}

    def for_type(self, kind: type, show: Show | None = None) -> Show | None:
        """Register how a class is shown; returns what was registered before."""
        before = self.type_printers.get(kind)
        if show is not None:
            self.type_printers[kind] = show
        return before

    def pop(self, kind: type, default: object = None) -> object:
        return self.type_printers.pop(kind, default)


class DisplayFormatter:
    """Formatters by medium."""

    def __init__(self) -> None:
        self.formatters: defaultdict[str, Formatter] = defaultdict(Formatter)

    def text(self, value: object) -> str | None:
        """The text shown for a value; None if the value has shown itself.

        Raises whatever the value's own methods raise.
        """
        itself = _method(value, "_ipython_display_")
        if itself is not None:
            try:
                itself(value)
                return None
            except NotImplementedError:
                pass
        bundle = _method(value, "_repr_mimebundle_")
        if bundle is not None:
            shown = bundle(value, include=None, exclude=None)
            shown = shown[0] if isinstance(shown, tuple) else shown
            if isinstance(shown, dict) and "text/plain" in shown:
                return str(shown["text/plain"])
        return pretty(value, self.formatters["text/plain"].type_printers)


def _method(value: object, name: str) -> Callable[..., Any] | None:
    for kind in type(value).__mro__:
        if name in kind.__dict__:
            method = getattr(kind, name)
            return method if callable(method) else None
    return None


class Events:
    """Accepts callbacks and never calls them."""

    def register(self, event: str, function: Callable[..., object]) -> None:
        pass

    def unregister(self, event: str, function: Callable[..., object]) -> None:
        pass


class Cells(Protocol):
    """What the shell needs from its notebook."""

    names: dict[str, Any]
    count: int

    def evaluate(self, code: str, name: str) -> object:
        """Run code that is not a cell of its own; returns the value of its last expression."""
        ...

    def show(self, value: object) -> None:
        """Show a value as the result of a cell is shown."""
        ...

    def show_current_error(self) -> None:
        """Show the exception that is being handled."""
        ...


class InteractiveShell:
    """The shell of a notebook."""

    ast_node_interactivity = "last_expr"
    colors = "nocolor"
    config: ClassVar[dict[str, object]] = {}
    _only: ClassVar[InteractiveShell | None] = None

    def __init__(self, notebook: Cells) -> None:
        self._notebook = notebook
        self.display_formatter = DisplayFormatter()
        self.events = Events()
        InteractiveShell._only = self

    @classmethod
    def instance(cls) -> InteractiveShell | None:
        return InteractiveShell._only

    @classmethod
    def initialized(cls) -> bool:
        return InteractiveShell._only is not None

    @property
    def user_ns(self) -> dict[str, Any]:
        return self._notebook.names

    user_global_ns = user_ns

    @property
    def execution_count(self) -> int:
        # As in a notebook, the number of the next cell while this one runs.
        return self._notebook.count + 1

    def run_line_magic(self, name: str, line: str) -> object:
        """Do what `%name line` does. Raises UsageError if there is no such magic."""
        found = magics.LINE.get(name)
        if found is None:
            raise magics.UsageError(f"Line magic function `%{name}` not found.")
        return found(self, line)

    def run_cell_magic(self, name: str, line: str, cell: str) -> object:
        """Do what `%%name line` does with the rest of its cell. Raises UsageError likewise."""
        found = magics.CELL.get(name)
        if found is None:
            raise magics.UsageError(f"Cell magic `%%{name}` not found.")
        return found(self, line, cell)

    def magic(self, line: str) -> object:
        name, _, rest = line.lstrip("%").partition(" ")
        return self.run_line_magic(name, rest.strip())

    def run_cell(self, code: str, store_history: bool = False, silent: bool = False) -> None:
        """Run code as a cell, and show the value of its last expression or its error."""
        try:
            value = self.evaluate(code, "<cell>")
        except Exception:
            self.showtraceback()
            return
        if value is not None and not silent:
            self.show(value)

    def evaluate(self, code: str, name: str) -> object:
        """Run code in the notebook; returns the value of its last expression."""
        return self._notebook.evaluate(code, name)

    def ex(self, code: str) -> None:
        exec(code, self.user_ns)

    def ev(self, expression: str) -> object:
        return eval(expression, self.user_ns)

    def push(self, names: dict[str, object], interactive: bool = True) -> None:
        self.user_ns.update(names)

    def system(self, command: str) -> None:
        """Run a command and print its output."""
        sys.stdout.write(self._output(command))

    def getoutput(self, command: str, split: bool = True) -> list[str] | str:
        """Run a command; returns its output as lines, or as a text without `split`."""
        output = self._output(command)
        return output.splitlines() if split else output

    def _output(self, command: str) -> str:
        done = subprocess.run(
            self._filled_in(command),
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        return done.stdout

    def _filled_in(self, command: str) -> str:
        """The command with each `{expression}` and `$name` that has a value replaced by it."""

        def value(match: re.Match[str]) -> str:
            try:
                return str(eval(match[1] or match[2], self.user_ns))
            except Exception:
                return match[0]

        return _EXPRESSION.sub(value, command)

    def enable_matplotlib(self, gui: str | None = None) -> None:
        pass

    enable_gui = enable_pylab = enable_matplotlib

    def show(self, value: object) -> None:
        """Show a value as the result of a cell is shown."""
        self._notebook.show(value)

    def showtraceback(self, *_: object, **__: object) -> None:
        """Show the exception that is being handled."""
        self._notebook.show_current_error()


class ZMQInteractiveShell(InteractiveShell):
    """The shell under the name by which code tells a notebook from a terminal."""


InteractiveShell.__module__ = "IPython.core.interactiveshell"
ZMQInteractiveShell.__module__ = "ipykernel.zmqshell"
