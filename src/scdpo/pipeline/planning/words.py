"""What a plan rests on, in words."""

from __future__ import annotations

from collections.abc import Sequence

from scdpo.pipeline.planning.config import PlanConfig
from scdpo.pipeline.planning.expected import Questions
from scdpo.pipeline.planning.hardware import Hardware
from scdpo.pipeline.planning.speed import share


def assumptions(
    questions: Sequence[Questions], hardware: Hardware, config: PlanConfig
) -> tuple[str, ...]:
    """One line for each kind of assumption; all can be set in the recipe's section `plan`."""
    own = {q.dataset for q in questions} <= config.pairs.keys()
    source = "plan.pairs" if own else "means of the paper's 7B policies (plan.pairs)"
    texts = [f"{q.dataset} {q.prompt}+{q.solution}" for q in questions]
    training, decoding = (100 * share(kind, hardware, config) for kind in ("training", "decoding"))
    lines = [
        f"Pairs per question: {source}. Attempts: from a beta distribution of how hard questions "
        "are (plan.accuracy).",
        f"Tokens of prompt + solution: {', '.join(texts)} (plan.prompt_tokens, solution_tokens).",
        f"Training reaches {training:.0f} % of the peak FLOP/s (plan.training_share), decoding "
        f"{decoding:.0f} % of what bandwidth and peak allow (plan.decoding_share).",
        *(
            [f"Starting a layer takes {config.layer_ms:g} ms of a token step (plan.layer_ms)."]
            if hardware.gpu
            else []
        ),
        "Execution and grading are taken to be hidden behind decoding. Memory is the peak of one "
        f"device; {100 * config.usable_memory:.0f} % of it can be used (plan.usable_memory).",
    ]
    if hardware.count > 1:
        lines.append("The engine in process samples and evaluates on one device.")
    return tuple(lines)
