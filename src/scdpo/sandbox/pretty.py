"""A value as a notebook's `Out[n]` shows it: `repr`, with long containers broken into lines.

The layout follows what notebooks do: a container that does not fit into 79 columns puts each
element on a line of its own, sets are sorted, and after 1,000 elements comes an ellipsis.
"""

from __future__ import annotations

import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")

WIDTH = 79
MAX_ELEMENTS = 1000


@dataclass
class _Group:
    """`start`, children separated by commas, `end`; broken lines are indented by `step`."""

    start: str
    children: list[list[str | _Group]]
    end: str
    step: int

    @property
    def has_newline(self) -> bool:
        return any(
            "\n" in part if isinstance(part, str) else part.has_newline
            for child in self.children
            for part in child
        )


def pretty(value: object) -> str:
    """The text a notebook shows for a value. Raises whatever the value's `__repr__` raises."""
    return _layout(_parts(value, set()), 0, 0, 0)[0]


def _layout(parts: list[str | _Group], indent: int, column: int, trailing: int) -> tuple[str, int]:
    """The text of `parts` and the column it ends in.

    `indent` is where broken lines start, `trailing` how many characters follow on the same line.
    """
    out: list[str] = []
    for at, part in enumerate(parts):
        after = trailing if at == len(parts) - 1 else 0
        if isinstance(part, _Group):
            text, column = _layout_group(part, indent, column, after)
        else:
            text = part.replace("\n", "\n" + " " * indent)
            tail = text.rpartition("\n")[2]
            column = len(tail) if "\n" in text else column + len(text)
        out.append(text)
    return "".join(out), column


def _layout_group(group: _Group, indent: int, column: int, trailing: int) -> tuple[str, int]:
    flat = None if group.has_newline else _flat([group], WIDTH - column - trailing)
    if flat is not None:
        return flat, column + len(flat)
    inner = indent + group.step
    column += len(group.start)
    out = [group.start]
    for at, child in enumerate(group.children):
        if at:
            out.append(",\n" + " " * inner)
            column = inner
        last = at == len(group.children) - 1
        text, column = _layout(child, inner, column, len(group.end) + trailing if last else 1)
        out.append(text)
    out.append(group.end)
    return "".join(out), column + len(group.end)


def _flat(parts: list[str | _Group], room: int) -> str | None:
    """The parts on one line, or None where that takes more than `room` characters."""
    out: list[str] = []
    for part in parts:
        if isinstance(part, str):
            text: str | None = part
        else:
            pieces: list[str] = []
            left = room - len(part.start) - len(part.end)
            for child in part.children:
                piece = _flat(child, left)
                if piece is None:
                    return None
                pieces.append(piece)
                left -= len(piece) + 2
            text = part.start + ", ".join(pieces) + part.end
        if text is None or len(text) > room:
            return None
        room -= len(text)
        out.append(text)
    return "".join(out)


def _parts(value: object, open_ids: set[int]) -> list[str | _Group]:
    """A value as strings and groups; `open_ids` are the containers around it."""
    kind = type(value)
    shown = _CONTAINERS.get(kind.__repr__)
    if shown is None:
        return [_atom(value)]
    start, end = shown
    if id(value) in open_ids:
        return [f"{start}...{end}"]
    open_ids.add(id(value))
    try:
        return _container(value, kind, start, end, open_ids)
    finally:
        open_ids.discard(id(value))


def _container(
    value: object, kind: type, start: str, end: str, open_ids: set[int]
) -> list[str | _Group]:
    if isinstance(value, dict):
        pairs = [
            [*_parts(k, open_ids), ": ", *_parts(v, open_ids)] for k, v in _capped(value.items())
        ]
        body = _Group("{", _with_ellipsis(pairs, len(value)), "}", 1)
        return _named_dict(value, body)
    assert isinstance(value, list | tuple | set | frozenset | deque)
    if not value and isinstance(value, set | frozenset):
        return [f"{kind.__name__}()"]
    elements: Iterable[object] = value
    if isinstance(value, set | frozenset) and len(value) <= MAX_ELEMENTS:
        elements = _sorted(value)
    children = [_parts(element, open_ids) for element in _capped(elements)]
    if isinstance(value, tuple) and len(value) == 1:
        end = "," + end
    return [_Group(start, _with_ellipsis(children, len(value)), end, len(start))]


def _named_dict(value: dict[object, object], body: _Group) -> list[str | _Group]:
    name = type(value).__name__
    if isinstance(value, defaultdict):
        factory = [_atom(value.default_factory)]
        return [_Group(f"{name}(", [[*factory], [body]], ")", len(name) + 1)]
    if isinstance(value, Counter):
        most = {k: value[k] for k, _ in value.most_common()}
        inner: list[list[str | _Group]] = [_parts(most, set())] if most else []
        return [_Group(f"{name}(", inner, ")", len(name) + 1)]
    if isinstance(value, OrderedDict):
        inner = [_parts(list(value.items()), set())] if value else []
        return [_Group(f"{name}(", inner, ")", len(name) + 1)]
    return [body]


def _capped(elements: Iterable[T]) -> list[T]:
    return list(islice(elements, MAX_ELEMENTS))


def _with_ellipsis(children: list[list[str | _Group]], length: int) -> list[list[str | _Group]]:
    return [*children, ["..."]] if length > MAX_ELEMENTS else children


def _sorted(elements: Iterable[object]) -> list[object]:
    items: list[Any] = list(elements)
    try:
        return sorted(items)
    except Exception:
        try:
            return sorted(items, key=str)
        except Exception:
            return items


def _atom(value: object) -> str:
    if isinstance(value, type) and type(value).__repr__ is type.__repr__:
        module = value.__module__
        return value.__qualname__ if module == "builtins" else f"{module}.{value.__qualname__}"
    if isinstance(value, types.FunctionType):
        return f"<function {value.__module__}.{value.__qualname__}{_signature(value)}>"
    if isinstance(value, types.BuiltinFunctionType):
        if isinstance(value.__self__, types.ModuleType) or value.__self__ is None:
            return f"<function {_dotted(value)}{_signature(value)}>"
        return repr(value)
    if type(value).__repr__ is object.__repr__:
        kind = type(value)
        return f"<{kind.__module__}.{kind.__qualname__} at {id(value):#x}>"
    return repr(value)


def _dotted(value: types.BuiltinFunctionType) -> str:
    module = value.__module__
    return value.__qualname__ if module in (None, "builtins") else f"{module}.{value.__qualname__}"


def _signature(value: Callable[..., object]) -> str:
    import inspect

    try:
        return str(inspect.signature(value))
    except (ValueError, TypeError):
        return ""


# Keyed by the `__repr__` in force, so that a subclass with its own is shown by its own.
_CONTAINERS: dict[object, tuple[str, str]] = {
    list.__repr__: ("[", "]"),
    tuple.__repr__: ("(", ")"),
    set.__repr__: ("{", "}"),
    frozenset.__repr__: ("frozenset({", "})"),
    dict.__repr__: ("{", "}"),
    defaultdict.__repr__: ("defaultdict(", ")"),
    Counter.__repr__: ("Counter(", ")"),
    OrderedDict.__repr__: ("OrderedDict(", ")"),
    deque.__repr__: ("deque([", "])"),
}
