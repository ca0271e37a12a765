"""The Transformers Trainer with a preference loss over token trees or padded pairs."""

from __future__ import annotations

import copy
import math
from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate.utils import DistributedType, gather_object
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainingArguments

from scdpo.errors import InputError
from scdpo.training.checkpoints import Progress
from scdpo.training.dpo_config import DPOConfig
from scdpo.training.losses import (
    DPOOutput,
    chosen_nll,
    dpo_loss,
    dpop_loss,
    ipo_loss,
    per_token,
)
from scdpo.training.packing import pack
from scdpo.training.padding import SequenceBatch, pad_sequences
from scdpo.training.pair_batches import PairBatch, padded_batches, share, tree_batches
from scdpo.training.planned_trainer import PlannedTrainer, Work, shared_out, training_arguments
from scdpo.training.scoring import Way, model_inside, score_padded, score_tree
from scdpo.training.steps import OptimizerStep, by_question, plan_epochs
from scdpo.training.tokens import PairTokens
from scdpo.training.tree import MaskedIds, Tree, evened, grow, join

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)
METRICS = ("margin", "accuracy", "chosen_reward", "rejected_reward", "pairs")
OF_KIND = ("naive/", "step_controlled/")
WINDOW = 256
"""Questions whose trees are grown at a time when all of a data set is scored."""


