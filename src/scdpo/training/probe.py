"""Whether a model can score token trees, found by trying.

A model may ignore the mask or the positions it is given, or transform its logits after its
output embeddings. Its class does not tell; its log-probs do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from scdpo.training.attention import Backend
from scdpo.training.config import Checkpointing
from scdpo.training.padding import pad_sequences
from scdpo.training.scoring import Head, TreeScoring, score_padded, score_tree, using_attention
from scdpo.training.tree import MaskedIds, grow, join

TOLERANCE = {torch.float32: 2e-4, torch.float64: 1e-7}
"""Largest difference of a mean log-prob per token, in nats; other formats: `COARSE`."""
COARSE = 3e-2
HEADS: tuple[Head, ...] = ("chunked", "own")
LONGEST = 4
"""Number of sequences of the longest question that are tried; more would only take longer."""


def candidates(attention: str, checkpointing: Checkpointing, on_gpu: bool) -> tuple[Backend, ...]:
    """Backends in the order of their speed on this device, or the one that a user named.

    Selective checkpointing cannot keep the results of FlexAttention.
    """
    if attention != "auto":
        return (attention,)  # type: ignore[return-value]
    if not on_gpu:
        return ("paths", "sdpa")
    return ("sdpa", "paths") if checkpointing == "selective" else ("flex", "sdpa", "paths")


def find_scoring(
    model: nn.Module, questions: Sequence[Sequence[MaskedIds]], backends: Sequence[Backend]
) -> tuple[TreeScoring | None, str]:
    """The first scoring of trees that agrees with sequences scored by themselves, or None.

    Tried on real sequences: those of the question with the longest one, with another question
    beside it in the row. The text says in one line why others were not taken.
    """
    by_length = sorted(questions, key=lambda q: -max(len(ids) for ids, _ in q))
    tried: list[Sequence[MaskedIds]] = [
        sorted(question, key=lambda s: -len(s[0]))[:LONGEST] for question in by_length[:1]
    ]
    tried += [question[:2] for question in by_length[-1:]]
    tree = join([grow(question) for question in tried])
    sequences = [s for question in tried for s in question]
    counted = torch.tensor([float(sum(mask[1:])) for _, mask in sequences])
    with torch.no_grad(), using_attention(model, None):
        expected = torch.cat([score_padded(model, pad_sequences([s])) for s in sequences]).cpu()
    reasons: dict[str, None] = {}
    for backend in backends:
        for head in HEADS:
            scoring = TreeScoring(backend, head)
            try:
                with torch.no_grad(), using_attention(model, backend):
                    found = score_tree(model, tree, scoring).cpu()
            except Exception as error:  # whatever a model raises that cannot be called like this
                reasons[f"{backend}: {_brief(error)}"] = None
                continue
            apart = ((found - expected).abs() / counted.clamp(min=1)).max().item()
            if apart <= TOLERANCE.get(_precision(model), COARSE):
                return scoring, "; ".join(reasons)
            reasons[f"{backend}: log-probs differ by {apart:.2g} a token"] = None
    return None, "; ".join(reasons)


def _precision(model: nn.Module) -> torch.dtype:
    """The number format of a model's parameters; bf16 where they differ."""
    kinds = {p.dtype for p in model.parameters()}
    return next(iter(kinds)) if len(kinds) == 1 else torch.bfloat16


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 80 else f"{text[:79]}…"
