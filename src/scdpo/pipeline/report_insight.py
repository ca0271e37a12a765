"""The sections of a report that show what the commands of insight have kept in a run."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from scdpo.records import Problem
from scdpo.report import label
from scdpo.report.blocks import Block, CreditPicture, CreditStep, Section, Text
from scdpo.report.choosing import problems_of

if TYPE_CHECKING:
    from scdpo.insight.rewards import SolutionRewards
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
    """What the temperature study found."""
    text = "How the policy does at other temperatures has not been looked at yet."
    missing = Text(text, "missing", f"scdpo pilot {run.path}")
    return Section("temperature", "Temperature", (missing,))


def branch_section(run: OpenRun) -> Section:
    """What pairs and branches are like."""
    text = "What pairs and branches are like has not been measured yet."
    missing = Text(text, "missing", f"scdpo quality {run.path}")
    return Section("branches", "Pairs and branches", (missing,))
