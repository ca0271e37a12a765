"""How many tokens policies wrote in each stage of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdpo.records import Evaluation, Solution

if TYPE_CHECKING:
    from scdpo.pipeline.opened import OpenRun

_SOLUTIONS = ("solutions", "branches", "credit/solutions")


def tokens_written(run: OpenRun) -> dict[str, int]:
    """Sampled tokens by stage, for stages in which a policy wrote something.

    Of a continuation, only the steps after its branch step count: it shares the others.
    """
    found: dict[str, int] = {}
    for manifest in run.manifests():
        stage = run.stage(manifest.stage)
        if manifest.stage in _SOLUTIONS:
            found[manifest.stage] = sum(
                len(step.token_ids)
                for solution in stage.rows(Solution)
                for step in solution.steps[solution.branch_step :]
            )
        elif manifest.stage.startswith("evaluations/"):
            found[manifest.stage] = sum(row.n_tokens for row in stage.rows(Evaluation))
    return found
