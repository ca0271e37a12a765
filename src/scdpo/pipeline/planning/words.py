"""What a plan rests on, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdpo.pipeline.planning.speed import share

if TYPE_CHECKING:
    from scdpo.pipeline.planning.plan import Planner


def assumptions(planner: Planner) -> tuple[str, ...]:
    """One line for each kind of assumption; all can be set in the recipe's section `plan`."""
    recipe, hardware = planner.recipe, planner.hardware
    own = {s.questions.dataset for s in planner.sampled} <= recipe.plan.pairs.keys()
    source = "plan.pairs" if own else "means of the paper's 7B policies (plan.pairs)"
    texts = [f"{q.dataset} {q.prompt}+{q.solution}" for q in planner.train_questions]
    training, decoding = (
        100 * share(kind, hardware, recipe.plan) for kind in ("training", "decoding")
    )
    lines = [
        f"Pairs per question: {source}. Attempts: from a beta distribution of how hard questions "
        "are (plan.accuracy).",
        f"Tokens of prompt + solution: {', '.join(texts)} (plan.prompt_tokens, solution_tokens).",
        f"Training reaches {training:.0f} % of the peak FLOP/s (plan.training_share), decoding "
        f"{decoding:.0f} % of what bandwidth and peak allow (plan.decoding_share).",
        "Execution and grading are taken to be hidden behind decoding. Memory is the peak of one "
        f"device; {100 * recipe.plan.usable_memory:.0f} % of it can be used (plan.usable_memory).",
    ]
    if hardware.count > 1:
        lines.append("The engine in process samples and evaluates on one device.")
    return tuple(lines)
