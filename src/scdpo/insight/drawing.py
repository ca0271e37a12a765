"""Pictures of credit assignment: tokens on a ground whose darkness is their reward.

As in the paper's figures, the palest tokens have the lowest reward. One hue is used, so that the
order can be read in grey and by the colour-blind, and the lowest step is marked in words as well.
All policies of a picture share a scale from −c to +c, whose numbers its legend gives: what one
policy hardly rewards is not drawn as if it were much.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.cells import cell_len
from rich.console import Group
from rich.table import Table
from rich.text import Text

from scdpo.errors import InputError, MissingDependency
from scdpo.insight.rewards import SolutionRewards, StepReward
from scdpo.terminal import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PALE, _DARK = np.array([236, 244, 251]), np.array([8, 64, 129])
_LIGHT_TEXT_FROM = 0.55
_CLIPPED_FROM = 0.99
_LEAST_CHANGE = 0.1
"""Of a token's log-prob, in nats."""
_COLUMNS = 58
_LINE, _GAP = 0.26, 0.14
"""Inches of a line of text, and between steps."""
_FOOT = 0.8
"""Inches of the legend."""


def scale_of(rows: Sequence[SolutionRewards]) -> float:
    """The reward c at which the scale of a picture ends; it goes from −c to +c.

    The 99th percentile of the rewards' absolute values under all its policies, since a few tokens
    have most of the reward: those beyond are drawn as if they had c. At least β/10, so that tokens
    whose probability changed by much less than 10 % look as if it had not.
    """
    values = [abs(reward) for row in rows for step in row.steps for reward in step.rewards]
    least = _LEAST_CHANGE * max(row.beta for row in rows)
    return max(least, float(np.quantile(values, _CLIPPED_FROM))) if values else least


def shades(row: SolutionRewards, scale: float) -> list[list[float]]:
    """The darkness of each token by step: 0 for a reward of −`scale` and less, 1/2 for none, 1
    for +`scale` and more."""
    return [
        [0.5 + 0.5 * min(1.0, max(-1.0, reward / scale)) for reward in step.rewards]
        for step in row.steps
    ]


def lowest_step(row: SolutionRewards) -> int:
    """The index of the step with the lowest mean reward. Raises InputError without steps."""
    if not row.steps:
        raise InputError(f"credit: {row.solution_id} has no steps")
    return min(range(len(row.steps)), key=lambda n: row.steps[n].mean)


# ---- terminal


def in_terminal(rows: Sequence[SolutionRewards], first_wrong: int | None = None) -> Group:
    """The same solution under several policies, side by side."""
    table = Table(box=None, padding=(0, 2, 0, 0), expand=True)
    for row in rows:
        table.add_column(Text(row.policy, style="bold"), ratio=1, overflow="fold")
    scale = scale_of(rows)
    drawn = [shades(row, scale) for row in rows]
    lowest = [lowest_step(row) for row in rows]
    for n in range(len(rows[0].steps)):
        table.add_row(
            *(
                _step_text(row.steps[n], dark[n], n, low == n, first_wrong == n)
                for row, dark, low in zip(rows, drawn, lowest, strict=True)
            )
        )
    legend = Text.assemble(("reward of a token ", "dim"))
    for shade, name in _legend(scale):
        legend.append(f" {name} ", style=_style(shade))
    return Group(table, legend)


def _step_text(step: StepReward, dark: Sequence[float], n: int, low: bool, wrong: bool) -> Text:
    text = Text()
    for token, shade in zip(step.tokens, dark, strict=True):
        text.append(visible(token).plain, style=_style(shade))
    text.append(f"\n{_caption(step, n, low, wrong)}\n", style="bold" if low or wrong else "dim")
    return text


def _caption(step: StepReward, n: int, low: bool, wrong: bool) -> str:
    marks = [*(["lowest reward"] if low else []), *(["first wrong step"] if wrong else [])]
    return f"step {n + 1}: mean {_signed(step.mean)}" + "".join(f" · {mark}" for mark in marks)


def _legend(scale: float) -> list[tuple[float, str]]:
    """Darkness and number of some rewards, from the lowest to the highest."""
    names = [_signed(scale * part) for part in (-1.0, -0.5, 0.5, 1.0)]
    ends = [f"≤ {names[0]}", names[1], "0", names[2], f"≥ {names[3]}"]
    return list(zip((0.0, 0.25, 0.5, 0.75, 1.0), ends, strict=True))


def _signed(reward: float) -> str:
    return f"{reward:+.2g}".replace("-", "\N{MINUS SIGN}")


