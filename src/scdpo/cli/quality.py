"""The command that says what a run's pairs and branches are like."""

from __future__ import annotations

from scdpo.cli.app import RedoOption, RunPath, app, opened
from scdpo.cli.tables import console


@app.command()
def quality(path: RunPath, redo: RedoOption = False) -> None:
    """Measure a run's pairs and branches: where negatives go wrong, how alike both sides are.

    Also how the branches of each branch step k end, and how often a preferred solution hides a
    wrong step. Which steps are wrong is known for the embedded problems. A row for each pair is
    kept in RUN/quality/pairs, and the figures with their intervals in RUN/quality/figures.
    """
    from scdpo.pipeline.quality import measure_quality
    from scdpo.pipeline.quality_table import quality_tables

    with opened(path, None, redo="quality" if redo else None) as (run, terminal):
        made = measure_quality(run)
        terminal.settle()
        for table in quality_tables(made.lines):
            console.print(table)
            console.print()
        if made.unlabelled:
            terminal.note("quality", f"nothing about wrong steps: {made.unlabelled}")
        terminal.note("rows", str(made.folder.parent))
