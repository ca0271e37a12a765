"""The command that shows a run in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scdpo.cli.app import RowsPath, app
from scdpo.terminal import Terminal


@app.command()
def view(
    path: RowsPath,
    port: Annotated[
        int, typer.Option(help="The port to serve at; 0 takes a free one.", min=0, max=65535)
    ] = 8765,
    host: Annotated[
        str, typer.Option(help="The address to serve at; another than this needs --token.")
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(
            help="What a browser must give, at least 16 characters.",
            envvar="SCDPO_VIEW_TOKEN",
            show_default="none",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the run into one HTML file of at most 50 MB, and serve nothing.",
            show_default="serve",
        ),
    ] = None,
) -> None:
    """Look through a run in the browser: problems, trees of solutions, executions, token credit.

    The page follows a run that is being written. The server only reads, and only this machine can
    reach it; `--out run.html` makes a file that needs no server and no network.
    """
    from scdpo.viewer import Index, serve, write_page

    index = Index(path)
    with Terminal(None) as terminal:
        if out is not None:
            made = write_page(index, out)
            room = "" if made.whole == made.problems else f", texts of the first {made.whole}"
            size = f"{made.bytes / 1e6:.1f} MB"
            terminal.note("view", f"{made.problems} problems{room} written to {out}, {size}")
            return
        try:
            serve(
                index,
                host=host,
                port=port,
                token=token,
                ready=lambda address: terminal.note("view", f"{address} (Ctrl-C ends it)"),
            )
        except KeyboardInterrupt:
            terminal.note("view", "ended")