class PreferenceTrainer(PlannedTrainer[PairBatch]):
    """The Transformers Trainer with a preference loss.

    The loss of an optimizer step is the mean over its pairs. `way` says how trees are scored;
    None scores every sequence by itself. It has to be set before the first step, and with it,
    where the reference is cached, `reference`: (n, 2) log-probs of all pairs' chosen and rejected
    sequences. `initial` is a copy of the initial policy, where the reference is online and no
    adapter can be switched off.
    """

    metric_names = tuple(f"{kind}{name}" for kind in ("", *OF_KIND) for name in METRICS)

    def __init__(
        self,
        model: PreTrainedModel,
        pairs: Sequence[PairTokens],
        config: DPOConfig,
        checkpoints: Path,
    ):
        groups = by_question([pair.prompt_ids for pair in pairs], config.batch_size)
        steps = plan_epochs(groups, config.batch_size, config.epochs, config.seed)
        super().__init__(model, steps, config, _arguments(config, len(steps), checkpoints))
        self.pairs = pairs
        self.config = config
        self.way: Way | None = None
        self.reference: NDArray[np.float64] | None = None
        self._adapted = hasattr(model, "disable_adapter")
        self.initial = self._frozen_copy(model) if config.reference == "online" else None

    def work(self, step: OptimizerStep, process: int, processes: int) -> Work[PairBatch]:
        """A process's share of a step."""
        if self.way is None:
            size = self.config.micro_batch_size
            batches = padded_batches(self.pairs, step.examples, size, processes)
        else:
            batches = tree_batches(self.pairs, step.examples, self.config.row_tokens, processes)
        return share(batches, len(step.examples), process, processes)

    def loss(self, model: nn.Module, micro_batch: PairBatch, *, counts: bool) -> Tensor:
        """The sum of the losses of a micro-batch's pairs."""
        logps = self._score(model, micro_batch.sequences)
        reference = self._reference(model, micro_batch).to(logps.device)
        pairs = [self.pairs[number] for number in micro_batch.pairs]
        lengths = torch.tensor([p.n_counted for p in pairs], device=logps.device).flatten()
        out = preference_loss(logps, reference, lengths, self.config)
        if counts:
            self._measure(out, [pair.kind for pair in pairs])
        return out.loss_B.sum().float()

    def step_metrics(self, totals: dict[str, float]) -> dict[str, float]:
        """Means over the pairs of the step, over all and over those of each kind."""
        means: dict[str, float] = {}
        for name, total in totals.items():
            kind, slash, metric = name.rpartition("/")
            n_pairs = totals[f"{kind}{slash}pairs"]
            if n_pairs:
                means[name] = n_pairs if metric == "pairs" else total / n_pairs
        return means

    # ---- scoring

    def score_all(
        self,
        sequences: Sequence[MaskedIds],
        questions: Sequence[Hashable],
        *,
        initial: bool,
        progress: Progress | None = None,
    ) -> list[float]:
        """Log-probs of sequences under the model as it is, or under the `initial` policy of an
        adapter; those of equal `questions` share what they have in common.

        Every process has to call it; each computes a share, and all get the whole.
        """
        model = self.model_wrapped
        inner = model_inside(model)
        off = _without_adapter(inner) if initial and self._adapted else nullcontext()
        training = model.training
        model.eval()
        found: list[tuple[int, float]] = []
        try:
            with off, torch.no_grad():
                for numbers, batch in self._scoring_share(sequences, questions):
                    logps = self._score(model, batch).tolist()
                    found += zip(numbers, logps, strict=True)
                    if progress is not None:
                        progress(len(found), -(-len(sequences) // self.accelerator.num_processes))
        finally:
            model.train(training)
        if self.accelerator.num_processes > 1:
            found = gather_object(found)
        logps_by_number = dict(found)
        return [logps_by_number[number] for number in range(len(sequences))]

    def _scoring_share(
        self, sequences: Sequence[MaskedIds], questions: Sequence[Hashable]
    ) -> Iterator[tuple[list[int], Tree | SequenceBatch]]:
        """This process's rows, with the numbers of their sequences; as many in every process."""
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        for rows in self._scoring_rows(sequences, questions):
            yield from shared_out(rows, process, processes)[0] if rows else []

    def _scoring_rows(
        self, sequences: Sequence[MaskedIds], questions: Sequence[Hashable]
    ) -> Iterator[list[tuple[list[int], Tree | SequenceBatch]]]:
        """All rows, in portions."""
        if self.way is None:
            order = sorted(range(len(sequences)), key=lambda n: -len(sequences[n][0]))
            size = 2 * self.config.micro_batch_size
            parts = [order[start : start + size] for start in range(0, len(order), size)]
            yield [(part, pad_sequences([sequences[n] for n in part])) for part in parts]
            return
        everything = by_question(questions, self.config.batch_size)
        for start in range(0, len(everything), WINDOW):
            groups = everything[start : start + WINDOW]
            trees = [grow([sequences[n] for n in group]) for group in groups]
            processes = self.accelerator.num_processes
            packed = pack([len(tree) for tree in trees], self.config.row_tokens, processes)
            numbers = [[n for index in row for n in groups[index]] for row in packed]
            joined = evened([join([trees[index] for index in row]) for row in packed], processes)
            yield list(zip(numbers, joined, strict=True))

    def _score(self, model: nn.Module, sequences: Tree | SequenceBatch) -> Tensor:
        with self.precision():
            if isinstance(sequences, Tree):
                assert self.way is not None
                return score_tree(model, sequences, self.way)
            return score_padded(model, sequences)

    def _reference(self, model: nn.Module, batch: PairBatch) -> Tensor:
        """Reference log-probs (2n,) of a batch."""
        if self.config.reference == "cached":
            assert self.reference is not None, "the reference was not set"
            return torch.from_numpy(self.reference[list(batch.pairs)].reshape(-1))
        off = _without_adapter(model_inside(model)) if self._adapted else nullcontext()
        with off, torch.no_grad():
            return self._score(self.initial or model, batch.sequences)

    def _frozen_copy(self, model: PreTrainedModel) -> nn.Module | None:
        """The initial policy, where switching an adapter off does not give it."""
        if self._adapted:
            return None
        if self.accelerator.distributed_type in SHARDED:
            raise InputError("reference: online needs an adapter or whole weights; take cached")
        initial: nn.Module = copy.deepcopy(model).requires_grad_(False)
        return initial.to(self.args.device)

    # ---- metrics

    def _measure(self, out: DPOOutput, kinds: Sequence[str]) -> None:
        values = {
            "margin": out.margin_B,
            "accuracy": out.won_B,
            "chosen_reward": out.chosen_reward_B,
            "rejected_reward": out.rejected_reward_B,
            "pairs": torch.ones_like(out.margin_B),
        }
        for name, value_B in values.items():
            self.add_metric(name, value_B.sum())
            for prefix in OF_KIND:
                of_kind = torch.tensor([f"{k}/" == prefix for k in kinds], device=value_B.device)
                self.add_metric(f"{prefix}{name}", (value_B * of_kind).sum())


def _without_adapter(model: Any) -> AbstractContextManager[None]:
    """A peft model computing what it does without its adapter."""
    return cast("AbstractContextManager[None]", model.disable_adapter())


def preference_loss(
    logps_S: Tensor, reference_S: Tensor, length_S: Tensor, config: DPOConfig
) -> DPOOutput:
    """The configured loss of n pairs, from 2n log-probs (chosen, rejected, chosen …) under the
    policy and the reference, and the numbers of tokens that they sum."""
    chosen_length_B = length_S[0::2]
    nll_B = chosen_nll(logps_S[0::2], chosen_length_B)
    if config.length_normalised:
        logps_S, reference_S = per_token(logps_S, length_S), per_token(reference_S, length_S)
    terms = (logps_S[0::2], logps_S[1::2], reference_S[0::2], reference_S[1::2])
    if config.loss == "ipo":
        out = ipo_loss(*terms, config.beta)
    elif config.loss == "dpop":
        out = dpop_loss(*terms, config.beta, config.dpop_penalty)
    else:
        out = dpo_loss(*terms, config.beta, config.label_smoothing)
    if config.nll_weight:
        out = out._replace(loss_B=out.loss_B + config.nll_weight * nll_B)
    return out


def _arguments(config: DPOConfig, n_steps: int, folder: Path) -> TrainingArguments:
    options: dict[str, Any] = {
        "lr_scheduler_type": config.schedule,
        "warmup_steps": math.ceil(config.warmup_ratio * n_steps),
        "adam_beta1": config.adam_beta1,
        "adam_beta2": config.adam_beta2,
        "adam_epsilon": config.adam_epsilon,
        "save_steps": config.checkpoint_steps,
    }
    return training_arguments(config, n_steps, folder, **options)
