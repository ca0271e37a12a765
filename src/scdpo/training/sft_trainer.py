"""The Transformers Trainer with the supervised loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import (
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from scdpo.errors import InputError
from scdpo.training.batching import EpochOrder
from scdpo.training.optimizers import MuonWithAdamW
from scdpo.training.packing import pack
from scdpo.training.padding import SequenceBatch, pad_sequences
from scdpo.training.planned_trainer import PlannedTrainer, Work, shard, training_arguments
from scdpo.training.probe import candidates, find_scoring
from scdpo.training.scoring import TreeScoring, score_padded, score_tree
from scdpo.training.sft_config import SFTConfig
from scdpo.training.steps import OptimizerStep
from scdpo.training.tree import MaskedIds, Tree, equalise_chunks, grow, join
from scdpo.waiting import Progress

HELDOUT_LOSS = "heldout_loss"
"""The name of the held-out loss in logs."""
GROUP = 16
"""Number of batches whose solutions are sorted by length together."""


class SFTTrainer(PlannedTrainer[Tree | SequenceBatch]):
    """The Transformers Trainer with the supervised loss: the mean negative log-prob (nats) of the
    counted tokens of an optimizer step.

    The loss of `heldout` examples is logged before the first step and after every epoch, after
    which `at_epoch` is called with the trainer and the number of the epoch.

    Raises InputError where `pack_length` is set and the model cannot score packed rows.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        examples: Sequence[MaskedIds],
        config: SFTConfig,
        checkpoints: Path,
        *,
        callbacks: Sequence[TrainerCallback] = (),
        progress: Progress | None = None,
        heldout: Sequence[MaskedIds] = (),
        at_epoch: Callable[[SFTTrainer, int], None] | None = None,
    ):
        steps = _plan([len(ids) for ids, _ in examples], config)
        arguments = _arguments(config, len(steps), checkpoints)
        ends = epoch_ends(steps[: arguments.max_steps])
        measured = bool(heldout) or at_epoch is not None
        more = [*callbacks, _AtEpochs(frozenset(ends))] if measured else callbacks
        super().__init__(model, steps, config, arguments, callbacks=more, progress=progress)
        self.examples = examples
        self.epoch_ends = ends
        self._heldout = sorted(heldout, key=lambda example: len(example[0]))
        self._at_epoch = at_epoch
        self._config = config

    def prepare(self) -> None:
        """What a step needs, and the held-out loss before the first one."""
        super().prepare()
        if self._heldout and self.state.global_step == 0:
            self.log({HELDOUT_LOSS: self.heldout_loss()})

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        """The end of an epoch: log the held-out loss, and call `at_epoch`."""
        metrics: dict[str, float] = {}
        if self._heldout:
            metrics[HELDOUT_LOSS] = self.heldout_loss()
            self.log(dict(metrics))
        if self._at_epoch is not None:
            self._at_epoch(self, self.epoch_ends[self.state.global_step])
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    @torch.no_grad()
    def heldout_loss(self) -> float:
        """The mean negative log-prob (nats) of the counted tokens of the held-out examples.

        Every process has to call it at the same time.
        """
        model = self.model_wrapped
        model.eval()
        count, index = self.accelerator.num_processes, self.accelerator.process_index
        mine, idle = shard(self._padded(self._heldout), index, count)
        total = torch.zeros((), dtype=torch.float64, device=self.args.device)
        with self.precision():
            for number, batch in enumerate(mine):
                loss = self.loss(model, batch, counts=False)
                if number < len(mine) - idle:
                    total += loss
        summed = cast(Tensor, self.accelerator.reduce(total, "sum"))
        return summed.item() / sum(sum(mask[1:]) for _, mask in self._heldout)

    def find_scoring(self) -> TreeScoring | None:
        """How packed rows are scored; None where every solution has a row of its own."""
        if self._config.pack_length is None:
            return None
        again, on_gpu = self._config.gradient_checkpointing, torch.cuda.is_available()
        backends = candidates("auto", again, on_gpu)
        alone = [[example] for example in self.examples]
        found, reason = find_scoring(self.model_wrapped, alone, backends)
        if found is None:
            raise InputError(f"pack_length: this model's solutions cannot share a row ({reason})")
        return found

    def work(self, step: OptimizerStep, process: int, processes: int) -> Work[Tree | SequenceBatch]:
        """A process's share of a step."""
        examples = [self.examples[index] for index in step.examples]
        batches = self._packed(examples, processes) if self.scoring else self._padded(examples)
        mine, idle = shard(batches, process, processes)
        n_tokens = sum(_size(batch) for batch in mine[: len(mine) - idle])
        return Work(
            micro_batches=tuple(mine),
            n_items=sum(sum(mask[1:]) for _, mask in examples),
            idle=idle,
            n_tokens=n_tokens,
            n_separate=n_tokens,
        )

    def loss(
        self, model: torch.nn.Module, micro_batch: Tree | SequenceBatch, *, counts: bool
    ) -> Tensor:
        """The sum of the negative log-probs of a micro-batch's counted tokens."""
        if isinstance(micro_batch, Tree):
            assert self.scoring is not None
            try:
                return -score_tree(model, micro_batch, self.scoring).sum().float()
            except NotImplementedError as error:  # such as dropout, which probing does not use
                raise InputError(f"pack_length: solutions cannot share a row ({error})") from error
        return -score_padded(model, micro_batch).sum().float()

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
        """The schedule of the whole training, even where `stop_at_step` ends it early."""
        return super().create_scheduler(len(self.steps), optimizer)

    def _packed(self, examples: Sequence[MaskedIds], processes: int) -> list[Tree | SequenceBatch]:
        """Rows of several solutions that do not see each other."""
        assert self._config.pack_length is not None
        trees = [grow([example]) for example in examples]
        rows = pack([len(tree) for tree in trees], self._config.pack_length, processes)
        return [
            *equalise_chunks([join([trees[index] for index in row]) for row in rows], processes)
        ]

    def _padded(self, examples: Sequence[MaskedIds]) -> list[Tree | SequenceBatch]:
        size = self._config.micro_batch_size
        parts = [examples[start : start + size] for start in range(0, len(examples), size)]
        return [pad_sequences(part) for part in parts]


