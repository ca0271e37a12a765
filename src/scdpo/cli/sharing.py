"""The commands that hand on what a run has made: export, push."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from scdpo.cli.app import RunPath, app, known_method, opened
from scdpo.errors import InputError
from scdpo.terminal import Terminal


class Kind(StrEnum):
    """What a run's rows can be exported as."""

    dpo = "dpo"
    prm = "prm"


class Labels(StrEnum):
    """How step labels are made."""

    known = "known"
    estimated = "estimated"


@app.command()
def export(
    path: RunPath,
    out: Annotated[Path, typer.Option(help="The JSONL file to write.", show_default=False)],
    as_: Annotated[
        Kind, typer.Option("--as", help="dpo: pairs; prm: solutions with a label for each step.")
    ] = Kind.dpo,
    method: Annotated[
        str | None,
        typer.Option(help="For dpo: dpo, dpo_equal or scdpo.", show_default="scdpo"),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="For dpo: a training, whose pairs to write.", show_default=False),
    ] = None,
    labels: Annotated[
        Labels, typer.Option(help="For prm: only labels that are known, or estimates as well.")
    ] = Labels.known,
) -> None:
    """Write training data in TRL's formats.

    `--as dpo`: the pairs of a method or training (prompt, chosen, rejected). `--as prm`: step
    supervision (prompt, completions, labels) from all sampled, imported and branched solutions.
    """
    pairs_of = None if method is None else known_method(method)
    if as_ is Kind.prm and (method or name):
        raise InputError("--method and --name choose pairs, so they go with --as dpo")
    with opened(path, None, write=False) as (run, terminal):
        if as_ is Kind.prm:
            made = run.export_step_labels(out, labels.value)
            terminal.note("export", f"{made.text} written to {out}")
        else:
            pairs = run.export(run.method_of(name, pairs_of), out)
            terminal.note("export", f"{pairs} pairs written to {out}")


@app.command()
def push(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="The run folder; also a training's or a policy's.",
            show_default=False,
        ),
    ],
    to: Annotated[str, typer.Option(help="Name on the hub: owner/name.", show_default=False)],
    policy: Annotated[
        str | None, typer.Option(help="A trained policy of the run.", show_default=False)
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a private repository.")] = False,
) -> None:
    """Upload a trained policy with its model card to the Hugging Face hub.

    The token is that of HF_TOKEN or of `hf auth login`.
    """
    from scdpo.pipeline.push import find_policy, push_policy

    folder = find_policy(path, policy)
    with Terminal() as terminal:
        terminal.note("push", f"{folder} to {to}")
        terminal.note("pushed", push_policy(folder, to, private=private))
