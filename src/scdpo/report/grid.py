"""A table that fits a terminal of any width, or becomes Markdown, without losing text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

Align = Literal["left", "right", "number"]
"""`number`: values are right-aligned among themselves so that their decimals line up; details
follow to the right or stand below, left-aligned."""

_GAP = 2
_INDENT = 1
_LONGEST_WORD = 16
"""Maximum width of a squeezed wrapping column; longer words are folded."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A value, a qualifier (`detail`, such as an interval), and what follows both (`after`, such
    as a p-value)."""

    value: str = ""
    detail: str = ""
    after: str = ""
    style: str = ""

    @property
    def line(self) -> str:
        """The whole cell on one line."""
        return " ".join(part for part in (self.value, self.detail, self.after) if part)


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading and alignment; `wrap` allows its text to wrap.

    Line breaks in the heading are kept on a terminal.
    """

    heading: str
    align: Align = "right"
    wrap: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """A table, printed by rich or written by `as_markdown`.

    On a terminal, details stand beside their values if the width allows, and below them if not.
    `notes` explain the numbers. If `total` is true, the last row is set off as a total.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    total: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        stacked = self._width(stacked=False) > options.max_width
        fits = self._width(stacked) <= options.max_width
        yield Padding(Text(self.title, style="bold"), (0, 0, 0, _INDENT))
        # SIMPLE_HEAD draws one space between columns.
        table = Table(
            box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0)
        )
        for column in self.columns:
            table.add_column(
                Text(column.heading),
                justify="right" if column.align == "right" else "left",
                header_style="bold",
                no_wrap=fits and not column.wrap,
                overflow="fold",
            )
        for i, row in enumerate(self.rows):
            cells = [self._text(j, cell, stacked) for j, cell in enumerate(row)]
            table.add_row(*cells, end_section=self.total and i == len(self.rows) - 2)
        yield Padding(table, (0, 0, 0, _INDENT))
        for note in self.notes:
            yield Padding(Text(note, style="dim"), (0, 0, 0, _INDENT))

    def _lines(self, index: int, cell: Cell, stacked: bool) -> tuple[str, str]:
        """A cell's value and the rest, which follows on the same line or, if `stacked`, below."""
        value = cell.value
        if self.columns[index].align == "number":
            widest = max(cell_len(row[index].value) for row in self.rows)
            value = " " * (widest - cell_len(value)) + value if value else ""
        if stacked:
            return (f"{value}  {cell.after}" if cell.after else value), cell.detail
        return value, "  ".join(part for part in (cell.detail, cell.after) if part)

    def _text(self, index: int, cell: Cell, stacked: bool) -> Text:
        value, rest = self._lines(index, cell, stacked)
        text = Text(value, style=cell.style)
        if rest:
            text.append("\n" if stacked else " ")
            text.append(rest, style="not bold dim" if not cell.style else "not bold")
        return text

    def _width(self, stacked: bool) -> int:
        """Terminal cells that the table needs when only wrapping columns are squeezed."""
        widths = [self._column_width(i, stacked) for i in range(len(self.columns))]
        return _INDENT + sum(widths) + _GAP * len(widths)

    def _column_width(self, index: int, stacked: bool) -> int:
        column = self.columns[index]
        texts = column.heading.split("\n")
        for row in self.rows:
            value, rest = self._lines(index, row[index], stacked)
            texts += [value, rest] if stacked else [f"{value} {rest}".rstrip()]
        if column.wrap and stacked:
            words = [word for text in texts for word in text.split()]
            return min(_LONGEST_WORD, max(map(cell_len, words), default=0))
        return max(map(cell_len, texts))


def as_markdown(grid: Grid) -> str:
    """The table as GitHub-flavoured Markdown, with its title above and notes below."""
    rule = [":---" if column.align == "left" else "---:" for column in grid.columns]
    rows = [
        [column.heading.replace("\n", " ") for column in grid.columns],
        rule,
        *([cell.line for cell in row] for row in grid.rows),
    ]
    lines = [_markdown_row(row) for row in rows]
    notes = [f"\n{note}" for note in grid.notes]
    return "\n".join([f"**{grid.title}**\n", *lines, *notes]) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
