"""The Transformers Trainer over a seeded order of examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainingArguments

from scdpo.training.batching import EpochOrder
from scdpo.training.collate import takes_logits_to_keep
from scdpo.training.config import TrainingConfig


class OrderedTrainer(Trainer):
    """The Transformers Trainer over a seeded order, whose loss is a mean over optimizer steps.

    `count` says over how many items (pairs, tokens) the loss of a batch is a mean. A subclass's
    `compute_loss` gives the sum over a micro-batch's items divided by `num_items_in_batch`, the
    items of the whole optimizer step, so that the loss does not depend on how the step is split.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: PreTrainedModel,
        dataset: Dataset[Any],
        order: EpochOrder,
        collator: Callable[[Any], Any],
        count: Callable[[Any], int],
        arguments: TrainingArguments,
    ):
        super().__init__(model=model, args=arguments, train_dataset=dataset, data_collator=collator)
        self.remove_callback(PrinterCallback)
        self.partial = takes_logits_to_keep(model)
        self._order = order
        self._count = count

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochOrder:
        return self._order

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], int]:
        """The micro-batches of one optimizer step and the number of items in them."""
        batches = list(islice(epoch_iterator, num_batches))
        return batches, sum(self._count(batch) for batch in batches)


def training_arguments(
    config: TrainingConfig, batch_size: int, folder: Path, **options: Any
) -> TrainingArguments:
    """The Trainer's settings for batches of `batch_size` examples; `options` are added as is."""
    on_gpu = torch.cuda.is_available()
    micro = min(config.micro_batch_size, batch_size)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=-(-batch_size // micro),
        learning_rate=config.learning_rate,
        optim="adamw_torch",
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=config.bf16 and on_gpu,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        seed=config.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_total_limit=1,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        **options,
    )
    if arguments.n_gpu > 1:
        # Otherwise the Trainer splits each micro-batch over the GPUs, pairs torn apart; several
        # GPUs are used by starting one process for each.
        arguments._n_gpu = 1
    return arguments
