"""The Transformers Trainer with the preference loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainingArguments

from scdpo.training.collate import (
    EpochOrder,
    PairBatch,
    PairDataset,
    collate,
    score,
    takes_logits_to_keep,
)
from scdpo.training.dpo_config import DPOConfig
from scdpo.training.losses import dpo_loss


class PairTrainer(Trainer):
    """The Transformers Trainer with the preference loss.

    The loss of an optimizer step is the mean over its pairs, however they are split into
    micro-batches, the last step of an epoch (which may have fewer pairs) included.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self, model: PreTrainedModel, dataset: PairDataset, config: DPOConfig, checkpoints: Path
    ):
        super().__init__(
            model=model,
            args=_arguments(config, len(dataset), checkpoints),
            train_dataset=dataset,
            data_collator=cast(Any, collate),
        )
        self.remove_callback(PrinterCallback)
        self._beta = config.beta
        self._partial = takes_logits_to_keep(model)
        lengths = [pair.length for pair in dataset.pairs]
        self._order = EpochOrder(lengths, config.batch_size, config.seed)
        self._metrics: dict[str, Tensor] = {}

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochOrder:
        return self._order

    def get_batch_samples(
        self, epoch_iterator: Iterator[PairBatch], num_batches: int, device: torch.device
    ) -> tuple[list[PairBatch], int]:
        """The micro-batches of one optimizer step and the number of pairs in them."""
        batches = list(islice(epoch_iterator, num_batches))
        return batches, sum(len(batch["reference"]) // 2 for batch in batches)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The micro-batch's share of the mean loss over the optimizer step's pairs."""
        batch = cast(PairBatch, inputs)
        policy_chosen, policy_rejected = score(model, batch, partial=self._partial).chunk(2)
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


def _arguments(config: DPOConfig, n_pairs: int, folder: Path) -> TrainingArguments:
    on_gpu = torch.cuda.is_available()
    micro = min(config.micro_batch_size, config.batch_size)
    steps = config.epochs * math.ceil(n_pairs / config.batch_size)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=config.batch_size // micro,
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=math.ceil(config.warmup_ratio * steps),
        optim="adamw_torch",
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        adam_epsilon=config.adam_epsilon,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=config.bf16 and on_gpu,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        seed=config.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=config.checkpoint_steps,
        save_total_limit=1,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
    )
    if arguments.n_gpu > 1:
        # Otherwise the Trainer splits each micro-batch over the GPUs, pairs torn apart; several
        # GPUs are used by starting one process for each.
        arguments._n_gpu = 1
    return arguments
