"""The plots of a temperature study: what they show, and PNG or SVG files of them by matplotlib.

Series differ in marker and line style as well as in colour (Okabe and Ito's palette, in shades that
can be told on white and on black), and bands are 95 % intervals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scdpo.insight.drawing import check_drawable
from scdpo.insight.resampling import Estimate
from scdpo.insight.study import TemperatureStudy
from scdpo.insight.temperature import Origin, TemperatureLine

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = (
    ("#1e88cf", "o", "solid"),
    ("#d55e00", "s", "dashed"),
    ("#009e73", "^", "dotted"),
    ("#b8860b", "D", "dashdot"),
)
"""Colour, marker and line style."""


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
    for (colour, marker, style), one in zip(_STYLES, panel.series, strict=False):
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
