"""The command that prints rows for reading."""

from __future__ import annotations

from typing import Annotated

import typer

from scdpo.cli.app import RowsPath, app
from scdpo.cli.tables import print_rows
from scdpo.terminal import Terminal


@app.command()
def show(
    path: RowsPath,
    kind: Annotated[
        str,
        typer.Option(help="problems, solutions, imports, branches, pairs or evaluations."),
    ] = "solutions",
    part: Annotated[
        str | None,
        typer.Option(
            help="A part of the kind, such as step_controlled (pairs) or scdpo (evaluations).",
            show_default="all",
        ),
    ] = None,
    id_: Annotated[
        str | None,
        typer.Option(
            "--id", help="The id of a row, of its problem or solution.", show_default="any"
        ),
    ] = None,
    verdict: Annotated[
        str | None, typer.Option(help="correct, wrong or undecided.", show_default="any")
    ] = None,
    finish: Annotated[
        str | None,
        typer.Option(help="How a solution ended, such as finished or context.", show_default="any"),
    ] = None,
    flag: Annotated[
        str | None,
        typer.Option(help="How a flag begins, such as error_word.", show_default="any"),
    ] = None,
    limit: Annotated[int, typer.Option(help="Rows to print.", min=1)] = 5,
) -> None:
    """Print rows for reading: prompt, steps, executions, verdicts; pairs side by side.

    `scdpo show RUN --kind pairs --part step_controlled` marks where the sides of a pair part.
    What a model wrote is printed with control characters as escapes.
    """
    from scdpo.report import Choice, shown_rows
    from scdpo.store import RunFolder

    choice = Choice(kind, part, id_, verdict, finish, flag)
    with RunFolder(path, write=False) as folder:
        shown, more = shown_rows(folder, choice, limit)
    print_rows(shown)
    if more:
        with Terminal() as terminal:
            terminal.note("shown", f"the first {limit}; --limit prints more, --id a certain one")
