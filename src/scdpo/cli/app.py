"""The application that the commands are added to, and what they share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scdpo.errors import InputError
from scdpo.terminal import Terminal

if TYPE_CHECKING:
    from scdpo.pipeline.changes import Changes
    from scdpo.pipeline.recipe import Method, Recipe
    from scdpo.pipeline.run import Run

app = typer.Typer(
    help="Step-Controlled DPO: sample, branch, pair, train and measure (arXiv 2407.00782).\n\n"
    "`scdpo run embedded` does it all on two cores, without a GPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


RESUME = "everything done so far is kept; rerun the same command to resume"
"""Message of a stopped command."""


class Group(StrEnum):
    """What questions can be grouped by."""

    level = "level"
    subject = "subject"
    dataset = "dataset"


RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.", show_default=False)]
RowsPath = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="A run folder, or a folder of scdpo evaluate --benchmarks.",
        show_default=False,
    ),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="A recipe file, or a packaged recipe's name; needed only for a new run folder.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key of the recipe (train.beta=0.5); can be given several times.",
        show_default=False,
    ),
]
RedoOption = Annotated[
    bool, typer.Option("--redo", help="Delete this stage's output and run it again.")
]


@contextmanager
def opened(
    path: Path,
    recipe: str | None,
    *,
    write: bool = True,
    redo: str | None = None,
    several: bool = False,
    changes: Changes | None = None,
    policy: str | None = None,
) -> Iterator[tuple[Run, Terminal]]:
    """Open the run in a folder; yields it with the terminal that it reports to.

    Without `recipe`, the run's own recipe is used; `changes` are those of --set. Commands that may
    be launched as several processes set `several`; only the first process writes and reports.
    `policy` is the one at work, if not the initial one.
    """
    from scdpo.pipeline.run import Run
    from scdpo.pipeline.services import Silent
    from scdpo.training.processes import is_main_process, process_count

    if process_count() > 1 and not several:
        raise InputError("only `scdpo train` and `scdpo sft` can be launched as several processes")
    first = is_main_process()

    settings, source = recipe_of(path, recipe, changes)
    heading: dict[str, str] = {}
    if write and first:
        again = settings.policy if redo == "sft" else policy_in_words(settings, path)
        heading = {"run": f"{path}", "recipe": source, "policy": policy or again}
    with Terminal(heading) as terminal:
        watcher = terminal if first else Silent()
        try:
            with Run(settings, path, watcher, write=write and first, redo=redo) as run:
                yield run, terminal
        except KeyboardInterrupt:
            terminal.note("stopped", RESUME)
            raise


def policy_in_words(settings: Recipe, path: Path) -> str:
    """The initial policy of the run in a folder, and what fine-tuning has to do with it."""
    from scdpo.pipeline.opened import initial_policy, is_fine_tuned

    policy = initial_policy(settings, path)
    if settings.sft.data is None:
        return policy
    if is_fine_tuned(settings, path):
        return f"{policy}, fine-tuned from {settings.policy}"
    return f"{policy}, not yet fine-tuned on {settings.sft.data.path}"


def refuse_with_run(run: Path, options: Mapping[str, object]) -> None:
    """Raise InputError for an option that has no meaning where a run folder is given."""
    for name, value in options.items():
        if value not in (None, []):
            raise InputError(f"{name} applies only without a run folder, but {run} is given")


def recipe_of(path: Path, recipe: str | None, changes: Changes | None) -> tuple[Recipe, str]:
    """The recipe given or, by default, that of the run in a folder, and its name for the user."""
    from scdpo.pipeline.recipe import load_recipe

    own = path / "recipe.yaml"
    if recipe is None and not own.is_file():
        raise InputError(
            f"{path}: not a run folder (it has no recipe.yaml); start one with --recipe"
        )
    settings = load_recipe(own if recipe is None else recipe, changes)
    changed = ", ".join(f"{key}={value}" for key, value in (changes or {}).items())
    name = f"{recipe or own}, preset {settings.preset}"
    return settings, f"{name}, with {changed}" if changed else name


def changes_of(given: list[str] | None) -> dict[str, Any]:
    """The changes of --set. Raises InputError."""
    from scdpo.pipeline.changes import parse_changes

    return parse_changes(given or [])


def warn_or_next(terminal: Terminal, lacking: str, path: Path, command: str) -> None:
    """Say what is lacking after a stage that is done or, if nothing is, which command is next."""
    if lacking:
        terminal.note("warning", lacking)
    terminal.note("next", f"scdpo show {path}" if lacking else command)


def known_method(method: str) -> Method:
    """The method with this name. Raises InputError for an unknown name."""
    from scdpo.pipeline.recipe import METHODS

    for known in METHODS:
        if method == known:
            return known
    raise InputError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