def _style(shade: float) -> str:
    red, green, blue = _colour(shade)
    front = "white" if shade > _LIGHT_TEXT_FROM else "black"
    return f"{front} on rgb({red},{green},{blue})"


def _colour(shade: float) -> tuple[int, int, int]:
    red, green, blue = (_PALE + shade * (_DARK - _PALE)).round().astype(int).tolist()
    return red, green, blue


# ---- PNG and SVG


def draw(
    rows: Sequence[SolutionRewards], out: Path, first_wrong: int | None = None, title: str = ""
) -> None:
    """Write a picture of the same solution under several policies, PNG or SVG by its suffix.

    Raises what `check_drawable` raises.
    """
    check_drawable(out)
    figure = _figure(rows, first_wrong, title)
    figure.savefig(out, dpi=160)


def check_drawable(out: Path) -> None:
    """Raise InputError unless a picture can be written to `out` (its suffix, its folder), and
    MissingDependency without matplotlib."""
    if out.suffix not in (".png", ".svg"):
        raise InputError(f"{out}: a picture is a .png or .svg file")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder")
    if find_spec("matplotlib") is None:
        raise MissingDependency("matplotlib", "plots")


def _figure(rows: Sequence[SolutionRewards], first_wrong: int | None, title: str) -> Figure:
    from matplotlib.figure import Figure

    scale = scale_of(rows)
    blocks = [_lines_of(row, scale, first_wrong) for row in rows]
    height = max(sum(_heights(lines)) for lines in blocks) + 1.0 + _FOOT
    width = 0.095 * _COLUMNS + 0.35
    figure = Figure(figsize=(width * len(rows), height), facecolor="white")
    if title:
        figure.text(0.02, 1 - 0.22 / height, title, fontsize=9, va="center")
    for column, (row, lines) in enumerate(zip(rows, blocks, strict=True)):
        axes = figure.add_axes((column / len(rows), 0, 1 / len(rows), 1))
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.axis("off")
        axes.text(0.2, 0.55, row.policy, fontsize=11, fontweight="bold", va="center")
        _draw_lines(axes, lines)
        if not column:
            swatches: _Line = [(f" {name} ", shade) for shade, name in _legend(scale)]
            _draw_lines(axes, [[("reward of a token", None)], swatches], height - _FOOT)
    return figure


_Line = list[tuple[str, float | None]]
"""Pieces of text with their darkness; None for a caption."""


def _lines_of(row: SolutionRewards, scale: float, first_wrong: int | None) -> list[_Line]:
    lines: list[_Line] = []
    low = lowest_step(row)
    for n, (step, dark) in enumerate(zip(row.steps, shades(row, scale), strict=True)):
        lines += _wrapped(zip(step.tokens, dark, strict=True))
        lines.append([(_caption(step, n, n == low, n == first_wrong), None)])
    return lines


def _wrapped(tokens: Iterator[tuple[str, float]]) -> Iterator[_Line]:
    line: _Line = []
    used = 0
    for token, shade in tokens:
        pieces = visible(token.replace("\n", "⏎\n")).plain.split("\n")
        for i, piece in enumerate(pieces):
            if i or (used and used + cell_len(piece) > _COLUMNS):
                yield line
                line, used = [], 0
            while cell_len(piece) > _COLUMNS:
                yield [(piece[:_COLUMNS], shade)]
                piece = piece[_COLUMNS:]
            if piece:
                line.append((piece, shade))
                used += cell_len(piece)
    if line:
        yield line


def _heights(lines: Sequence[_Line]) -> list[float]:
    return [_LINE + (_GAP if line and line[0][1] is None else 0.0) for line in lines]


def _draw_lines(axes: Any, lines: Sequence[_Line], y: float = 0.8) -> None:
    from matplotlib.patches import Rectangle

    wide = 0.095
    for line, height in zip(lines, _heights(lines), strict=True):
        x = 0.2
        for text, shade in line:
            if shade is None:
                bold = "·" in text
                axes.text(
                    *(x, y + _LINE / 2, text),
                    fontsize=7,
                    color="#444444",
                    va="center",
                    fontweight="bold" if bold else "normal",
                )
                continue
            size = wide * cell_len(text)
            colour = tuple(value / 255 for value in _colour(shade))
            axes.add_patch(Rectangle((x, y + 0.02), size, _LINE - 0.04, color=colour, lw=0))
            axes.text(
                *(x, y + _LINE / 2, text.replace("$", r"\$")),
                fontsize=8,
                family="monospace",
                va="center",
                color="white" if shade > _LIGHT_TEXT_FROM else "black",
            )
            x += size
        y += height
