"""Prints the tables of a run and writes them to its `report.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType

from scdpo.errors import InputError

if TYPE_CHECKING:
    from scdpo.evaluation import BreakdownLine, ComparisonLine, Evaluations, GroupBy
    from scdpo.pipeline.measure import Measurement
    from scdpo.pipeline.run import Run
    from scdpo.report import Grid

MOST_LEVELS = 10
"""Levels are listed by default if there are at most this many."""

console = Console()


def show(run: Run, by: GroupBy | None = None) -> bool:
    """Print all tables and write `report.md`; returns whether any policy was evaluated."""
    from scdpo.report import policy_table, stage_table

    tables: list[Grid] = []
    if manifests := run.manifests():
        tables.append(stage_table(manifests))
    if groups := breakdown(run, by):
        tables.append(groups)
    if lines := run.report():
        tables.append(policy_table(lines))
    if run.folder.write:
        _keep(tables, run.path)
    _print(tables)
    return bool(lines)


def show_measured(measured: Measurement, rows: Evaluations, by: GroupBy | None = None) -> None:
    """Print a policy's results on its benchmarks, with the usual and requested breakdowns, and
    write them to the folder's `report.md`."""
    from scdpo.evaluation import benchmark_lines, breakdown_lines
    from scdpo.report import benchmark_table, breakdown_table

    tables: list[Grid] = []
    for name, answered in rows.items():
        for key in measured.groups(name, by):
            if lines := breakdown_lines({measured.policy: answered}, key):
                tables.append(breakdown_table(lines, key, name))
    tables.append(benchmark_table(benchmark_lines(measured.policy, rows)))
    _keep(tables, measured.path)
    _print(tables)


def show_compared(lines: Sequence[ComparisonLine], a: str, b: str) -> None:
    """Print the comparison of two policies."""
    from scdpo.report import comparison_table

    _print([comparison_table(lines, a, b)])


def _keep(tables: Sequence[Grid], folder: Path) -> None:
    from scdpo.report import as_markdown
    from scdpo.store import write_atomic

    write_atomic(folder / "report.md", "\n".join(as_markdown(table) for table in tables))


def _print(tables: Sequence[Grid]) -> None:
    for table in tables:
        console.print(table)
        console.print()


def breakdown(run: Run, by: GroupBy | None) -> Grid | None:
    """The requested breakdown; by default that of levels, if there are a few."""
    from scdpo.report import breakdown_table

    lines: list[BreakdownLine] = run.breakdown(by or "level")
    n_groups = len({line.group for line in lines})
    if by is None and not 1 < n_groups <= MOST_LEVELS:
        return None
    if by is not None and not lines:
        raise InputError(f"{run.path}: its questions have no {by}, or no policy is evaluated yet")
    return breakdown_table(lines, by or "level")


def show_stages(run: Run, name: str) -> None:
    """Print rows, time and counts of a stage, or of all stages of a kind."""
    from scdpo.report import stage_table

    shown = [m for m in run.manifests() if f"{m.stage}/".startswith(f"{name}/")]
    console.print(stage_table(shown))
    console.print()


def print_rows(rows: Iterable[RenderableType]) -> None:
    """Print rows on stdout, also where its encoding does not have all their characters."""
    with suppress(AttributeError):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    for row in rows:
        console.print(row)
