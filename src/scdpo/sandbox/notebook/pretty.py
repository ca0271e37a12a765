"""Shows a value as a notebook's `Out[n]` does: `repr`, with long containers broken into lines.

As in notebooks, a container that does not fit into 79 columns puts each element on a line of its
own, sets are sorted, an ellipsis follows after 1,000 elements, functions show their signature, and
a class can define how it is shown (`_repr_pretty_`).
"""

from __future__ import annotations

import inspect
import os
import re
import types
from collections import Counter, OrderedDict, UserList, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import suppress
from typing import Any

from scdpo.sandbox.notebook.layout import Layout

WIDTH = 79
MAX_ELEMENTS = 1000
# Shown by their `repr`, which is a single line.
_PLAIN = frozenset((int, float, complex, str, bytes, bool, type(None)))

Show = Callable[[Any, "Printer", bool], object]
"""Shows a value on a printer; the flag is set if the value contains itself."""


def pretty(value: object, shows: Mapping[type, Show] | None = None) -> str:
    """The text that a notebook shows for a value. Raises whatever the value's own methods raise.

    `shows`: how to show values of further classes.
    """
    printer = Printer(shows or {})
    printer.pretty(value)
    return printer.result()


class Printer(Layout):
    """The printer passed to `_repr_pretty_`, with `text`, `breakable`, `group` and `pretty`."""

    verbose = False
    max_seq_length = MAX_ELEMENTS

    def __init__(self, shows: Mapping[type, Show]) -> None:
        super().__init__(WIDTH)
        self.stack: list[int] = []
        self._shows = shows

    def pretty(self, value: object) -> None:
        """Add the text that is shown for a value."""
        if type(value) in _PLAIN and not self._shows and self.fits(text := repr(value)):
            self.text(text)
            return
        inside_itself = id(value) in self.stack
        self.stack.append(id(value))
        self.begin_group()
        try:
            self._show_of(value)(value, self, inside_itself)
        finally:
            self.end_group()
            self.stack.pop()

    def call(self, name: str, values: Iterable[object], named: Mapping[str, object]) -> None:
        """Add a call `name(…)` with these arguments."""
        with self.group(), self.group(len(name) + 1, f"{name}(", ")"):
            started = False
            for value in values:
                self._next(started)
                self.pretty(value)
                started = True
            for key, value in named.items():
                self._next(started)
                with self.group(len(key) + 1, f"{key}="):
                    self.pretty(value)
                started = True

    def elements(self, values: Iterable[object]) -> Iterator[object]:
        """The values up to the limit, with a comma and a possible break added between them."""
        for at, value in enumerate(values):
            self._next(at > 0)
            if at == MAX_ELEMENTS:
                self.text("...")
                return
            yield value

    def _next(self, started: bool) -> None:
        if started:
            self.text(",")
            self.breakable()

    def _show_of(self, value: object) -> Show:
        if any(value is single for single in (None, True, False, ..., NotImplemented)):
            return _show_repr
        for kind in type(value).__mro__:
            show = self._shows.get(kind) or _SHOWS.get(kind)
            if show is not None:
                return show
            own = kind.__dict__
            if "_repr_pretty_" in own and callable(kind._repr_pretty_):  # type: ignore[attr-defined]
                method: Show = kind._repr_pretty_  # type: ignore[attr-defined]
                return method
            if kind is not object and "__repr__" in own and callable(kind.__repr__):
                return _show_repr
        return _show_plain


def _show_repr(value: object, printer: Printer, inside_itself: bool) -> None:
    with printer.group():
        for at, line in enumerate(repr(value).splitlines()):
            if at:
                printer.break_()
            printer.text(line)


def _show_plain(value: object, printer: Printer, inside_itself: bool) -> None:
    if type(value).__repr__ is not object.__repr__:
        _show_repr(value, printer, inside_itself)
        return
    with printer.group(1, "<", ">"):
        printer.pretty(type(value))
        printer.text(f" at {id(value):#x}")


def _show_list(value: list[object], printer: Printer, inside_itself: bool) -> None:
    _show_sequence(value, printer, inside_itself, "[", "]")


def _show_tuple(value: tuple[object, ...], printer: Printer, inside_itself: bool) -> None:
    _show_sequence(value, printer, inside_itself, "(", ",)" if len(value) == 1 else ")")


def _show_sequence(
    value: Iterable[object], printer: Printer, inside_itself: bool, start: str, end: str
) -> None:
    if inside_itself:
        printer.text(f"{start}...{end}")
        return
    with printer.group(len(start), start, end):
        for element in printer.elements(value):
            printer.pretty(element)


def _show_set(value: set[object], printer: Printer, inside_itself: bool) -> None:
    _show_any_set(value, printer, inside_itself, "{", "}")


def _show_frozenset(value: frozenset[object], printer: Printer, inside_itself: bool) -> None:
    _show_any_set(value, printer, inside_itself, "frozenset({", "})")


