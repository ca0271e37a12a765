"""The modules `IPython` and `IPython.display` of a session, whether or not IPython is installed.

They contain what code in a notebook imports: `display` and its objects, `get_ipython` and the
pretty printer. An object that a notebook would draw shows its name, as in the text version of a
notebook's output.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from scdpo.sandbox.notebook import magics, pretty, shell


class DisplayObject:
    """An object that a notebook would draw; its text is its name."""

    def __init__(
        self,
        data: Any = None,
        url: str | None = None,
        filename: str | None = None,
        metadata: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        if isinstance(data, Path):
            data, filename = None, str(data)
        self.data = data
        self.url = url
        self.filename = filename
        self.metadata = metadata or {}
        self.__dict__.update(settings)

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} object>"


class Pretty(DisplayObject):
    """A text that is shown unchanged."""

    def _repr_pretty_(self, printer: pretty.Printer, inside_itself: bool) -> None:
        printer.text(str(self.data))


class StdinNotImplementedError(NotImplementedError):
    """`input()` was called although there is nobody to answer."""


class DisplayHandle:
    """What `display` returns for an output with a `display_id`."""

    def __init__(self, display_id: str | None = None) -> None:
        self.display_id = display_id or "1"

    def __repr__(self) -> str:
        return f"<DisplayHandle display_id={self.display_id}>"

    def display(self, value: object, **_: object) -> None:
        display(value)

    update = display


def get_ipython() -> shell.InteractiveShell | None:
    """The shell of this session."""
    return shell.InteractiveShell.instance()


def display(
    *values: Any, display_id: str | bool | None = None, raw: bool = False, **_: Any
) -> DisplayHandle | None:
    """Show values as a cell shows the value of its last expression."""
    running = shell.InteractiveShell.instance()
    for value in values:
        if running is not None:
            running.show(Pretty(value.get("text/plain", "")) if raw else value)
    if not display_id:
        return None
    return DisplayHandle(None if display_id is True else display_id)


def update_display(value: Any, *, display_id: str, **_: Any) -> None:
    display(value)


def publish_display_data(data: dict[str, Any], *_: Any, **__: Any) -> None:
    display(data, raw=True)


def clear_output(wait: bool = False) -> None:
    """Do nothing: text that was printed cannot be taken back."""


def _ignore(*_: Any, **__: Any) -> None:
    """Accept a setting of the screen, of which there is none."""


def _print_pretty(value: object, *_: Any, **__: Any) -> None:
    sys.stdout.write(pretty.pretty(value) + "\n")


def _module(name: str, **contents: object) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__dict__.update(contents)
    module.__path__ = []
    return module


def _classes(module: str, *names: str) -> dict[str, type]:
    return {name: type(name, (DisplayObject,), {"__module__": module}) for name in names}


_CORE = "IPython.core.display"
_LIB = "IPython.lib.display"
_DRAWN = (
    *("TextDisplayObject", "HTML", "Latex", "Math", "Markdown", "SVG", "JSON", "GeoJSON"),
    *("Image", "Javascript", "ProgressBar", "Video"),
)
_LINKED = ("IFrame", "YouTubeVideo", "VimeoVideo", "FileLink", "FileLinks")
_MEDIA = ("html", "latex", "markdown", "png", "jpeg", "svg", "json", "javascript", "pretty")


def _modules() -> dict[str, types.ModuleType]:
    """The modules by name; submodules are also attributes of their parents."""
    _name_as_ipython()
    objects = _classes(_CORE, *_DRAWN) | {"DisplayObject": DisplayObject, "Pretty": Pretty}
    linked = {n: type(n, (), {"__module__": _LIB, "__init__": _ignore}) for n in _LINKED}
    more = _classes(_LIB, "Audio", "Code") | linked
    shows = (display, update_display, publish_display_data, clear_output, DisplayHandle)
    functions: dict[str, object] = {f.__name__: f for f in shows}
    functions |= {f"display_{medium}": display for medium in _MEDIA}
    functions |= {f"set_matplotlib_{what}": _ignore for what in ("formats", "close")}
    running = {"get_ipython": get_ipython, "InteractiveShell": shell.InteractiveShell}
    terminal = type("TerminalInteractiveShell", (), {"__module__": "IPython.terminal"})
    errors = (magics.UsageError, StdinNotImplementedError)
    version = {"__version__": "9.0.0", "version_info": (9, 0, 0, "")}
    found = [
        _module("IPython", **version, **running),
        _module("IPython.display", **objects, **more, **functions),
        _module("IPython.core"),
        _module("IPython.core.display", **objects, **functions),
        _module("IPython.core.display_functions", **functions),
        _module("IPython.core.getipython", get_ipython=get_ipython),
        _module("IPython.core.interactiveshell", **running),
        _module("IPython.core.error", **{error.__name__: error for error in errors}),
        _module("IPython.lib"),
        _module("IPython.lib.display", **more),
        _module("IPython.lib.pretty", pretty=pretty.pretty, pprint=_print_pretty),
        _module("IPython.terminal", embed=_ignore),
        _module("IPython.terminal.interactiveshell", TerminalInteractiveShell=terminal),
    ]
    by_name = {module.__name__: module for module in found}
    for name, module in by_name.items():
        parent, _, last = name.rpartition(".")
        if parent and not hasattr(by_name[parent], last):
            setattr(by_name[parent], last, module)
    return by_name


def _name_as_ipython() -> None:
    """Give the objects of this file the module names that they have in IPython."""
    for known in (DisplayObject, Pretty):
        known.__module__ = _CORE
    for function in (display, update_display, publish_display_data, clear_output, DisplayHandle):
        function.__module__ = "IPython.core.display_functions"
    get_ipython.__module__ = "IPython.core.getipython"
    StdinNotImplementedError.__module__ = "IPython.core.error"


MODULES = _modules()


class Finder(MetaPathFinder, Loader):
    """Finds the modules of this file before installed ones."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: object = None
    ) -> ModuleSpec | None:
        if fullname in MODULES:
            return ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return MODULES[spec.name]

    def exec_module(self, module: types.ModuleType) -> None:
        pass
