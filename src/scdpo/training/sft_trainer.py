"""The Transformers Trainer with the supervised loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel, TrainingArguments

from scdpo.training.batching import EpochOrder
from scdpo.training.collate import MaskedIds, SequenceBatch, pad_sequences, score
from scdpo.training.optimizers import MuonWithAdamW
from scdpo.training.ordered_trainer import OrderedTrainer, training_arguments
from scdpo.training.packing import packed_batch
from scdpo.training.sft_config import SFTConfig

GROUP = 16
"""Batches over which solutions are sorted by length before they are cut into batches."""


class SFTTrainer(OrderedTrainer):
    """The Transformers Trainer with the mean negative log-prob of an optimizer step's tokens."""

    def __init__(
        self,
        model: PreTrainedModel,
        examples: Sequence[MaskedIds],
        config: SFTConfig,
        checkpoints: Path,
    ):
        lengths = [len(ids) for ids, _ in examples]
        order = EpochOrder(lengths, config.batch_size, config.seed, group=GROUP, drop_last=True)
        collator: Callable[[Sequence[MaskedIds]], SequenceBatch] = pad_sequences
        if config.pack_length is not None:
            collator = partial(packed_batch, row_length=config.pack_length)
        arguments = _arguments(config, order, checkpoints)
        super().__init__(model, cast(Any, examples), order, collator, _n_tokens, arguments)
        self.order = order
        self._config = config

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW, or Muon and AdamW."""
        if self._config.optimizer == "adamw":
            return super().create_optimizer(model)
        self.optimizer = MuonWithAdamW(
            cast(torch.nn.Module, model or self.model),
            muon_lr=self._config.muon_learning_rate,
            adamw_lr=self._config.learning_rate,
            weight_decay=self._config.weight_decay,
        )
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule of the whole training, also where `stop_at_step` ends it early."""
        return super().create_scheduler(_steps(self._config, self.order), optimizer)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The micro-batch's share of the mean loss over the optimizer step's counted tokens."""
        assert num_items_in_batch is not None
        logps_B = score(model, cast(SequenceBatch, inputs), partial=self.partial)
        return -logps_B.sum() / num_items_in_batch


def _n_tokens(batch: SequenceBatch) -> int:
    return int(batch["mask"][:, 1:].sum())


def _steps(config: SFTConfig, order: EpochOrder) -> int:
    return max(1, round(config.epochs * order.n_batches))


def _arguments(config: SFTConfig, order: EpochOrder, folder: Path) -> TrainingArguments:
    steps = _steps(config, order)
    warmup = min(round(steps * config.warmup_ratio), steps - 1)
    decay = max(1, round(steps * config.decay_ratio))
    return training_arguments(
        config,
        order.batch_size,
        folder,
        max_steps=min(steps, config.stop_at_step or steps),
        warmup_steps=warmup,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={
            "num_decay_steps": min(decay, steps - warmup),
            "decay_type": "cosine" if config.decay_ratio > 0.5 else "linear",
            "min_lr_ratio": 0.0,
        },
        save_steps=config.save_steps,
    )
