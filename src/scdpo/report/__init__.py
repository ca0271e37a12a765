"""Tables of a run, for the terminal, as Markdown and as JSON."""

from scdpo.report.grid import Grid, as_markdown
from scdpo.report.lines import BreakdownLine, Difference, PolicyLine
from scdpo.report.table import as_json, breakdown_table, policy_table, stage_table

__all__ = [
    "BreakdownLine",
    "Difference",
    "Grid",
    "PolicyLine",
    "as_json",
    "as_markdown",
    "breakdown_table",
    "policy_table",
    "stage_table",
]
