"""Sequences in a right-padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor

from scdpo.training.tree import MaskedIds


class SequenceBatch(TypedDict):
    """Right-padded sequences.

    `input_ids` (B, T) int64; `mask` (B, T) bool, True where a token counts; `keep`: logits are
    needed only at the last `keep` of the T positions, as nothing before them counts;
    `n_tokens` without padding.
    """

    input_ids: Tensor
    mask: Tensor
    keep: int
    n_tokens: int


def pad_sequences(sequences: Sequence[MaskedIds]) -> SequenceBatch:
    """One right-padded batch of sequences, each with a counted token after its first."""
    length = max(len(ids) for ids, _ in sequences)
    input_ids = torch.zeros((len(sequences), length), dtype=torch.int64)
    mask = torch.zeros((len(sequences), length), dtype=torch.bool)
    for row, (ids, counts) in enumerate(sequences):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = torch.tensor(counts)
    first = min(list(counts).index(True, 1) for _, counts in sequences)
    return SequenceBatch(
        input_ids=input_ids,
        mask=mask,
        keep=length - first + 1,
        n_tokens=sum(len(ids) for ids, _ in sequences),
    )
