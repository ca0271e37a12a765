"""Breaks a text of nested groups into lines, from left to right, as notebooks do.

A group that does not fit on its line is broken at all its possible places, the outermost group
first. Decisions are final: a line that has been written is not changed, so that later text may
break a group after some of it has been written on one line.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(eq=False)
class _Group:
    depth: int
    waiting: int = 0
    """Possible breaks that are held back, because nothing has been decided about them."""
    broken: bool = False


@dataclass
class _Break:
    flat: str
    indent: int
    group: _Group


class Layout:
    """Takes text, possible breaks and groups; `result` is the text broken into lines."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.indentation = 0
        self._written: list[str] = []
        self._column = 0
        self._held: deque[str | _Break] = deque()
        self._held_width = 0
        outermost = _Group(0)
        self._open = [outermost]
        # The groups that may still be broken, by depth.
        self._whole = [[outermost]]

    def result(self) -> str:
        """The text so far. Nothing can be added afterwards."""
        self._write_held()
        return "".join(self._written)

    def text(self, text: str) -> None:
        """Add text that is never broken."""
        if self._held:
            self._hold(text, len(text))
        else:
            self._written.append(text)
            self._column += len(text)

    def fits(self, text: str) -> bool:
        """Whether this text can be added without breaking a group."""
        return not self._held or self._column + self._held_width + len(text) <= self.width

    def breakable(self, sep: str = " ") -> None:
        """Add a possible break: a new line if the innermost group is broken, otherwise `sep`."""
        group = self._open[-1]
        if group.broken:
            self._write_held()
            self._new_line(self.indentation)
        else:
            group.waiting += 1
            self._hold(_Break(sep, self.indentation, group), len(sep))

    def break_(self) -> None:
        """Start a new line here."""
        self._break_outermost()
        self._write_held()
        self._new_line(self.indentation)

    def begin_group(self, indent: int = 0, open: str = "") -> None:  # noqa: A002
        """Open a group after the text `open`; its broken lines are indented by `indent` more."""
        if open:
            self.text(open)
        group = _Group(len(self._open))
        self._open.append(group)
        if len(self._whole) <= group.depth:
            self._whole.append([])
        self._whole[group.depth].append(group)
        self.indentation += indent

    def end_group(self, dedent: int = 0, close: str = "") -> None:
        """Close the innermost group, and add the text `close`."""
        self.indentation -= dedent
        group = self._open.pop()
        if not group.waiting:
            self._forget(group)
        if close:
            self.text(close)

    @contextlib.contextmanager
    def group(self, indent: int = 0, open: str = "", close: str = "") -> Iterator[None]:  # noqa: A002
        """`begin_group` and `end_group` around a block."""
        self.begin_group(indent, open)
        try:
            yield
        finally:
            self.end_group(indent, close)

    def _hold(self, piece: str | _Break, width: int) -> None:
        self._held.append(piece)
        self._held_width += width
        while self._column + self._held_width > self.width and self._break_outermost():
            pass

    def _break_outermost(self) -> bool:
        """Break the outermost group with undecided breaks, and write what that decides."""
        for groups in self._whole:
            for place, group in enumerate(reversed(groups)):
                if group.waiting:
                    # Not the index of this group but the mirrored one: notebooks remove that, and
                    # their output depends on it.
                    del groups[place]
                    group.broken = True
                    self._write_up_to(group)
                    return True
            for group in groups:
                group.broken = True
            groups.clear()
        return False

    def _write_up_to(self, group: _Group) -> None:
        """Write what is held, up to the group's last undecided break and the text after it."""
        while group.waiting or (self._held and isinstance(self._held[0], str)):
            self._write_next()

    def _write_held(self) -> None:
        while self._held:
            self._write_next()

    def _write_next(self) -> None:
        piece = self._held.popleft()
        if isinstance(piece, str):
            self._held_width -= len(piece)
            self._written.append(piece)
            self._column += len(piece)
            return
        self._held_width -= len(piece.flat)
        piece.group.waiting -= 1
        if piece.group.broken:
            self._new_line(piece.indent)
            return
        if not piece.group.waiting:
            self._forget(piece.group)
        self._written.append(piece.flat)
        self._column += len(piece.flat)

    def _new_line(self, indent: int) -> None:
        self._written.append("\n" + " " * indent)
        self._column = indent

    def _forget(self, group: _Group) -> None:
        groups = self._whole[group.depth]
        if group in groups:
            groups.remove(group)
