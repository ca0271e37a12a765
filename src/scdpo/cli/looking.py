"""The dry look of `scdpo sample --show`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from scdpo.cli.app import policy_in_words, recipe_of
from scdpo.cli.tables import print_rows
from scdpo.terminal import Terminal

if TYPE_CHECKING:
    from scdpo.pipeline.changes import Changes

LIMIT = 2
"""How many problems are looked at by default."""


def dry_look(path: Path, recipe: str | None, changes: Changes, limit: int | None) -> None:
    """Print a few solutions to the first problems; writes nothing."""
    from scdpo.pipeline.looking import look, look_figures
    from scdpo.pipeline.opened import initial_policy
    from scdpo.report import show_solutions

    settings, source = recipe_of(path, recipe, changes)
    started = time.perf_counter()
    policy = initial_policy(settings, path)
    with Terminal({"recipe": source, "policy": policy_in_words(settings, path)}) as terminal:
        problems, solutions = look(settings, limit or LIMIT, terminal, policy=policy)
        terminal.settle()
        print_rows(show_solutions(solutions, {problem.id: problem for problem in problems}))
        terminal.note("look", look_figures(solutions, time.perf_counter() - started))