def _show_any_set(
    value: set[object] | frozenset[object],
    printer: Printer,
    inside_itself: bool,
    start: str,
    end: str,
) -> None:
    if not inside_itself and len(value) == 0:
        printer.text(f"{type(value).__name__}()")
        return
    elements = _sorted(value) if len(value) < MAX_ELEMENTS else value
    _show_sequence(elements, printer, inside_itself, start, end)


def _sorted(elements: Iterable[object]) -> list[object]:
    items: list[Any] = list(elements)
    for key in (None, str):
        with suppress(Exception):
            return sorted(items, key=key)
    return items


def _show_dict(value: Mapping[object, object], printer: Printer, inside_itself: bool) -> None:
    _show_mapping(value, printer, inside_itself, "{", "}")


def _show_proxy(value: Mapping[object, object], printer: Printer, inside_itself: bool) -> None:
    _show_mapping(value, printer, inside_itself, "mappingproxy({", "})")


def _show_environment(
    value: Mapping[object, object], printer: Printer, inside_itself: bool
) -> None:
    _show_mapping(value, printer, inside_itself, "environ{", "}")


def _show_mapping(
    value: Mapping[object, object], printer: Printer, inside_itself: bool, start: str, end: str
) -> None:
    if inside_itself:
        printer.text("{...}")
        return
    with printer.group(len(start), start, end):
        for key in printer.elements(value.keys()):
            printer.pretty(key)
            printer.text(": ")
            printer.pretty(value[key])


def _show_call(arguments: Callable[[Any], list[object]]) -> Show:
    """Show values as a call of their class, with the arguments that `arguments` returns."""

    def show(value: object, printer: Printer, inside_itself: bool) -> None:
        name = type(value).__name__
        if inside_itself:
            printer.text(f"{name}(...)")
        else:
            printer.call(name, arguments(value), {})

    return show


def _show_deque(value: deque[object], printer: Printer, inside_itself: bool) -> None:
    name = type(value).__name__
    if inside_itself:
        printer.text(f"{name}(...)")
    else:
        limit = {} if value.maxlen is None else {"maxlen": value.maxlen}
        printer.call(name, [list(value)], limit)


def _show_namespace(value: object, printer: Printer, inside_itself: bool) -> None:
    if inside_itself:
        printer.text("namespace(...)")
    else:
        printer.call("namespace", [], vars(value))


def _show_exception(value: BaseException, printer: Printer, inside_itself: bool) -> None:
    kind = type(value)
    printer.call(_dotted(kind.__module__, kind.__qualname__), value.args, {})


def _show_class(value: type, printer: Printer, inside_itself: bool) -> None:
    metaclass: type = type(value)
    for kind in metaclass.__mro__:
        if "__repr__" in kind.__dict__:
            if kind is not type:
                _show_repr(value, printer, inside_itself)
                return
            break
    printer.text(_dotted(value.__module__, value.__qualname__))


def _show_function(value: Callable[..., object], printer: Printer, inside_itself: bool) -> None:
    signature = ""
    with suppress(ValueError, TypeError):
        signature = str(inspect.signature(value))
    printer.text(f"<function {_dotted(value.__module__, value.__qualname__)}{signature}>")


def _show_super(value: Any, printer: Printer, inside_itself: bool) -> None:
    with printer.group(8, "<super: ", ">"):
        for element in printer.elements([value.__thisclass__, value.__self__]):
            printer.pretty(element)


def _show_pattern(value: re.Pattern[Any], printer: Printer, inside_itself: bool) -> None:
    flags = "|".join(f"re.{flag.name}" for flag in _FLAGS if value.flags & flag)
    pattern = "r" + repr(value.pattern).replace("\\\\", "\\")
    with printer.group(), printer.group(11, "re.compile(", ")"):
        for text in printer.elements([pattern, *([flags] if flags else [])]):
            printer.text(str(text))


def _dotted(module: object, name: str) -> str:
    return name if module in (None, "builtins") else f"{module}.{name}"


_FLAGS = (re.I, re.L, re.M, re.S, re.U, re.X, re.DEBUG)


def _filled(value: Sized, arguments: Callable[[Any], object]) -> list[object]:
    return [arguments(value)] if len(value) else []


# The first class in a value's method resolution order that is listed here decides, unless an
# earlier one has a `__repr__` of its own.
_SHOWS: dict[type, Show] = {
    **dict.fromkeys((int, float, str, bytes, range, slice, types.MethodType), _show_repr),
    list: _show_list,
    tuple: _show_tuple,
    set: _show_set,
    frozenset: _show_frozenset,
    dict: _show_dict,
    types.MappingProxyType: _show_proxy,
    type(os.environ): _show_environment,
    defaultdict: _show_call(lambda value: [value.default_factory, dict(value)]),
    OrderedDict: _show_call(lambda value: _filled(value, lambda v: list(v.items()))),
    Counter: _show_call(lambda value: _filled(value, lambda v: dict(v.most_common()))),
    UserList: _show_call(lambda value: [value.data]),
    deque: _show_deque,
    types.SimpleNamespace: _show_namespace,
    type: _show_class,
    types.FunctionType: _show_function,
    types.BuiltinFunctionType: _show_function,
    super: _show_super,
    re.Pattern: _show_pattern,
    BaseException: _show_exception,
}
