"""The command of the temperature study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scdpo.cli.app import RedoOption, SetOption, app, changes_of, opened
from scdpo.cli.tables import console
from scdpo.errors import InputError


@app.command()
def pilot(
    run_or_recipe: Annotated[
        str,
        typer.Argument(
            help="A run folder, a recipe file, or a packaged recipe's name.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The run folder of a recipe.", show_default="runs/RECIPE"),
    ] = None,
    temperatures: Annotated[
        str | None,
        typer.Option(
            help="Temperatures to measure, separated by commas.", show_default="ten from 0 to 1.7"
        ),
    ] = None,
    questions: Annotated[
        int, typer.Option(help="Training questions to draw solutions of.", min=1)
    ] = 100,
    draws: Annotated[
        int, typer.Option(help="Solutions at each temperature, per question and origin.", min=2)
    ] = 4,
    check: Annotated[
        int,
        typer.Option(help="Also branch with both schedules on this many other questions.", min=0),
    ] = 0,
    lost: Annotated[
        float,
        typer.Option(
            help="The suggested schedule may lose this much more than the sampling temperature "
            "(a share of attempts).",
            min=0,
            max=1,
        ),
    ] = 0.05,
    quantile: Annotated[
        float,
        typer.Option(
            help="Its negatives are as likely as this quantile at the sampling temperature.",
            min=0,
            max=1,
        ),
    ] = 0.25,
    draw: Annotated[
        Path | None, typer.Option(help="Plot it as a .png or .svg.", show_default="none")
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(
            help="Write the recipe with the suggested schedule to this file.", show_default="none"
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Put the schedule into an existing --write file.")
    ] = False,
    redo: RedoOption = False,
    set_: SetOption = None,
) -> None:
    """Measure solutions at different temperatures, and suggest a schedule for branching.

    Draws solutions of training questions and continuations of right ones at constant temperatures
    (as the pilot study of arXiv 2407.00782, Fig. 5), predicts what branching with any schedule
    would give, and chooses one by one rule. Rows are kept in RUN/pilot, the figures in
    RUN/pilot/study.json and temperatures.jsonl; other settings need --redo.
    """
    from scdpo.insight.drawing import check_drawable
    from scdpo.insight.suggestion import Rule
    from scdpo.insight.temperature_plot import draw_study
    from scdpo.pipeline.pilot import TEMPERATURES, PilotSettings
    from scdpo.pipeline.pilot import pilot as study_of
    from scdpo.pipeline.pilot_table import schedule_table, schedule_text, temperature_table
    from scdpo.pipeline.schedule_in_recipe import check_writable, write_schedule

    wanted = PilotSettings(_temperatures(temperatures) or TEMPERATURES, questions, draws, check)
    rule = Rule(lost=lost, quantile=quantile)
    path, recipe = _place(run_or_recipe, out)
    if draw is not None:
        check_drawable(draw)
    if write is not None:
        check_writable(write, force=force)
    changes = changes_of(set_)
    with opened(path, recipe, redo="pilot" if redo else None, changes=changes) as (run, terminal):
        study = study_of(run, wanted, rule)
        terminal.settle()
        for table in (
            temperature_table(study, "question"),
            temperature_table(study, "step"),
            schedule_table(study),
        ):
            console.print(table)
            console.print()
        if draw is not None:
            draw_study(study, draw)
            terminal.note("plot", str(draw))
        terminal.note("rows", str(run.path / "pilot"))
        terminal.note("suggested", schedule_text(study.suggested))
        if write is not None:
            # What --set changed is only in the run's own recipe.
            source = path / "recipe.yaml" if recipe is None or changes else recipe
            terminal.note("recipe", write_schedule(write, source, study.suggested))


def _place(run_or_recipe: str, out: Path | None) -> tuple[Path, str | None]:
    """The run folder, and the recipe if it is not the folder's own."""
    from scdpo.pipeline.recipe_files import recipe_title

    folder = Path(run_or_recipe)
    if folder.is_dir():
        if out is not None:
            raise InputError(f"--out is the run folder of a recipe; {folder} is a folder itself")
        return folder, None
    return out or Path("runs") / recipe_title(run_or_recipe), run_or_recipe


def _temperatures(given: str | None) -> tuple[float, ...]:
    """The temperatures of --temperatures. Raises InputError."""
    if given is None:
        return ()
    try:
        values = sorted({float(part) for part in given.split(",")})
    except ValueError as error:
        raise InputError(
            f"--temperatures {given}: expected numbers separated by commas, such as 0.7,1,1.3"
        ) from error
    if len(values) < 2 or not 0 <= values[0] < values[-1] < float("inf"):
        raise InputError(f"--temperatures {given}: expected two or more different ones, from 0 up")
    return tuple(values)
