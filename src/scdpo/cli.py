"""The command line: each command reads its arguments and calls one stage."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scdpo import __version__
from scdpo.errors import InputError, ScdpoError
from scdpo.full_disk import is_full_disk
from scdpo.tables import console, show, show_stages
from scdpo.terminal import Terminal

if TYPE_CHECKING:
    from scdpo.recipe import Method
    from scdpo.run import Run

app = typer.Typer(
    help="Step-Controlled DPO: sample, branch, pair, train and measure (arXiv 2407.00782).\n\n"
    "`scdpo run embedded` does all of it in about ten minutes, without a GPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
ENVIRONMENT_ERRORS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE)
"""Failures of the system that are no fault of the package: one line, no traceback."""


class Group(StrEnum):
    """What questions can be grouped by."""

    level = "level"
    subject = "subject"
    dataset = "dataset"


RunPath = Annotated[Path, typer.Argument(help="The run folder.", show_default=False)]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="A recipe file, or the name of one in the package; needed for a new run folder only.",
    ),
]
RedoOption = Annotated[
    bool, typer.Option("--redo", help="Delete what this stage has made, and do it again.")
]
MethodOption = Annotated[str, typer.Option(help="dpo, dpo_equal or scdpo.")]


@app.command()
def run(
    recipe: Annotated[
        str, typer.Argument(help="A recipe file, or 'embedded' or 'smoke'.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option(help="The run folder.", show_default="runs/RECIPE")
    ] = None,
) -> None:
    """Run all stages of a recipe and print the tables; called again, it goes on."""
    out = out or Path("runs") / Path(recipe).stem
    with opened(out, recipe) as (one, terminal):
        one.everything()
        terminal.settle()
        show(one)
        terminal.note("report", f"{out / 'report.md'}")
        terminal.note("policies", f"{out / 'policies' / '*' / 'policy'}")


@app.command()
def sample(run: RunPath, recipe: RecipeOption = None, redo: RedoOption = False) -> None:
    """Sample naive solutions of the training problems (stage 1)."""
    with opened(run, recipe, redo="solutions" if redo else None) as (one, terminal):
        one.sample()
        terminal.settle()
        show_stages(one, "solutions")
        terminal.note("next", f"scdpo branch {run}")


@app.command()
def branch(run: RunPath, recipe: RecipeOption = None, redo: RedoOption = False) -> None:
    """Continue preferred solutions from their steps at a rising temperature (stage 2)."""
    with opened(run, recipe, redo="branches" if redo else None) as (one, terminal):
        one.branch()
        terminal.settle()
        show_stages(one, "branches")
        terminal.note("next", f"scdpo pair {run}")


@app.command()
def pair(run: RunPath, recipe: RecipeOption = None, redo: RedoOption = False) -> None:
    """Build naive, step-controlled and data-equal pairs from solutions and branches."""
    with opened(run, recipe, redo="pairs" if redo else None) as (one, terminal):
        one.pair()
        terminal.settle()
        show_stages(one, "pairs")
        terminal.note("next", f"scdpo train {run} --method scdpo")


@app.command()
def train(
    run: RunPath,
    method: MethodOption = "scdpo",
    recipe: RecipeOption = None,
    redo: RedoOption = False,
) -> None:
    """Train the initial policy on the pairs of a method (stage 3)."""
    name = known_method(method)
    with opened(run, recipe, redo=f"policies/{name}" if redo else None) as (one, terminal):
        one.train(name)
        terminal.settle()
        show_stages(one, f"policies/{name}")
        terminal.note("policy", f"{run / 'policies' / name / 'policy'}")
        terminal.note("next", f"scdpo evaluate {run} --policy {name}")


@app.command()
def sft(
    run: RunPath,
    out: Annotated[Path, typer.Option(help="The folder to write to; the policy is OUT/policy.")],
    recipe: RecipeOption = None,
) -> None:
    """Fine-tune the initial policy on the run's correct solutions (recipe key sft)."""
    with opened(run, recipe) as (one, terminal):
        made = one.sft(out)
        terminal.settle()
        terminal.note(
            "policy",
            f"{made.policy}: {made.n_examples} solutions, {made.steps} steps, "
            f"loss {made.first_loss:.3f} → {made.final_loss:.3f}",
        )


@app.command()
def evaluate(
    run: RunPath,
    policy: Annotated[str, typer.Option(help="sft, dpo, dpo_equal or scdpo.")] = "sft",
    recipe: RecipeOption = None,
    redo: RedoOption = False,
) -> None:
    """Answer the test problems greedily with a policy of the run."""
    from scdpo.recipe import METHODS

    if policy not in ("sft", *METHODS):
        raise InputError(f"policy {policy!r}: known are sft, {', '.join(METHODS)}")
    with opened(run, recipe, redo=f"evaluations/{policy}" if redo else None) as (one, terminal):
        one.evaluate(policy)
        terminal.settle()
        show(one)
        terminal.note("report", f"{run / 'report.md'}")


@app.command()
def report(
    run: RunPath,
    by: Annotated[
        Group | None, typer.Option(help="Accuracy by this too.", show_default="level, if few")
    ] = None,
) -> None:
    """Print the tables of a run, finished or not: stages, break-downs, accuracies."""
    with opened(run, None, write=False) as (one, terminal):
        if show(one, by.value if by else None):
            return
        terminal.note("next", f"nothing is evaluated yet; scdpo evaluate {run} --policy sft")


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
    """Import recorded solutions: execute them again, grade them, make rows of them."""
    new = not (out / "recipe.yaml").exists()
    with opened(out, recipe or ("import" if new else None)) as (one, terminal):
        manifest = one.import_solutions(file, layout, dataset)
        terminal.settle()
        show_stages(one, manifest.stage)
        terminal.note("next", f"scdpo pair {out}")


