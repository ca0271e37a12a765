"""The sections of a report that show what the commands of insight have kept in a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scdpo.records import Problem
from scdpo.report import label
from scdpo.report.blocks import (
    Block,
    Charts,
    CreditPicture,
    CreditStep,
    FoldedTables,
    Section,
    Text,
)
from scdpo.report.charts import Chart, Point, Series
from scdpo.report.choosing import problems_of
from scdpo.report.curves import KINDS

if TYPE_CHECKING:
    from scdpo.insight.branch_lines import QualityLine
    from scdpo.insight.rewards import SolutionRewards
    from scdpo.insight.study import TemperatureStudy
    from scdpo.insight.temperature_plot import Panel
    from scdpo.pipeline.credit import Credit
    from scdpo.pipeline.opened import OpenRun

SHADES = 13
PICTURES = 3
WIDEST = 3
"""Policies side by side in a picture, at most."""

Shades = tuple[tuple[str, str], ...]


def credit_section(run: OpenRun) -> tuple[Section, Shades]:
    """Where rewards put the blame, measured and drawn, and the colours of the pictures."""
    name, title = "credit", "Credit assignment"
    made = _kept(run)
    if made is None:
        text = "Which tokens the policies reward has not been looked at yet."
        missing = Text(text, "missing", f"scdpo credit {run.path}")
        return Section(name, title, (missing,)), ()
    from scdpo.insight.drawing import shade_colours
    from scdpo.pipeline.credit_table import credit_table

    blocks: list[Block] = []
    if made.lines:
        blocks.append(credit_table(made.lines, made.differences, made.by))
    else:
        blocks.append(Text(f"Not measured: {made.unlabelled}.", "missing"))
    blocks += _pictures(run, made)
    return Section(name, title, tuple(blocks)), tuple(shade_colours(SHADES))


def _kept(run: OpenRun) -> Credit | None:
    """What `scdpo credit` has kept; without it, what reads it (and torch) is not loaded."""
    if not (run.path / "credit").is_dir():
        return None
    from scdpo.pipeline.credit import kept_credit

    return kept_credit(run, "lowest")


def _pictures(run: OpenRun, made: Credit) -> list[Block]:
    """The first wrong solution of each of a few questions, under the policies side by side."""
    by_solution: dict[str, list[SolutionRewards]] = defaultdict(list)
    for row in made.rewards:
        if row.steps and len(by_solution[row.solution_id]) < WIDEST:
            by_solution[row.solution_id].append(row)
    first: dict[str, str] = {}
    for solution, rows in by_solution.items():
        if solution in made.first_wrong or not made.first_wrong:
            first.setdefault(rows[0].problem_id, solution)
    shown = list(first.values())[:PICTURES]
    if not shown:
        return []
    text = (
        "The first wrong solution of each of the first questions. The paler a token, the lower its "
        "implicit reward (Eq. 7); the step with the lowest mean and the first wrong step are named."
    )
    problems = problems_of(run.folder, {by_solution[name][0].problem_id for name in shown})
    pictures = [_picture(by_solution[name], problems, made.first_wrong.get(name)) for name in shown]
    return [Text(text), *pictures]


def _picture(
    rows: list[SolutionRewards], problems: dict[str, Problem], first_wrong: int | None
) -> CreditPicture:
    from scdpo.insight.drawing import caption, lowest_step, scale_names, scale_of, shades

    columns = []
    scale = scale_of(rows)
    for row in rows:
        low = lowest_step(row)
        columns.append(
            tuple(
                CreditStep(
                    tokens=tuple(
                        (token, _level(shade))
                        for token, shade in zip(step.tokens, dark, strict=True)
                    ),
                    caption=caption(step, n, n == low, n == first_wrong),
                    marked=n in (low, first_wrong),
                )
                for n, (step, dark) in enumerate(zip(row.steps, shades(row, scale), strict=True))
            )
        )
    problem = problems.get(rows[0].problem_id)
    return CreditPicture(
        title=rows[0].solution_id,
        question="" if problem is None else problem.question,
        policies=tuple(label(row.policy) for row in rows),
        columns=tuple(columns),
        legend=tuple((name, _level(shade)) for shade, name in scale_names(scale)),
    )


def _level(shade: float) -> int:
    """The index of the colours of a shade between 0 and 1."""
    return round(shade * (SHADES - 1))


def temperature_section(run: OpenRun) -> Section:
    """What the temperature study found: plots, figures, and the schedule that it suggests."""
    name, title = "temperature", "Temperature"
    if not (run.path / "pilot").is_dir() or (study := _study(run)) is None:
        text = "How the policy does at other temperatures has not been looked at yet."
        return Section(name, title, (Text(text, "missing", f"scdpo pilot {run.path}"),))
    from scdpo.insight.temperature_plot import panels
    from scdpo.pipeline.pilot_table import schedule_table, schedule_text, temperature_table

    origins = dict.fromkeys(line.origin for line in study.lines)
    blocks: list[Block] = [
        Text(f"Suggested schedule for branching: {schedule_text(study.suggested)}."),
        Charts(tuple(map(_panel, panels(study)))),
        schedule_table(study),
        FoldedTables(
            "At each temperature", tuple(temperature_table(study, origin) for origin in origins)
        ),
    ]
    return Section(name, title, tuple(blocks))


def _study(run: OpenRun) -> TemperatureStudy | None:
    from scdpo.insight.study import read_study

    return read_study(run.path)


def _panel(panel: Panel) -> Chart:
    """A plot of the study as a chart of the page."""
    scale = 100 if panel.percent else 1
    series = tuple(
        Series(
            one.label,
            tuple(Point(t, scale * e.value, scale * e.low, scale * e.high) for t, e in one.points),
            tone,
        )
        for tone, one in enumerate(panel.series)
    )
    unit = "% of solutions" if panel.percent else "mean"
    return Chart(
        panel.title.removesuffix(", %"),
        "temperature",
        f"{unit}, 95 % interval",
        series,
        (0.0,) if panel.percent else (),
    )


def branch_section(run: OpenRun) -> Section:
    """What pairs and branches are like: where negatives first go wrong, and how branches end."""
    name, title = "branches", "Pairs and branches"
    stage = run.stage("quality/figures")
    if not stage.done:
        text = "What pairs and branches are like has not been measured yet."
        return Section(name, title, (Text(text, "missing", f"scdpo quality {run.path}"),))
    from scdpo.insight.branch_lines import QualityLine
    from scdpo.pipeline.quality_table import quality_tables

    lines = list(stage.rows(QualityLine))
    charts = [chart for chart in (_first_wrong(lines), _endings(lines)) if chart.series]
    pairs, *others = quality_tables(lines)
    blocks: list[Block] = [*([Charts(tuple(charts))] if charts else []), pairs]
    if others:
        blocks.append(FoldedTables("By step", tuple(others)))
    return Section(name, title, tuple(blocks))


def _first_wrong(lines: Sequence[QualityLine]) -> Chart:
    """The share of negatives whose first wrong step is so many steps after k."""
    series = [
        Series(text, _figures(lines, kind, "distance", "negatives", shift=1), tone)
        for tone, (kind, text) in enumerate(KINDS.items())
    ]
    return Chart(
        "Where negatives first go wrong",
        "steps after k to the first wrong one (below 1: a shared step)",
        "% of negatives, 95 % interval",
        tuple(one for one in series if one.points),
        (0.0,),
    )


def _endings(lines: Sequence[QualityLine]) -> Chart:
    """How continuations from each branch step end."""
    series = [
        Series(outcome, _figures(lines, "branches", "branch_step", outcome), tone)
        for tone, outcome in enumerate(("correct", "wrong", "garbled", "unfinished"))
    ]
    return Chart(
        "How continuations end, by branch step",
        "branch step k (shared steps)",
        "% of continuations, 95 % interval",
        tuple(one for one in series if one.points),
        (0.0, 100.0),
    )


def _figures(
    lines: Sequence[QualityLine], part: str, by: str, measure: str, shift: int = 0
) -> tuple[Point, ...]:
    """A figure of each group, in per cent; `shift` is added to the groups."""
    found = [
        (line.group + shift, [None if v is None else 100 * v for v in (line.low, line.high)], line)
        for line in lines
        if (line.part, line.by, line.measure) == (part, by, measure) and line.group is not None
    ]
    found.sort(key=lambda item: item[0])
    return tuple(Point(group, 100 * line.value, *limits) for group, limits, line in found)
