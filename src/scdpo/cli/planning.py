"""`scdpo plan`: what a recipe would cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scdpo.cli.app import SetOption, app, changes_of
from scdpo.cli.tables import console


@app.command("plan")
def plan_(
    recipe: Annotated[
        str,
        typer.Argument(help="A recipe file, or a packaged recipe's name.", show_default=False),
    ],
    gpus: Annotated[
        str, typer.Option(help="The devices: 8xH100, 2xA100-40GB, cpu, 16xcpu, …")
    ] = "8xH100",
    shape: Annotated[
        Path | None,
        typer.Option(
            help="A config.json, or a folder with one, of the policy.", show_default=False
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    set_: SetOption = None,
) -> None:
    """Print what a recipe would cost: pairs, steps, tokens, memory and hours of each stage.

    Needs neither weights nor a network. What it assumes is printed, and can be set in the recipe's
    section `plan`.
    """
    from scdpo.cli.plan_tables import plan_tables
    from scdpo.pipeline.planning.hardware import hardware
    from scdpo.pipeline.planning.plan import plan_recipe
    from scdpo.pipeline.planning.shapes import shape_from_config
    from scdpo.pipeline.recipe import load_recipe

    given = None
    if shape is not None:
        given = shape_from_config(shape / "config.json" if shape.is_dir() else shape)
    made = load_recipe(recipe, changes_of(set_))
    plan = plan_recipe(made, hardware(gpus), name=recipe, shape=given)
    if json:
        typer.echo(plan.model_dump_json(indent=2))
        return
    for table in plan_tables(plan):
        console.print(table)
        console.print()