@app.command()
def export(
    run: RunPath,
    out: Annotated[Path, typer.Option(help="The JSONL file to write.", show_default=False)],
    method: MethodOption = "scdpo",
) -> None:
    """Write a method's training pairs in TRL's preference format (prompt, chosen, rejected)."""
    from scdpo.pairs import trl_rows
    from scdpo.store import write_jsonl

    name = known_method(method)
    with opened(run, None, write=False) as (one, terminal):
        pairs = [pair for pair in one.pairs_of(name) if pair.split == "train"]
        terminal.note("export", f"{write_jsonl(out, trl_rows(pairs))} pairs written to {out}")


@app.command("make-policy")
def make_policy_(
    recipe: Annotated[
        str, typer.Argument(help="A YAML file, or 'embedded-policy'.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The folder to write to.", show_default=False)],
) -> None:
    """Make a small policy from nothing, as the embedded one was made."""
    from scdpo.make_policy import load_make_policy, make_policy

    config = load_make_policy(Path(recipe))
    with Terminal() as terminal:
        made = make_policy(config, out, terminal.progress("train"))
        terminal.note(
            "policy",
            f"{out / 'policy'}: {made.steps} steps, {made.tokens:,} tokens, "
            f"loss {made.first_loss:.3f} → {made.final_loss:.3f}",
        )


@app.command("exec")
def exec_(
    file: Annotated[
        str, typer.Argument(help="Sessions, JSONL; - is standard input.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The JSONL file to append to.", show_default="standard output"),
    ] = None,
    level: Annotated[
        str | None, typer.Option(help="namespace or process.", show_default="namespace")
    ] = None,
    deadline: Annotated[
        float | None, typer.Option(help="Seconds a block may run.", show_default="10")
    ] = None,
    memory_mb: Annotated[
        int | None, typer.Option(help="Memory of a session, MiB.", show_default="1024")
    ] = None,
    output_chars: Annotated[
        int | None, typer.Option(help="Characters of output kept.", show_default="10000")
    ] = None,
    parallel: Annotated[
        int | None, typer.Option(help="Blocks at the same time.", show_default="one per core")
    ] = None,
) -> None:
    """Run code in the sandbox, nothing else: rows with blocks in, with outputs and cuts out.

    A row is one session: `{"id": 1, "blocks": ["x = 6", "x * 7"]}`. With --out it can be stopped
    and called again with the same settings, kept in OUT.manifest.json; it goes on after the last
    row.
    """
    from scdpo.execute import execute, sandbox_config

    config = sandbox_config(
        level=level,
        deadline=deadline,
        memory_mb=memory_mb,
        output_chars=output_chars,
        parallel=parallel,
    )
    with Terminal() as terminal:
        try:
            done = execute(file, out, config, terminal.progress if out else None)
        except KeyboardInterrupt:
            if out:
                terminal.note("stopped", "rows written are kept; the same command goes on")
            raise
        terminal.settle()
        terminal.note("exec", done.text)


@app.command()
def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Print what this machine offers: versions, devices, and the sandbox's levels, tried out.

    Exit code 1 if the level that runs use by default is not to be had.
    """
    from scdpo.doctor import diagnose

    found = diagnose()
    typer.echo(found.model_dump_json(indent=2) if json else found.text)
    raise typer.Exit(0 if found.ready else 1)


@app.command()
def version() -> None:
    """Print the version."""
    console.print(__version__, highlight=False)


@contextmanager
def opened(
    path: Path, recipe: str | None, *, write: bool = True, redo: str | None = None
) -> Iterator[tuple[Run, Terminal]]:
    """The run in a folder, and the terminal it reports to; its own recipe is used unless another
    is given."""
    from scdpo.recipe import load_recipe
    from scdpo.run import Run

    own = path / "recipe.yaml"
    if recipe is None and not own.is_file():
        raise InputError(f"{path}: no run there (it has no recipe.yaml); begin one with --recipe")
    settings = load_recipe(own if recipe is None else recipe)
    heading = {
        "run": f"{path}",
        "recipe": f"{recipe or own}, preset {settings.preset}",
        "policy": settings.policy,
    }
    with Terminal(heading if write else None) as terminal:
        try:
            with Run(settings, path, terminal, write=write, redo=redo) as one:
                yield one, terminal
        except KeyboardInterrupt:
            terminal.note("stopped", "what was done is kept; the same command goes on from here")
            raise


def known_method(method: str) -> Method:
    """The method of this name. Raises InputError."""
    from scdpo.recipe import METHODS

    for known in METHODS:
        if method == known:
            return known
    raise InputError(f"method {method!r}: known are {', '.join(METHODS)}")


def main(arguments: list[str] | None = None) -> None:
    """The console script: errors of ours become one line and exit code 2."""
    for name, value in {
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }.items():
        os.environ.setdefault(name, value)
    # Ends like Ctrl-C: children and the terminal are left in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app(arguments)
    except ScdpoError as error:
        fail(str(error), error.exit_code)
    except OSError as error:
        if is_full_disk(error):
            fail(f"{error.filename or 'disk'}: no space left on it; what was written is kept")
        if error.errno not in ENVIRONMENT_ERRORS:
            raise
        fail(f"{error.filename or 'system'}: {error.strerror}")


def fail(message: str, code: int = 2) -> Any:
    """One line on stderr and the exit code."""
    print(f"scdpo: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code)
