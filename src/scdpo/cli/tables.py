"""Prints the tables of a run and writes them to its `report.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType

if TYPE_CHECKING:
    from scdpo.engines.http.probe import ServerReport
    from scdpo.evaluation import ComparisonLine, Disagreement, Evaluations, GroupBy
    from scdpo.pipeline.measure import Measurement
    from scdpo.pipeline.run import Run
    from scdpo.report import Grid
    from scdpo.terminal import Terminal

PAGE = "report.html"
"""The name of a run's report as a page."""

console = Console()


def show(run: Run, by: GroupBy | None = None) -> bool:
    """Print all tables and write `report.md`; returns whether any policy was evaluated."""
    from scdpo.pipeline.tables import run_tables

    tables = run_tables(run, by)
    if run.folder.write:
        _keep(tables.all, run.path)
    _print(tables.all)
    return bool(tables.accuracy)


def write_page(run: Run, terminal: Terminal, out: Path) -> None:
    """Write the run's report as a page, and name it."""
    from scdpo.pipeline.report_page import report_page
    from scdpo.report.page import write_report

    size = write_report(report_page(run), out)
    terminal.note("report", f"{out} ({size / 1e6:.2f} MB)")


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


def show_servers(reports: Sequence[ServerReport]) -> None:
    """Print what was found out about servers, a table for each."""
    from scdpo.report import Cell, Column, Grid

    styles = {"ok": "green", "failed": "bold red", "unknown": "yellow"}
    columns = (
        Column("check", "left"),
        Column("outcome", "left"),
        Column("found", "left", wrap=True),
    )
    _print(
        [
            Grid(
                report.url,
                columns,
                tuple(
                    (Cell(c.name), Cell(c.outcome, style=styles[c.outcome]), Cell(c.found))
                    for c in report.checks
                ),
            )
            for report in reports
        ]
    )


def show_disagreements(found: Sequence[Disagreement]) -> None:
    """Print the questions that only one of two policies answered correctly."""
    for one in found:
        answers = [one.a_answer or "no answer", one.b_answer or "no answer"]
        console.print(
            f"only {one.only.upper()}  {one.benchmark}  gold {_short(one.gold)}  "
            f"A {_short(answers[0])}  B {_short(answers[1])}",
            style="bold",
            markup=False,
            highlight=False,
        )
        console.print(one.question or one.problem_id, markup=False, highlight=False)
        console.print()


def _short(text: str) -> str:
    """A text for one line; a worked gold solution ends in what matters."""
    plain = " ".join(text.split())
    return plain if len(plain) <= 40 else f"…{plain[-39:]}"


def _keep(tables: Sequence[Grid], folder: Path) -> None:
    from scdpo.report import as_markdown
    from scdpo.store import write_atomic

    write_atomic(folder / "report.md", "\n".join(as_markdown(table) for table in tables))


def _print(tables: Sequence[Grid]) -> None:
    for table in tables:
        console.print(table)
        console.print()


def show_stages(run: Run, *names: str) -> None:
    """Print rows, time and counts of stages, or of all stages of a kind."""
    from scdpo.report import stage_table

    begins = tuple(f"{name}/" for name in names)
    shown = [m for m in run.manifests() if f"{m.stage}/".startswith(begins)]
    console.print(stage_table(shown))
    console.print()


def print_rows(rows: Iterable[RenderableType]) -> None:
    """Print rows on stdout, also where its encoding does not have all their characters."""
    with suppress(AttributeError):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    for row in rows:
        console.print(row)
