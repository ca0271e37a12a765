"""The command that shows and measures credit assignment."""

from __future__ import annotations

from collections import defaultdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scdpo.cli.app import RedoOption, RunPath, app, opened
from scdpo.cli.tables import console
from scdpo.errors import InputError

if TYPE_CHECKING:
    from scdpo.insight import SolutionRewards

WIDEST = 3
"""Policies that are drawn side by side, at most."""


class Measure(StrEnum):
    """How the reward of a step is made of those of its tokens."""

    mean = "mean"
    total = "total"
    lowest = "lowest"


@app.command()
def credit(
    path: RunPath,
    attempts: Annotated[
        int, typer.Option(help="Solutions sampled for each test question.", min=1)
    ] = 3,
    limit: Annotated[
        int | None, typer.Option(help="Test questions to use.", show_default="all", min=1)
    ] = None,
    processbench: Annotated[
        Path | None,
        typer.Option(
            help="Use the solutions of a ProcessBench file, whose first wrong steps people marked.",
            show_default="own solutions",
        ),
    ] = None,
    solutions: Annotated[
        Path | None,
        typer.Option(
            help="Use the solutions of a file of rows as in RUN/solutions.",
            show_default="own solutions",
        ),
    ] = None,
    by: Annotated[
        Measure, typer.Option(help="A step's score: mean, total or lowest of its tokens' rewards.")
    ] = Measure.lowest,
    show: Annotated[int, typer.Option(help="Solutions to draw in the terminal.", min=0)] = 1,
    draw: Annotated[
        Path | None,
        typer.Option(help="Also draw the first of them as a .png or .svg.", show_default="none"),
    ] = None,
    redo: RedoOption = False,
) -> None:
    """Show which tokens a run's policies reward, and measure whether that finds wrong steps.

    The reward of a token is β log π(token) − β log π_ref(token) (arXiv 2407.00782, Eq. 7). The
    solutions are sampled on test questions, or come from a file; which steps are wrong is known
    for the embedded problems and for ProcessBench. Rows are kept in RUN/credit;
    other --attempts or another --limit need --redo.
    """
    from scdpo.insight.drawing import check_drawable, in_terminal
    from scdpo.insight.drawing import draw as draw_picture
    from scdpo.pipeline.credit import (
        credit_on_file,
        credit_on_own_solutions,
        credit_on_processbench,
    )
    from scdpo.pipeline.credit_table import credit_table

    if processbench is not None and solutions is not None:
        raise InputError("--processbench and --solutions are two files; give one")
    if draw is not None:
        check_drawable(draw)
    with opened(path, None, redo="credit" if redo else None) as (run, terminal):
        if processbench is not None:
            made = credit_on_processbench(run, processbench, limit=limit, by=by.value)
        elif solutions is not None:
            made = credit_on_file(run, solutions, limit=limit, by=by.value)
        else:
            made = credit_on_own_solutions(run, attempts=attempts, limit=limit, by=by.value)
        terminal.settle()
        shown = _drawn(made.rewards)
        for solution_id in [s for s in made.first_wrong if s in shown][:show]:
            console.print(in_terminal(shown[solution_id], made.first_wrong[solution_id]))
        if made.lines:
            console.print(credit_table(made.lines, made.differences, by.value))
        else:
            terminal.note("credit", f"not measured: {made.unlabelled}")
        if draw is not None:
            first = next((s for s in made.first_wrong if s in shown), next(iter(shown), None))
            if first is not None:
                draw_picture(shown[first], draw, made.first_wrong.get(first), title=first)
                terminal.note("picture", str(draw))
        terminal.note("rows", str(made.folder))


def _drawn(rewards: tuple[SolutionRewards, ...]) -> dict[str, list[SolutionRewards]]:
    """The rewards of each solution under the policies that fit side by side."""
    by_solution: dict[str, list[SolutionRewards]] = defaultdict(list)
    for row in rewards:
        if row.steps and len(by_solution[row.solution_id]) < WIDEST:
            by_solution[row.solution_id].append(row)
    return by_solution
