"""What a run's pairs and branches are like, as rows and figures that are kept in its folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scdpo.insight.branch_lines import QualityLine, quality_lines
from scdpo.insight.branches import Continuation, PairQuality, continuation, pair_quality
from scdpo.pipeline.opened import manifest_of
from scdpo.pipeline.sources import NO_ORACLE, problems_with_oracle
from scdpo.records import Pair, Solution

if TYPE_CHECKING:
    from scdpo.pipeline.run import Run

PAIRS, FIGURES = "quality/pairs", "quality/figures"
_PARTS = ("pairs/naive", "pairs/step_controlled")


@dataclass(frozen=True, slots=True)
class Quality:
    """Figures about a run's pairs and branches.

    `lines` lack what needs to be known of single steps where `unlabelled` says why. The rows are
    kept in `folder`.
    """

    lines: tuple[QualityLine, ...]
    folder: Path
    unlabelled: str = ""


def measure_quality(run: Run) -> Quality:
    """Rows about every naive and step-controlled pair (`quality/pairs`), and figures about these
    and about all branches (`quality/figures`).

    Computed again whenever the pairs have changed. Raises InputError where there are no pairs yet.
    """
    sources = [run.finished(name, "pair") for name in _PARTS]
    inputs = {stage.name: manifest_of(stage).output_hash or "" for stage in sources}
    problems = problems_with_oracle(run.recipe, "train")
    rows = run.derived(PAIRS, inputs)
    if not rows.done:
        run.record(rows)
        encode = run.services.encode(run.initial_policy)
        pairs = (pair for stage in sources for pair in stage.rows(Pair))
        rows.append(pair_quality(pairs, problems, encode))
        rows.finish()
    inputs = {PAIRS: manifest_of(rows).output_hash or ""}
    if run.begun("branches"):
        inputs["branches"] = manifest_of(run.finished("branches", "branch")).output_hash or ""
    figures = run.derived(FIGURES, inputs)
    if not figures.done:
        run.record(figures)
        figures.append(quality_lines(list(rows.rows(PairQuality)), _continuations(run)))
        figures.finish()
    labelled = any(row.labelled for row in rows.rows(PairQuality))
    lines = tuple(figures.rows(QualityLine))
    return Quality(lines, figures.path, "" if labelled else NO_ORACLE)


def _continuations(run: Run) -> Iterator[Continuation]:
    if not run.begun("branches"):
        return
    branches = run.stage("branches")
    parents = {branch.parent for branch in branches.rows(Solution)}
    steps = {
        row.id: len(row.steps)
        for stage in run.solution_stages()
        for row in stage.rows(Solution)
        if row.id in parents
    }
    for branch in branches.rows(Solution):
        if branch.parent in steps:
            yield continuation(branch, steps[branch.parent])
