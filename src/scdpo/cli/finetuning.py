"""The command that fine-tunes a policy on solutions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scdpo.cli.app import (
    RESUME,
    RecipeOption,
    RedoOption,
    SetOption,
    app,
    changes_of,
    opened,
    refuse_with_run,
)
from scdpo.cli.tables import show_stages
from scdpo.errors import InputError
from scdpo.terminal import Terminal

if TYPE_CHECKING:
    from scdpo.pipeline.changes import Changes
    from scdpo.training.sft_config import SFTReport


@app.command()
def sft(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN", help="The run folder; omit it with --data.", show_default=False
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            help="Without a run: embedded, a folder or a hub name.", show_default="the recipe's"
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Without a run: a file, a folder or a hub data set with questions and solutions.",
            show_default="the recipe's sft.data.path",
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help="question-solution, question-steps, messages, mathcoder, tora or gsm8k.",
            show_default="the recipe's sft.data.layout",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder to write to; the policy is OUT/policy.", show_default=False),
    ] = None,
    recipe: RecipeOption = None,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only read and check the data.")
    ] = False,
    redo: RedoOption = False,
    set_: SetOption = None,
) -> None:
    """Fine-tune a policy on questions with solutions, or on a run's own correct solutions.

    `scdpo sft --policy P --data FILE --recipe R --out OUT` needs no run. `scdpo sft RUN` is the
    first stage of a run whose recipe has `sft.data`; `scdpo sft RUN --out OUT` learns from what
    the run's policy solved itself. Several processes can share the work, as for `scdpo train`.
    """
    options = {"--policy": policy, "--data": data, "--layout": layout}
    if path is None:
        if out is None:
            raise InputError("expected a run folder, or --data and --out; found neither")
        _on_data(options, out, recipe, changes_of(set_), prepare=prepare, redo=redo)
        return
    refuse_with_run(path, options)
    if out is None:
        _stage(path, recipe, changes_of(set_), prepare=prepare, redo=redo)
    else:
        _on_own_solutions(path, out, recipe, changes_of(set_))


def _on_data(
    options: Mapping[str, str | None],
    out: Path,
    recipe: str | None,
    changes: Changes,
    *,
    prepare: bool,
    redo: bool,
) -> None:
    from scdpo.pipeline.finetuning import FineTuning, fine_tuning_recipe
    from scdpo.pipeline.services import Silent
    from scdpo.training.processes import close_process_group, is_main_process

    settings = fine_tuning_recipe(
        recipe, options["--policy"], options["--data"], options["--layout"], changes
    )
    first = is_main_process()
    heading = {"policy": settings.policy, "recipe": f"{recipe}", "out": f"{out}"}
    with Terminal(heading if first else None) as terminal:
        watcher = terminal if first else Silent()
        try:
            with FineTuning(settings, out, watcher, write=first, redo=redo) as tuning:
                if prepare:
                    tuning.prepare()
                    return
                made = tuning.run()
                close_process_group()
        except KeyboardInterrupt:
            terminal.note("stopped", RESUME)
            raise
        if first:
            _done(terminal, made)


def _stage(path: Path, recipe: str | None, changes: Changes, *, prepare: bool, redo: bool) -> None:
    from scdpo.training.processes import close_process_group, is_main_process

    redone = "sft" if redo else None
    with opened(path, recipe, redo=redone, several=True, changes=changes) as (run, terminal):
        if prepare:
            run.prepare()
            show_stages(run, "demonstrations")
            return
        run.fine_tune()
        close_process_group()
        if not is_main_process():
            return
        terminal.settle()
        show_stages(run, "demonstrations", "sft")
        terminal.note("next", f"scdpo sample {path}")


def _on_own_solutions(path: Path, out: Path, recipe: str | None, changes: Changes) -> None:
    from scdpo.training.processes import close_process_group, is_main_process

    with opened(path, recipe, several=True, changes=changes) as (run, terminal):
        made = run.sft(out)
        close_process_group()
        if is_main_process():
            _done(terminal, made)


def _done(terminal: Terminal, made: SFTReport) -> None:
    terminal.settle()
    terminal.note(
        "policy",
        f"{made.policy}: {made.n_examples} solutions, {made.steps} steps, "
        f"loss {made.first_loss:.3f} → {made.final_loss:.3f}",
    )
