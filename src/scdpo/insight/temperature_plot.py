"""The plots of a temperature study: as SVG text for pages, and as PNG or SVG files by matplotlib.

Series differ in marker and line style as well as in colour (Okabe and Ito's palette, in shades that
can be told on white and on black), and bands are 95 % intervals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from scdpo.insight.drawing import check_drawable
from scdpo.insight.resampling import Estimate
from scdpo.insight.study import TemperatureStudy
from scdpo.insight.temperature import Origin, TemperatureLine

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = (
    ("#1e88cf", "o", "solid", ""),
    ("#d55e00", "s", "dashed", "7 3"),
    ("#009e73", "^", "dotted", "2 3"),
    ("#b8860b", "D", "dashdot", "8 3 2 3"),
)
"""Colour, marker and line style of matplotlib, dashes of SVG."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a panel: its figures at each temperature."""

    label: str
    points: tuple[tuple[float, Estimate], ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """A plot over temperature. `percent`: the figures are shares; else in the unit of the title."""

    title: str
    series: tuple[Series, ...]
    percent: bool = True

    def limits(self) -> tuple[float, float]:
        """The range of the vertical axis."""
        low = min(e.low for s in self.series for _, e in s.points)
        high = max(e.high for s in self.series for _, e in s.points)
        if self.percent:
            return 0.0, min(1.0, max(0.05, high * 1.05))
        return min(0.0, low * 1.05), max(0.0, high * 1.05)


def panels(study: TemperatureStudy) -> list[Panel]:
    """What is plotted: accuracy, what is lost, diversity, and the likelihood of negatives."""
    question, step = "from the question", "from a step"

    def series(
        label: str, origin: Origin, of: Callable[[TemperatureLine], Estimate | None]
    ) -> Series:
        lines = [line for line in study.lines if line.origin == origin]
        found = [(line.temperature, of(line)) for line in lines]
        return Series(label, tuple((t, e) for t, e in found if e is not None))

    made = [
        Panel(
            "Accuracy, %",
            (
                series(question, "question", lambda line: line.accuracy),
                series(step, "step", lambda line: line.accuracy),
            ),
        ),
        Panel(
            "Garbled, unfinished, undecided, %",
            (
                series("garbled", "question", lambda line: line.garbled),
                series("unfinished", "question", lambda line: line.unfinished),
                series("undecided", "question", lambda line: line.undecided),
                series("lost, from a step", "step", lambda line: line.lost),
            ),
        ),
        Panel(
            f"Distinct of {study.draws} solutions",
            (
                series("solutions", "question", lambda line: line.distinct_solutions),
                series("answers", "question", lambda line: line.distinct_answers),
            ),
            percent=False,
        ),
        Panel(
            "Log-prob per token of negatives",
            (
                series(question, "question", lambda line: line.negatives_logp),
                series(step, "step", lambda line: line.negatives_logp),
            ),
            percent=False,
        ),
    ]
    return [panel for panel in made if any(s.points for s in panel.series)]


# ---- SVG text

_WIDTH, _HEIGHT = 400, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 66, 38


def panel_svgs(study: TemperatureStudy) -> list[str]:
    """Each panel as an SVG element, 400 by 270 units, for an HTML page to lay out.

    Text, axes and grid have the colour of the surrounding text (`currentColor`), so that it suits
    light and dark pages; it has no id, script, style or link. Needs no matplotlib.
    """
    return [_svg(panel) for panel in panels(study)]


def _svg(panel: Panel) -> str:
    xs = [t for s in panel.series for t, _ in s.points]
    scale = _Scale(min(xs), max(xs), *panel.limits())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(panel.title)} against temperature" font-family="sans-serif" '
        f'font-size="12" fill="currentColor">',
        f'<text x="4" y="15" font-weight="bold">{escape(panel.title)}</text>',
        *_axes(panel, scale),
    ]
    for n, one in enumerate(panel.series):
        parts += _drawn(n, one, scale)
        parts += _key(n, one.label)
    return "".join([*parts, "</svg>"])


