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
    from scdpo.evaluation import ComparisonLine, Disagreement, Evaluations, GroupBy
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
    by_dataset = run.report_by_dataset()
    tables += breakdowns(run, by, list(by_dataset))
    for dataset, of in by_dataset.items():
        tables.append(policy_table(of, f"Accuracy on {dataset}, greedy decoding"))
    if lines := run.report():
        everywhere = {"title": "Accuracy on all data sets, greedy decoding"} if by_dataset else {}
        tables.append(policy_table(lines, **everywhere))
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


def breakdowns(run: Run, by: GroupBy | None, datasets: Sequence[str]) -> list[Grid]:
    """The requested breakdown; by default that of levels, for each data set with a few of them."""
    from scdpo.report import breakdown_table

    if by is not None:
        if lines := run.breakdown(by):
            return [breakdown_table(lines, by)]
        raise InputError(f"{run.path}: its questions have no {by}, or no policy is evaluated yet")
    tables = []
    for dataset in datasets or ("",):
        lines = run.breakdown("level", dataset or None)
        if 1 < len({line.group for line in lines}) <= MOST_LEVELS:
            tables.append(breakdown_table(lines, "level", dataset))
    return tables


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
