"""Line charts and intervals as geometry, which the templates draw as SVG.

Drawn here rather than by a library, because a report has to be written by the package as it is
installed, and by a chart that follows the reader's colour scheme: matplotlib is an extra and puts
fixed colours into its files, and the SVG libraries beside it bring scripts or style sheets of their
own. What is left is an axis with round numbers and a path for each series. Each series has a
colour, a marker and, if it shares the colour with another, dashes; each chart a text that says what
it shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scdpo.report.notation import MINUS

WIDTH, HEIGHT = 440.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 14.0, 26.0, 42.0
"""The drawing in user units, and the margins around its plot."""
TONES = 4
MARKERS = 12
"""Markers on a line, at most."""
MOST_POINTS = 120
"""Points of a line, at most; longer ones are averaged."""
ROW = 34.0
"""Height of a row of an interval chart."""
LABELS = 150.0


class Point(NamedTuple):
    """A point of a line, with the limits of its interval where it has one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a chart. `tone` (from 0) is its colour and marker."""

    label: str
    points: tuple[Point, ...]
    tone: int = 0
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over one axis. `x` and `y` name the axes, units included; `span` widens the y axis to
    these values; `level` is a value to draw a thin line at, with what it means if the
    axis does not say it."""

    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    span: tuple[float, ...] = ()
    level: tuple[float, str] | None = None
    note: str = ""

    @property
    def described(self) -> str:
        """What the chart shows, for those who do not see it."""
        lines = [f"{self.y} against {self.x}."]
        for series in self.series:
            ys = [point.y for point in series.points]
            at = [number(point.x) for point in (series.points[0], series.points[-1])]
            lines.append(
                f"{series.label}: {number(ys[0])} at {at[0]}, {number(ys[-1])} at {at[1]}, "
                f"between {number(min(ys))} and {number(max(ys))}."
            )
        return " ".join(lines)


@dataclass(frozen=True, slots=True)
class Interval:
    """A row of an interval chart: a value with its limits, and how it is written."""

    label: str
    value: float
    low: float
    high: float
    text: str
    tone: int = 0


@dataclass(frozen=True, slots=True)
class Intervals:
    """Values with intervals below each other on one axis. `level` is as in `Chart`."""

    title: str
    x: str
    rows: tuple[Interval, ...]
    level: tuple[float, str] | None = None
    note: str = ""

    @property
    def described(self) -> str:
        """What the chart shows, for those who do not see it."""
        return f"{self.x}. " + "; ".join(f"{row.label} {row.text}" for row in self.rows) + "."


class Tick(NamedTuple):
    """A mark of an axis: where it is, and what is written there."""

    at: float
    text: str


class Mark(NamedTuple):
    """A marker: where it is, and what it says when pointed at."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """A series as drawn: its path, markers, and the bars of intervals as a path."""

    label: str
    tone: int
    dashed: bool
    path: str
    marks: tuple[Mark, ...]
    bars: str = ""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart as drawn, in user units; `level` is where the thin line is."""

    width: float
    height: float
    plot: tuple[float, float, float, float]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    lines: tuple[Line, ...]
    level: float | None = None


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear map from values to user units."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """Where a value is."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.stop - self.start), 1)

    def ticks(self, most: int = 6, least: float = 0.0) -> tuple[Tick, ...]:
        """Round values on this scale, at least so far apart."""
        step = max(least, round_step((self.high - self.low) / most))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        digits = max(0, -math.floor(math.log10(step) + 1e-9), 1 if step % 1 else 0)
        values = [n * step for n in range(first, last + 1)]
        return tuple(Tick(self(value), fixed(value, digits)) for value in values)


def round_step(rough: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= rough * (1 - 1e-9))


def fixed(value: float, digits: int) -> str:
    """A number with so many decimals; nothing is written as −0."""
    text = f"{abs(value):.{digits}f}"
    return f"{MINUS}{text}" if value < 0 and float(text) else text