@dataclass(frozen=True, slots=True)
class _Scale:
    """From temperatures and values to units of the picture."""

    left: float
    right: float
    low: float
    high: float

    def x(self, temperature: float) -> float:
        part = (temperature - self.left) / ((self.right - self.left) or 1)
        return round(_LEFT + part * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        part = (value - self.low) / ((self.high - self.low) or 1)
        return round(_HEIGHT - _BOTTOM - part * (_HEIGHT - _TOP - _BOTTOM), 1)


def _axes(panel: Panel, scale: _Scale) -> list[str]:
    bottom, parts = _HEIGHT - _BOTTOM, []
    for value in ticks(scale.low, scale.high):
        y = scale.y(value)
        text = f"{100 * value:.4g}" if panel.percent else f"{value:.4g}".replace("-", "−")
        parts += [
            f'<path d="M{_LEFT} {y}H{_WIDTH - _RIGHT}" stroke="currentColor" opacity=".18"/>',
            f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{text}</text>',
        ]
    for value in ticks(scale.left, scale.right):
        x = scale.x(value)
        parts += [
            f'<path d="M{x} {bottom}v4" stroke="currentColor"/>',
            f'<text x="{x}" y="{bottom + 17}" text-anchor="middle">{value:.4g}</text>',
        ]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts += [
        f'<path d="M{_LEFT} {bottom}H{_WIDTH - _RIGHT}" stroke="currentColor"/>',
        f'<text x="{middle}" y="{_HEIGHT - 5}" text-anchor="middle">temperature</text>',
    ]
    return parts


def _drawn(n: int, one: Series, scale: _Scale) -> list[str]:
    if not one.points:
        return []
    colour, marker, _, dashes = _STYLES[n]
    above = [f"{scale.x(t)} {scale.y(e.high)}" for t, e in one.points]
    below = [f"{scale.x(t)} {scale.y(e.low)}" for t, e in reversed(one.points)]
    line = [f"{scale.x(t)} {scale.y(e.value)}" for t, e in one.points]
    return [
        f'<path d="M{"L".join([*above, *below])}Z" fill="{colour}" opacity=".18"/>',
        f'<path d="M{"L".join(line)}" {_stroke(colour, dashes)}/>',
        *(_mark(marker, colour, scale.x(t), scale.y(e.value)) for t, e in one.points),
    ]


def _key(n: int, label: str) -> list[str]:
    """The legend above the plot, two entries a line."""
    colour, marker, _, dashes = _STYLES[n]
    x, y = 4 + (n % 2) * 190, 32 + (n // 2) * 18
    return [
        f'<path d="M{x} {y}h30" {_stroke(colour, dashes)}/>',
        _mark(marker, colour, x + 15, y),
        f'<text x="{x + 36}" y="{y + 4}">{escape(label)}</text>',
    ]


def _stroke(colour: str, dashes: str) -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'fill="none" stroke="{colour}" stroke-width="2"{dashed}'


def _mark(marker: str, colour: str, x: float, y: float) -> str:
    shapes = {
        "o": "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0",
        "s": "m-3.5-3.5h7v7h-7z",
        "^": "m0-4.5l4.5 8h-9z",
        "D": "m0-5l5 5l-5 5l-5-5z",
    }
    return f'<path d="M{x} {y}{shapes[marker]}" {_stroke(colour, "")}/>'


def ticks(low: float, high: float) -> list[float]:
    """Three to six round values between two limits."""
    span = high - low
    if span <= 0:
        return [low]
    sizes = (m * 10.0**p for p in range(-6, 9) for m in (1, 2, 5))
    size = next(size for size in sizes if span / size <= 5.5)
    first = -(-low // size)
    count = int((high - first * size) / size + 1e-9) + 1
    return [round((first + n) * size, 9) for n in range(count)]


# ---- PNG and SVG files


def draw_study(study: TemperatureStudy, out: Path) -> None:
    """Write the panels as one picture, PNG or SVG by its suffix. Raises what `check_drawable`
    raises."""
    check_drawable(out)
    from matplotlib.figure import Figure

    drawn = panels(study)
    figure = Figure(figsize=(9.5, 3.4 * ((len(drawn) + 1) // 2)), layout="constrained")
    for n, panel in enumerate(drawn):
        _plot(figure.add_subplot((len(drawn) + 1) // 2, 2, n + 1), panel)
    figure.savefig(out, dpi=160)


def _plot(axes: Axes, panel: Panel) -> None:
    scale = 100 if panel.percent else 1
    for (colour, marker, style, _), one in zip(_STYLES, panel.series, strict=False):
        xs = [t for t, _ in one.points]
        values = [[scale * v for v in (e.low, e.value, e.high)] for _, e in one.points]
        low, middle, high = zip(*values, strict=True) if values else ((), (), ())
        axes.fill_between(xs, low, high, color=colour, alpha=0.18, lw=0)
        (line,) = axes.plot(xs, middle, color=colour, marker=marker, label=one.label)
        line.set(linestyle=style, markerfacecolor="none")
    axes.set_title(panel.title, loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel("temperature")
    axes.set_ylim(*(scale * v for v in panel.limits()))
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
