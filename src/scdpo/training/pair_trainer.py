"""The Transformers Trainer with the preference loss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel, TrainingArguments

from scdpo.training.batching import EpochOrder
from scdpo.training.collate import PairBatch, PairDataset, collate, score
from scdpo.training.dpo_config import DPOConfig
from scdpo.training.losses import dpo_loss
from scdpo.training.ordered_trainer import OrderedTrainer, training_arguments


class PairTrainer(OrderedTrainer):
    """The Transformers Trainer with the preference loss.

    The loss of an optimizer step is the mean over its pairs, the last step of an epoch (which
    may have fewer pairs) included.
    """

    def __init__(
        self, model: PreTrainedModel, dataset: PairDataset, config: DPOConfig, checkpoints: Path
    ):
        lengths = [pair.length for pair in dataset.pairs]
        order = EpochOrder(lengths, config.batch_size, config.seed)
        arguments = _arguments(config, order, checkpoints)
        super().__init__(model, dataset, order, collate, _n_pairs, arguments)
        self._beta = config.beta
        self._metrics: dict[str, Tensor] = {}

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The micro-batch's share of the mean loss over the optimizer step's pairs."""
        batch = cast(PairBatch, inputs)
        policy_chosen, policy_rejected = score(model, batch, partial=self.partial).chunk(2)
        ref_chosen, ref_rejected = batch["reference"].chunk(2)
        out = dpo_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, self._beta)
        assert num_items_in_batch is not None
        for name, value in (
            ("margin", out.margin_B),
            ("accuracy", out.won_B),
            ("chosen_reward", out.chosen_reward_B),
            ("rejected_reward", out.rejected_reward_B),
        ):
            share = value.sum() / num_items_in_batch
            self._metrics[name] = self._metrics.get(name, 0) + share
        return out.loss_B.sum() / num_items_in_batch

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log a step with the means of its pairs."""
        if "loss" in logs:
            logs |= {name: value.item() for name, value in self._metrics.items()}
            self._metrics = {}
        super().log(logs, start_time)


def _n_pairs(batch: PairBatch) -> int:
    return len(batch["reference"]) // 2


def _arguments(config: DPOConfig, order: EpochOrder, folder: Path) -> TrainingArguments:
    return training_arguments(
        config,
        order.batch_size,
        folder,
        num_train_epochs=config.epochs,
        lr_scheduler_type=config.schedule,
        warmup_steps=math.ceil(config.warmup_ratio * config.epochs * order.n_batches),
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        adam_epsilon=config.adam_epsilon,
        save_steps=config.checkpoint_steps,
    )
