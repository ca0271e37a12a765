"""The commands that work on a run folder, mostly one per stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scdpo.cli.app import (
    Group,
    RecipeOption,
    RedoOption,
    RunPath,
    SetOption,
    app,
    changes_of,
    known_method,
    opened,
    warn_or_next,
)
from scdpo.cli.looking import dry_look
from scdpo.cli.tables import PAGE, show, show_stages, write_page
from scdpo.errors import InputError
from scdpo.terminal import Terminal


@app.command("run")
def run_(
    recipe: Annotated[
        str, typer.Argument(help="A recipe file, or a packaged recipe's name.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option(help="The run folder.", show_default="runs/RECIPE")
    ] = None,
    set_: SetOption = None,
) -> None:
    """Run all stages of a recipe, print the tables and write the report. Rerun it to resume."""
    from scdpo.pipeline.recipe_files import recipe_title

    out = out or Path("runs") / recipe_title(recipe)
    with opened(out, recipe, changes=changes_of(set_)) as (run, terminal):
        run.everything()
        terminal.settle()
        show(run)
        terminal.note("policies", f"{out / 'policies' / '*' / 'policy'}")
        write_page(run, terminal, out / PAGE)


@app.command("recipe")
def recipe_(
    recipe: Annotated[
        str,
        typer.Argument(help="A recipe file, or a packaged recipe's name.", show_default=False),
    ],
    set_: SetOption = None,
) -> None:
    """Print a recipe with its preset filled in and every default written out."""
    from scdpo.pipeline.recipe import dump_recipe, load_recipe

    typer.echo(dump_recipe(load_recipe(recipe, changes_of(set_))), nl=False)


@app.command()
def sample(
    path: RunPath,
    recipe: RecipeOption = None,
    redo: RedoOption = False,
    set_: SetOption = None,
    show: Annotated[
        bool,
        typer.Option(
            "--show", help="Only look: print solutions to the first problems, and keep nothing."
        ),
    ] = False,
    limit: Annotated[
        int | None, typer.Option(help="With --show: how many problems.", min=1, show_default="2")
    ] = None,
) -> None:
    """Sample naive solutions to the training problems (stage 1).

    `--show` is a dry look before a long run: two solutions of each of the first problems, with
    prompt, steps, executions and verdicts. It writes nothing, starts no run and changes none.
    """
    changes, redone = changes_of(set_), "solutions" if redo else None
    if show and redo:
        raise InputError("--show only looks, so there is nothing to --redo")
    if show:
        dry_look(path, recipe, changes, limit)
        return
    if limit is not None:
        raise InputError("--limit goes with --show; a run's problems are problems.train.limit")
    with opened(path, recipe, redo=redone, changes=changes) as (run, terminal):
        run.sample()
        terminal.settle()
        show_stages(run, "solutions")
        warn_or_next(terminal, run.solutions_lack(), path, f"scdpo branch {path}")


@app.command()
def branch(
    path: RunPath,
    recipe: RecipeOption = None,
    redo: RedoOption = False,
    set_: SetOption = None,
) -> None:
    """Continue preferred solutions from their steps at a rising temperature (stage 2)."""
    changes, redone = changes_of(set_), "branches" if redo else None
    with opened(path, recipe, redo=redone, changes=changes) as (run, terminal):
        run.branch()
        terminal.settle()
        show_stages(run, "branches")
        warn_or_next(terminal, run.solutions_lack(), path, f"scdpo pair {path}")


@app.command()
def pair(
    path: RunPath,
    recipe: RecipeOption = None,
    redo: RedoOption = False,
    set_: SetOption = None,
) -> None:
    """Build naive, step-controlled and data-equal pairs from solutions and branches."""
    changes, redone = changes_of(set_), "pairs" if redo else None
    with opened(path, recipe, redo=redone, changes=changes) as (run, terminal):
        run.pair()
        terminal.settle()
        show_stages(run, "pairs")
        lacking = [run.part_lacks(part) for part in ("naive", "step_controlled")]
        if lines := [line for line in lacking if line]:
            terminal.note("warning", "; ".join(lines))
        after = f"train {path} --method scdpo" if "" in lacking else f"show {path}"
        terminal.note("next", f"scdpo {after}")


@app.command()
def train(
    path: RunPath,
    method: Annotated[
        str | None,
        typer.Option(help="dpo, dpo_equal or scdpo.", show_default="scdpo, or the training's own"),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="A name of its own, for several trainings on the same pairs.",
            show_default="the method",
        ),
    ] = None,
    recipe: RecipeOption = None,
    redo: RedoOption = False,
    set_: SetOption = None,
) -> None:
    """Train the initial policy on the pairs of a method (stage 3).

    `--name lr1e-5 --set train.learning_rate=1e-5` is a second training on the same pairs, with
    the reference log-probs of the first. What --set changes in section train holds for this
    training alone. Several processes, launched with `accelerate launch -m scdpo` or
    `torchrun -m scdpo`, share the work.
    """
    from scdpo.training.processes import close_process_group, is_main_process

    pairs_of = None if method is None else known_method(method)
    changes = changes_of(set_)
    own = {key: value for key, value in changes.items() if key.partition(".")[0] == "train"}
    of_run = {key: value for key, value in changes.items() if key not in own}
    redone = f"policies/{name or method or 'scdpo'}" if redo else None
    with opened(path, recipe, redo=redone, several=True, changes=of_run) as (run, terminal):
        trained = run.train(pairs_of, name, own)
        close_process_group()
        if not is_main_process():
            return
        terminal.settle()
        show_stages(run, f"policies/{trained}")
        terminal.note("policy", f"{path / 'policies' / trained / 'policy'}")
        terminal.note("next", f"scdpo evaluate {path} --policy {trained}")


@app.command()
def report(
    path: RunPath,
    by: Annotated[
        Group | None,
        typer.Option(help="Also break the accuracy down by this.", show_default="level, if few"),
    ] = None,
    html: Annotated[
        bool, typer.Option("--html", help="Also write the report as a page, one HTML file.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="With --html: the file.", show_default="RUN/report.html")
    ] = None,
) -> None:
    """Print the tables of a run, finished or not: stages, breakdowns, accuracies.

    `--html` writes a page that needs no network: accuracies, learning curves, what each filter left
    out, costs, pairs to read, and what other commands have kept in the run.
    """
    if out is not None and not html:
        raise InputError("--out is the file of the page; it goes with --html")
    with opened(path, None, write=False) as (run, terminal):
        evaluated = show(run, by.value if by else None)
        if html:
            write_page(run, terminal, out or path / PAGE)
        if not evaluated:
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
    set_: SetOption = None,
) -> None:
    """Import recorded solutions: execute them again, grade them, and store them as rows."""
    new = not (out / "recipe.yaml").exists()
    source = recipe or ("import" if new else None)
    with opened(out, source, changes=changes_of(set_)) as (run, terminal):
        manifest = run.import_solutions(file, layout, dataset)
        terminal.settle()
        show_stages(run, manifest.stage)
        terminal.note("next", f"scdpo pair {out}")


@app.command("make-policy")
def make_policy_(
    recipe: Annotated[
        str, typer.Argument(help="A YAML file, or 'embedded-policy'.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The folder to write to.", show_default=False)],
    set_: SetOption = None,
) -> None:
    """Make a small policy from scratch, the way the embedded policy was made."""
    from scdpo.pipeline.make_policy import load_make_policy, make_policy

    config = load_make_policy(Path(recipe), changes_of(set_))
    with Terminal() as terminal:
        made = make_policy(config, out, terminal.progress("train"))
        terminal.note(
            "policy",
            f"{out / 'policy'}: {made.steps} steps, {made.tokens:,} tokens, "
            f"loss {made.first_loss:.3f} → {made.final_loss:.3f}",
        )
