"""The command line: each command reads its arguments and calls one stage."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from scdpo import __version__
from scdpo.errors import InputError, ScdpoError

if TYPE_CHECKING:
    from scdpo.recipe import Recipe
    from scdpo.run import Run

app = typer.Typer(
    help="Step-Controlled DPO: sample, branch, pair, train and measure (arXiv 2407.00782).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

RunPath = Annotated[Path, typer.Argument(help="The run folder.", show_default=False)]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="A recipe file, or the name of one in the package; needed for a new run folder only.",
    ),
]


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or 'embedded' or 'smoke'.")],
    out: Annotated[Path | None, typer.Option(help="The run folder [runs/RECIPE].")] = None,
) -> None:
    """Run all stages of a recipe and print the table; called again, it continues."""
    out = out or Path("runs") / Path(recipe).stem
    with opened(out, recipe) as one:
        one.everything()
        show(one)


@app.command()
def sample(run: RunPath, recipe: RecipeOption = None) -> None:
    """Sample naive solutions of the training problems (stage 1)."""
    with opened(run, recipe) as one:
        one.sample()
        show_stages(one, "solutions")


@app.command()
def branch(run: RunPath, recipe: RecipeOption = None) -> None:
    """Continue preferred solutions from their steps at a rising temperature (stage 2)."""
    with opened(run, recipe) as one:
        one.branch()
        show_stages(one, "branches")


@app.command()
def pair(run: RunPath, recipe: RecipeOption = None) -> None:
    """Build naive, step-controlled and data-equal pairs from solutions and branches."""
    with opened(run, recipe) as one:
        one.pair()
        show_stages(one, "pairs/")


@app.command()
def train(
    run: RunPath,
    method: Annotated[str, typer.Option(help="dpo, dpo_equal or scdpo.")] = "scdpo",
    recipe: RecipeOption = None,
) -> None:
    """Train the initial policy on the pairs of a method (stage 3)."""
    from scdpo.recipe import METHODS

    if method not in METHODS:
        raise InputError(f"method {method!r}: known are {', '.join(METHODS)}")
    with opened(run, recipe) as one:
        one.train(method)
        show_stages(one, f"policies/{method}")


@app.command()
def evaluate(
    run: RunPath,
    policy: Annotated[str, typer.Option(help="sft, dpo, dpo_equal or scdpo.")] = "sft",
    recipe: RecipeOption = None,
) -> None:
    """Answer the test problems greedily with a policy of the run."""
    from scdpo.recipe import METHODS

    if policy not in ("sft", *METHODS):
        raise InputError(f"policy {policy!r}: known are sft, {', '.join(METHODS)}")
    with opened(run, recipe) as one:
        one.evaluate(policy)
        show(one)


@app.command()
def report(run: RunPath) -> None:
    """Print the tables of a run: accuracies, break-downs, stages."""
    with opened(run, None) as one:
        show(one)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="Recorded solutions, JSONL.")],
    layout: Annotated[str, typer.Option(help="mathcoder or tora.")],
    out: Annotated[Path, typer.Option(help="The run folder.")],
    dataset: Annotated[str, typer.Option(help="The data set's name, such as gsm8k.")] = "gsm8k",
    recipe: RecipeOption = "import",
) -> None:
    """Import recorded solutions: execute them again, grade them, make rows of them."""
    with opened(out, None if (out / "recipe.yaml").exists() else recipe) as one:
        manifest = one.import_solutions(file, layout, dataset)
        show_stages(one, manifest.stage)


@app.command()
def export(
    run: RunPath,
    out: Annotated[Path, typer.Option(help="The JSONL file to write.")],
    method: Annotated[str, typer.Option(help="dpo, dpo_equal or scdpo.")] = "scdpo",
) -> None:
    """Write a method's training pairs in TRL's preference format (prompt, chosen, rejected)."""
    from scdpo.pairs import trl_rows
    from scdpo.recipe import METHODS
    from scdpo.store import write_jsonl

    if method not in METHODS:
        raise InputError(f"method {method!r}: known are {', '.join(METHODS)}")
    with opened(run, None) as one:
        pairs = [p for p in one.pairs_of(method) if p.split == "train"]
    console.print(f"{write_jsonl(out, trl_rows(pairs))} pairs written to {out}")


@app.command("make-policy")
def make_policy_(
    recipe: Annotated[Path, typer.Argument(help="A YAML file; see recipes/embedded-policy.yaml.")],
    out: Annotated[Path, typer.Option(help="The folder to write to.")],
) -> None:
    """Make a small policy from nothing, as the embedded one was made."""
    from scdpo.make_policy import load_make_policy, make_policy

    config = load_make_policy(recipe)
    with bars() as progress:
        made = make_policy(config, out, progress("train"))
    console.print(
        f"{made.steps} steps, {made.tokens:,} tokens, loss {made.first_loss:.3f} → "
        f"{made.final_loss:.3f}; policy in {out / 'policy'}"
    )


@app.command()
def version() -> None:
    """Print the version."""
    console.print(__version__)


@contextmanager
def opened(path: Path, recipe: str | None) -> Iterator[Run]:
    """The run in a folder; its own recipe is used unless another is given."""
    from scdpo.recipe import load_recipe
    from scdpo.run import Run

    own = path / "recipe.yaml"
    if recipe is None and not own.is_file():
        raise InputError(f"{path}: no run there (no recipe.yaml); start it with --recipe")
    settings: Recipe = load_recipe(own if recipe is None else recipe)
    with bars() as progress, Run(settings, path, progress) as one:
        yield one


@contextmanager
def bars() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Progress bars on stderr, one for each name, made when first reported to."""
    columns = (
        TextColumn("{task.description:<20}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def named(name: str) -> Callable[[int, int], None]:
            task: list[TaskID] = []

            def report(done: int, total: int) -> None:
                if not task:
                    task.append(progress.add_task(name, total=total))
                progress.update(task[0], completed=done, total=total)

            return report

        yield named


def show(one: Run) -> None:
    """The accuracy table, break-downs by level where there are several, and the stages."""
    from scdpo.report import as_markdown, policy_table, stage_table
    from scdpo.store import write_atomic

    table = policy_table(one.report())
    stages = stage_table(one.manifests())
    text = f"{as_markdown(table)}\n\n{as_markdown(stages)}\n"
    write_atomic(one.folder.path / "report.md", text)
    console.print(stages)
    console.print()
    console.print(table)


def show_stages(one: Run, prefix: str) -> None:
    """The rows, time and counts of the stages whose names begin so."""
    from scdpo.report import stage_table

    console.print(stage_table([m for m in one.manifests() if m.stage.startswith(prefix)]))


def main(arguments: list[str] | None = None) -> None:
    """The console script: errors of ours become one line and exit code 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app(arguments)
    except ScdpoError as error:
        fail(str(error), error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        fail(f"{error.filename or 'disk'}: no space left; what was written before is kept")
    except Exception as error:
        if "No space left on device" not in str(error):
            raise
        fail(f"no space left on the disk; what was written before is kept ({_first(error)})")


def fail(message: str, code: int = 2) -> Any:
    """One line on stderr and the exit code."""
    print(f"scdpo: {message}", file=sys.stderr)
    raise SystemExit(code)


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
