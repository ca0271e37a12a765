"""Batches of pairs: padding, and the log-probs that a model gives them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import torch
from torch import Tensor
from torch.utils.data import Dataset

from scdpo.training.losses import sequence_logps
from scdpo.training.tokens import PairTokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MaskedIds = tuple[Sequence[int], Sequence[bool]]
"""Ids of a whole sequence and the mask of what counts."""


class SequenceBatch(TypedDict):
    """Right-padded sequences.

    `input_ids` (B, T) int64; `mask` (B, T) bool, True where a token counts; `keep`: logits are
    needed at the last `keep` of the T positions only, as nothing before them counts. Rows that
    hold several texts say so with `position_ids` (B, T) and a boolean `attention_mask`
    (B, 1, T, T), True where a token sees another.
    """

    input_ids: Tensor
    mask: Tensor
    keep: int
    position_ids: NotRequired[Tensor]
    attention_mask: NotRequired[Tensor]


class PairBatch(SequenceBatch):
    """n pairs as 2n sequences, the chosen ones first.

    `reference` (2n,) fp32: their log-probs under the reference policy, nats.
    """

    reference: Tensor


def pad_sequences(sequences: Sequence[MaskedIds]) -> SequenceBatch:
    """Put sequences into one right-padded batch."""
    length = max(len(ids) for ids, _ in sequences)
    input_ids = torch.zeros((len(sequences), length), dtype=torch.int64)
    mask = torch.zeros((len(sequences), length), dtype=torch.bool)
    for row, (ids, counts) in enumerate(sequences):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = torch.tensor(counts)
    first = min(counts.index(True, 1) for _, counts in sequences)
    return SequenceBatch(input_ids=input_ids, mask=mask, keep=length - first + 1)


def takes_logits_to_keep(model: PreTrainedModel) -> bool:
    """Whether the model can leave out the logits of leading positions."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def score(model: torch.nn.Module, batch: SequenceBatch, *, partial: bool) -> Tensor:
    """Log-prob (B,) of what counts in each sequence under a causal language model, fp32, nats.

    `partial` asks the model for the logits of the last `keep` positions only. For rows of one
    text no attention mask is passed: padding is on the right, where no real token attends to it,
    and without a mask the fused causal attention can be used.
    """
    ids_BT, mask_BT = batch["input_ids"], batch["mask"]
    inputs: dict[str, Any] = {"input_ids": ids_BT, "use_cache": False}
    if "attention_mask" in batch:
        inputs |= {name: batch[name] for name in ("position_ids", "attention_mask")}
    if partial:
        keep = batch["keep"]
        logits_BTV = model(**inputs, logits_to_keep=keep).logits
        return sequence_logps(logits_BTV, ids_BT[:, -keep:], mask_BT[:, -keep:])
    return sequence_logps(model(**inputs).logits, ids_BT, mask_BT)


class PairDataset(Dataset[tuple[PairTokens, float, float]]):
    """Pairs with the reference log-probs of their chosen and rejected sequences."""

    def __init__(self, pairs: Sequence[PairTokens], reference: Sequence[tuple[float, float]]):
        self.pairs = pairs
        self.reference = reference

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[PairTokens, float, float]:
        return self.pairs[index], *self.reference[index]


def collate(examples: Sequence[tuple[PairTokens, float, float]]) -> PairBatch:
    """One batch of pairs: both sequences of a pair go through the model together."""
    sequences = [pair.chosen for pair, _, _ in examples]
    sequences += [pair.rejected for pair, _, _ in examples]
    reference = [chosen for _, chosen, _ in examples] + [rejected for _, _, rejected in examples]
    return PairBatch(
        **pad_sequences(sequences), reference=torch.tensor(reference, dtype=torch.float32)
    )
