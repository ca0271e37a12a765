"""The tables of a run, for the terminal and as Markdown or JSON, and its report as a page."""

from scdpo.report import notation
from scdpo.report.benchmarks import benchmark_table, comparison_table
from scdpo.report.choosing import Choice, shown_rows
from scdpo.report.grid import Cell, Column, Grid, as_markdown
from scdpo.report.showing import show_solutions
from scdpo.report.table import as_json, breakdown_table, label, policy_table, stage_table

__all__ = [
    "Cell",
    "Choice",
    "Column",
    "Grid",
    "as_json",
    "as_markdown",
    "benchmark_table",
    "breakdown_table",
    "comparison_table",
    "label",
    "notation",
    "policy_table",
    "show_solutions",
    "shown_rows",
    "stage_table",
]