class _AtEpochs(TrainerCallback):
    """Asks the Trainer to evaluate after certain steps."""

    def __init__(self, steps: frozenset[int]):
        self._steps = steps

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        control.should_evaluate = state.global_step in self._steps
        return control


def epoch_ends(steps: Sequence[OptimizerStep]) -> dict[int, int]:
    """The optimizer steps (counted from 1) that end an epoch, and the number of that epoch.

    The last step ends one, even if it is not whole.
    """
    ends: dict[int, int] = {}
    for number, step in enumerate(steps, 1):
        epoch = math.ceil(step.epochs - 1e-9)
        if number == len(steps) or abs(step.epochs - epoch) < 1e-9:
            ends[number] = epoch
    return ends


def _size(batch: Tree | SequenceBatch) -> int:
    return len(batch) if isinstance(batch, Tree) else batch["n_tokens"]


def _plan(lengths: Sequence[int], config: SFTConfig) -> list[OptimizerStep]:
    """The optimizer steps of `epochs`, which need not be whole."""
    order = EpochOrder(lengths, config.batch_size, config.seed, group=GROUP, drop_last=True)
    n_steps = max(1, round(config.epochs * order.n_batches))
    steps: list[OptimizerStep] = []
    for epoch in range(math.ceil(n_steps / order.n_batches)):
        indices, size = order.indices(epoch), order.batch_size
        steps += [
            OptimizerStep(
                tuple(indices[n * size : (n + 1) * size]), epoch + (n + 1) / order.n_batches
            )
            for n in range(order.n_batches)
        ]
    return steps[:n_steps]


def _arguments(config: SFTConfig, n_steps: int, folder: Path) -> TrainingArguments:
    warmup = min(round(n_steps * config.warmup_ratio), n_steps - 1)
    decay = max(1, round(n_steps * config.decay_ratio))
    return training_arguments(
        config,
        min(n_steps, config.stop_at_step or n_steps),
        folder,
        warmup_steps=warmup,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={
            "num_decay_steps": min(decay, n_steps - warmup),
            "decay_type": "cosine" if config.decay_ratio > 0.5 else "linear",
            "min_lr_ratio": 0.0,
        },
        save_steps=config.save_steps,
    )
