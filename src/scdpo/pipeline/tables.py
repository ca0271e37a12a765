"""The tables of a run, the same on the terminal, in `report.md` and on the report's page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scdpo.errors import InputError
from scdpo.evaluation import GroupBy, PolicyLine
from scdpo.report import Grid, breakdown_table, policy_table, stage_table

if TYPE_CHECKING:
    from scdpo.pipeline.opened import OpenRun

MOST_LEVELS = 10
"""Levels are listed by default if there are at most this many."""


@dataclass(frozen=True, slots=True)
class RunTables:
    """Stages, breakdowns, and accuracies: on each data set, if there are several, and on all.

    `lines` are what the last accuracy table is made of.
    """

    stages: tuple[Grid, ...]
    breakdowns: tuple[Grid, ...]
    accuracy: tuple[Grid, ...]
    lines: tuple[PolicyLine, ...]

    @property
    def all(self) -> list[Grid]:
        """Every table, in the order in which they are printed."""
        return [*self.stages, *self.breakdowns, *self.accuracy]


def run_tables(run: OpenRun, by: GroupBy | None = None) -> RunTables:
    """The tables of a run, with the usual breakdowns or that `by` a certain key.

    Raises InputError if there is nothing to break down by it.
    """
    manifests = run.manifests()
    by_dataset = run.report_by_dataset()
    accuracy = [
        policy_table(of, f"Accuracy on {dataset}, greedy decoding")
        for dataset, of in by_dataset.items()
    ]
    if lines := run.report():
        everywhere = {"title": "Accuracy on all data sets, greedy decoding"} if by_dataset else {}
        accuracy.append(policy_table(lines, **everywhere))
    return RunTables(
        stages=(stage_table(manifests),) if manifests else (),
        breakdowns=tuple(_breakdowns(run, by, list(by_dataset))),
        accuracy=tuple(accuracy),
        lines=tuple(lines),
    )


def _breakdowns(run: OpenRun, by: GroupBy | None, datasets: Sequence[str]) -> list[Grid]:
    """The requested breakdown; by default that of levels, for each data set with a few of them."""
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
