"""The dry look of `scdpo sample --show`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from scdpo.cli.app import recipe_of
from scdpo.cli.tables import print_rows
from scdpo.terminal import Terminal

if TYPE_CHECKING:
    from scdpo.pipeline.changes import Changes

LIMIT = 2
"""How many problems are looked at by default."""


def dry_look(path: Path, recipe: str | None, changes: Changes, limit: int | None) -> None:
    """Print a few solutions to the first problems; writes nothing."""
    from scdpo.pipeline.looking import look, look_figures
    from scdpo.report import show_solutions

    settings, source = recipe_of(path, recipe, changes)
    started = time.perf_counter()
    with Terminal({"recipe": source, "policy": settings.policy}) as terminal:
        problems, solutions = look(settings, limit or LIMIT, terminal)
        terminal.settle()
        print_rows(show_solutions(solutions, {problem.id: problem for problem in problems}))
        terminal.note("look", look_figures(solutions, time.perf_counter() - started))
