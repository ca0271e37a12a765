"""The commands that work on a run folder, mostly one per stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scdpo.cli.app import (
    Group,
    MethodOption,
    RecipeOption,
    RedoOption,
    RunPath,
    app,
    known_method,
    opened,
)
from scdpo.cli.tables import show, show_stages
from scdpo.terminal import Terminal


@app.command("run")
def run_(
    recipe: Annotated[
        str, typer.Argument(help="A recipe file, 'embedded' or 'smoke'.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option(help="The run folder.", show_default="runs/RECIPE")
    ] = None,
) -> None:
    """Run all stages of a recipe and print the tables. Rerun it to resume."""
    out = out or Path("runs") / Path(recipe).stem
    with opened(out, recipe) as (run, terminal):
        run.everything()
        terminal.settle()
        show(run)
        terminal.note("report", f"{out / 'report.md'}")
        terminal.note("policies", f"{out / 'policies' / '*' / 'policy'}")


@app.command("recipe")
def recipe_(
    recipe: Annotated[
        str,
        typer.Argument(help="A recipe file, or a packaged recipe's name.", show_default=False),
    ],
) -> None:
    """Print a recipe with its preset filled in and every default written out."""
    from scdpo.pipeline.recipe import dump_recipe, load_recipe

    typer.echo(dump_recipe(load_recipe(recipe)), nl=False)


@app.command()
def sample(path: RunPath, recipe: RecipeOption = None, redo: RedoOption = False) -> None:
    """Sample naive solutions to the training problems (stage 1)."""
    with opened(path, recipe, redo="solutions" if redo else None) as (run, terminal):
        run.sample()
        terminal.settle()
        show_stages(run, "solutions")
        terminal.note("next", f"scdpo branch {path}")


@app.command()
def branch(path: RunPath, recipe: RecipeOption = None, redo: RedoOption = False) -> None:
    """Continue preferred solutions from their steps at a rising temperature (stage 2)."""
    with opened(path, recipe, redo="branches" if redo else None) as (run, terminal):
        run.branch()
        terminal.settle()
        show_stages(run, "branches")
        terminal.note("next", f"scdpo pair {path}")


@app.command()
def pair(path: RunPath, recipe: RecipeOption = None, redo: RedoOption = False) -> None:
    """Build naive, step-controlled and data-equal pairs from solutions and branches."""
    with opened(path, recipe, redo="pairs" if redo else None) as (run, terminal):
        run.pair()
        terminal.settle()
        show_stages(run, "pairs")
        terminal.note("next", f"scdpo train {path} --method scdpo")


@app.command()
def train(
    path: RunPath,
    method: MethodOption = "scdpo",
    recipe: RecipeOption = None,
    redo: RedoOption = False,
) -> None:
    """Train the initial policy on the pairs of a method (stage 3).

    Several processes, launched with `accelerate launch -m scdpo` or `torchrun -m scdpo`, share
    the work.
    """
    from scdpo.training.processes import close_process_group, is_main_process

    name = known_method(method)
    redone = f"policies/{name}" if redo else None
    with opened(path, recipe, redo=redone, several=True) as (run, terminal):
        run.train(name)
        close_process_group()
        if not is_main_process():
            return
        terminal.settle()
        show_stages(run, f"policies/{name}")
        terminal.note("policy", f"{path / 'policies' / name / 'policy'}")
        terminal.note("next", f"scdpo evaluate {path} --policy {name}")


@app.command()
def report(
    path: RunPath,
    by: Annotated[
        Group | None,
        typer.Option(help="Also break the accuracy down by this.", show_default="level, if few"),
    ] = None,
) -> None:
    """Print the tables of a run, finished or not: stages, breakdowns, accuracies."""
    with opened(path, None, write=False) as (run, terminal):
        if show(run, by.value if by else None):
            return
        terminal.note(
            "next", f"no policy has been evaluated yet: scdpo evaluate {path} --policy sft"
        )


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="Recorded solutions, JSONL.", show_default=False)],
    layout: Annotated[str, typer.Option(help="mathcoder or tora.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The run folder.", show_default=False)],
    dataset: Annotated[str, typer.Option(help="The data set's name, such as gsm8k.")] = "gsm8k",
    recipe: Annotated[
        str | None,
        typer.Option(help="The recipe of a new run folder.", show_default="import"),
    ] = None,
) -> None:
    """Import recorded solutions: execute them again, grade them, and store them as rows."""
    new = not (out / "recipe.yaml").exists()
    with opened(out, recipe or ("import" if new else None)) as (run, terminal):
        manifest = run.import_solutions(file, layout, dataset)
        terminal.settle()
        show_stages(run, manifest.stage)
        terminal.note("next", f"scdpo pair {out}")


@app.command()
def export(
    path: RunPath,
    out: Annotated[Path, typer.Option(help="The JSONL file to write.", show_default=False)],
    method: MethodOption = "scdpo",
) -> None:
    """Write a method's training pairs in TRL's preference format (prompt, chosen, rejected)."""
    name = known_method(method)
    with opened(path, None, write=False) as (run, terminal):
        terminal.note("export", f"{run.export(name, out)} pairs written to {out}")


@app.command("make-policy")
def make_policy_(
    recipe: Annotated[
        str, typer.Argument(help="A YAML file, or 'embedded-policy'.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The folder to write to.", show_default=False)],
) -> None:
    """Make a small policy from scratch, the way the embedded policy was made."""
    from scdpo.pipeline.make_policy import load_make_policy, make_policy

    config = load_make_policy(Path(recipe))
    with Terminal() as terminal:
        made = make_policy(config, out, terminal.progress("train"))
        terminal.note(
            "policy",
            f"{out / 'policy'}: {made.steps} steps, {made.tokens:,} tokens, "
            f"loss {made.first_loss:.3f} → {made.final_loss:.3f}",
        )
