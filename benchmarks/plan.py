"""`scdpo plan` beside the figures of the paper (arXiv 2407.00782), and beside a run.

    python benchmarks/plan.py

The recipes of the paper state the pairs that it found (`plan.pairs`). So for each policy the pairs
are also predicted from those of the other two alone, as they would be for a policy of one's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean
from typing import NamedTuple

from scdpo.pipeline.planning.hardware import hardware
from scdpo.pipeline.planning.plan import Plan, Planner, plan_recipe
from scdpo.pipeline.planning.shapes import shape_of
from scdpo.pipeline.recipe import Recipe, load_recipe

QUESTIONS = {"gsm8k": 7473, "math": 7500}
PAIRS = {
    "mistral-7b-ours": {"gsm8k": (7000, 6000), "math": (5000, 12000)},
    "metamath-mistral-7b": {"gsm8k": (7000, 6000), "math": (6000, 11000)},
    "mathcoder-mistral-7b": {"gsm8k": (6000, 6000), "math": (6000, 13000)},
}
"""Naive and step-controlled pairs of the paper, in its round figures."""
SFT_ROWS = {"mistral-7b-ours": 81000, "internlm2-20b": 250000}
EPOCHS, BATCH = 2, 64
MACHINES = {"internlm2-20b": "16xA800"}
"""GPUs of the paper; the others were trained on 8."""
DEMO = {"solutions": 2792, "branches": 1656, "policies/dpo": 186, "policies/dpo_equal": 434}
DEMO |= {"policies/scdpo": 434}
"""Attempts and training pairs of `scdpo run embedded` (docs/benchmarks.md)."""


class Line(NamedTuple):
    """A figure of the paper or of a run, and of the plan."""

    recipe: str
    figure: str
    paper: float
    plan: float

    @property
    def off(self) -> float:
        """By how much the plan is off, as a share."""
        return self.plan / self.paper - 1


def planned(name: str, recipe: Recipe | None = None) -> tuple[Plan, Planner]:
    """The plan of a recipe on the GPUs that the paper used."""
    recipe = recipe or load_recipe(name)
    machine = hardware(MACHINES.get(name, "8xA800"))
    return plan_recipe(recipe, machine), Planner(recipe, machine, shape_of(recipe.policy))


def against_paper() -> Iterator[Line]:
    """The figures that the paper gives, for each of its policies."""
    for name, rows in SFT_ROWS.items():
        plan, _ = planned(name)
        yield Line(name, "SFT rows", rows, plan.stages[0].rows)
        yield Line(name, "SFT steps", 3 * rows / BATCH, plan.stages[0].steps or 0)
    for name in PAIRS:
        yield from pairs_of(name, name, load_recipe(name))


def from_the_others() -> Iterator[Line]:
    """The total of pairs and the steps, predicted from the other policies of the paper."""
    for name in PAIRS:
        others = [pairs for other, pairs in PAIRS.items() if other != name]
        changes = {
            f"plan.pairs.{dataset}": {
                "questions": questions,
                "naive": round(mean(pairs[dataset][0] for pairs in others)),
                "step_controlled": round(mean(pairs[dataset][1] for pairs in others)),
            }
            for dataset, questions in QUESTIONS.items()
        }
        lines = pairs_of(name, f"{name}, from the others", load_recipe(name, changes))
        yield from (line for line in lines if line.figure.startswith(("all", "SCDPO")))


def pairs_of(name: str, shown: str, recipe: Recipe) -> Iterator[Line]:
    """Pairs by kind and data set, all of them, and the steps of DPO and SCDPO."""
    plan, planner = planned(name, recipe)
    found = {s.questions.dataset: (s.naive, s.step_controlled) for s in planner.sampled}
    for dataset, pairs in PAIRS[name].items():
        for kind, here, there in zip(
            ("naive", "step-controlled"), pairs, found[dataset], strict=True
        ):
            yield Line(shown, f"{dataset}, {kind} pairs", here, there)
    totals = [sum(map(sum, of.values())) for of in (PAIRS[name], found)]
    yield Line(shown, "all pairs", *totals)
    steps = {stage.stage: stage.steps or 0 for stage in plan.stages}
    naive = sum(pairs[0] for pairs in PAIRS[name].values())
    yield Line(shown, "DPO steps", EPOCHS * naive / BATCH, steps["policies/dpo"])
    for method, label in (("dpo_equal", "DPO (data-equal)"), ("scdpo", "SCDPO")):
        yield Line(shown, f"{label} steps", EPOCHS * totals[0] / BATCH, steps[f"policies/{method}"])


def against_a_run() -> Iterator[Line]:
    """The default run, whose pairs are known, but not its attempts and data-equal pairs."""
    plan = plan_recipe(load_recipe("embedded"), hardware("2xcpu"))
    for stage in plan.stages:
        if stage.stage in DEMO:
            yield Line("embedded", f"{stage.stage}, rows", DEMO[stage.stage], stage.rows)


def main() -> None:
    """Print all lines."""
    print(f"{'recipe':38}{'figure':32}{'found':>10}{'plan':>10}{'off':>8}")
    for lines in (against_paper(), from_the_others(), against_a_run()):
        for line in lines:
            figures = f"{line.paper:>10,.0f}{line.plan:>10,.0f}{100 * line.off:>+7.1f}%"
            print(f"{line.recipe:38}{line.figure:32}{figures}")


if __name__ == "__main__":
    main()