def number(value: float) -> str:
    """A number with three significant digits, or a whole one if it is large."""
    text = fixed(value, 0) if 1000 <= abs(value) < 1e9 else f"{value:.3g}"
    return text.replace("-", MINUS)


def draw_lines(chart: Chart) -> Drawing:
    """A chart of lines as drawn. It has to have a point."""
    points = [point for series in chart.series for point in series.points]
    level = () if chart.level is None else (chart.level[0],)
    ys = [y for p in points for y in (p.y, p.low, p.high) if y is not None]
    across = scale([point.x for point in points], LEFT, WIDTH - RIGHT, room=0.0)
    up = scale([*ys, *chart.span, *level], HEIGHT - BOTTOM, TOP)
    return Drawing(
        width=WIDTH,
        height=HEIGHT,
        plot=(LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM),
        across=across.ticks(least=float(all(p.x == int(p.x) for p in points))),
        up=up.ticks(5),
        lines=tuple(_line(series, across, up) for series in chart.series if series.points),
        level=None if chart.level is None else up(chart.level[0]),
    )


def draw_intervals(chart: Intervals) -> Drawing:
    """An interval chart as drawn: a line for each row. It has to have a row."""
    level = () if chart.level is None else (chart.level[0],)
    values = [value for row in chart.rows for value in (row.low, row.value, row.high)]
    across = scale([*values, *level], LABELS, WIDTH - RIGHT, room=0.06)
    top = 12.0
    bottom = top + ROW * len(chart.rows)
    lines, up = [], []
    for n, row in enumerate(chart.rows):
        y = top + ROW * (n + 0.5)
        low, middle, high = across(row.low), across(row.value), across(row.high)
        path = f"M{low},{y}H{high}M{low},{y - 4}v8M{high},{y - 4}v8"
        mark = Mark(middle, y, row.text)
        lines.append(Line(row.label, row.tone % TONES, False, path, (mark,)))
        up.append(Tick(y, row.label))
    return Drawing(
        width=WIDTH,
        height=bottom + BOTTOM,
        plot=(LABELS, top, WIDTH - RIGHT, bottom),
        across=across.ticks(5),
        up=tuple(up),
        lines=tuple(lines),
        level=None if chart.level is None else across(chart.level[0]),
    )


def scale(values: Sequence[float], start: float, stop: float, room: float = 0.04) -> Scale:
    """The scale of an axis that shows all values, with some `room` at both ends."""
    low, high = min(values), max(values)
    if low == high:
        about = abs(low) / 2 or 0.5
        low, high = low - about, high + about
    extra = room * (high - low)
    return Scale(low - extra, high + extra, start, stop)


def averaged(points: Iterable[Point], most: int = MOST_POINTS) -> tuple[Point, ...]:
    """At most so many points, each the mean of as many neighbours."""
    found = list(points)
    size = -(-len(found) // most)
    parts = [found[start : start + size] for start in range(0, len(found), max(1, size))]
    return tuple(
        Point(sum(p.x for p in part) / len(part), sum(p.y for p in part) / len(part))
        for part in parts
    )


def _line(series: Series, across: Scale, up: Scale) -> Line:
    at = [(across(p.x), up(p.y)) for p in series.points]
    path = "M" + "L".join(f"{x},{y}" for x, y in at)
    bars = "".join(
        f"M{across(p.x)},{up(p.low)}V{up(p.high)}"
        for p in series.points
        if p.low is not None and p.high is not None
    )
    marks = tuple(
        Mark(
            *at[n], f"{series.label}: {number(series.points[n].y)} at {number(series.points[n].x)}"
        )
        for n in _spread(len(at))
    )
    return Line(series.label, series.tone % TONES, series.dashed, path, marks, bars)


def _spread(n: int) -> Iterator[int]:
    """Indices of at most `MARKERS` of n points, both ends included."""
    last, shown = n - 1, min(n, MARKERS)
    yield from sorted({round(i * last / max(1, shown - 1)) for i in range(shown)})
