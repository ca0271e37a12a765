"""The tables of a run, for the terminal and as Markdown or JSON."""

from scdpo.report import notation
from scdpo.report.benchmarks import benchmark_table, comparison_table
from scdpo.report.grid import Grid, as_markdown
from scdpo.report.table import as_json, breakdown_table, label, policy_table, stage_table

__all__ = [
    "Grid",
    "as_json",
    "as_markdown",
    "benchmark_table",
    "breakdown_table",
    "comparison_table",
    "label",
    "notation",
    "policy_table",
    "stage_table",
]
