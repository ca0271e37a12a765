"""The Transformers Trainer with a preference loss over token trees or padded pairs."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate.utils import DistributedType, gather_object
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

from scdpo.errors import InputError, ScdpoError
from scdpo.training.dpo_config import DPOConfig
from scdpo.training.loading import without_dropout
from scdpo.training.losses import DPOOutput, preference_loss
from scdpo.training.packing import pack
from scdpo.training.padding import SequenceBatch, pad_sequences
from scdpo.training.pair_batches import PairBatch, padded_batches, shard_pairs, tree_batches
from scdpo.training.planned_trainer import PlannedTrainer, Work, shard, training_arguments
from scdpo.training.probe import candidates, find_scoring
from scdpo.training.references import ReferenceCache, policy_key, reference_logps
from scdpo.training.scoring import (
    TreeScoring,
    model_inside,
    score_padded,
    score_tree,
    using_attention,
)
from scdpo.training.steps import OptimizerStep, by_question, plan_epochs
from scdpo.training.tokens import PairTokens
from scdpo.training.tree import MaskedIds, Tree, equalise_chunks, grow, join
from scdpo.waiting import Note, Progress

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)
METRICS = ("margin", "accuracy", "chosen_reward", "rejected_reward", "pairs")
OF_KIND = ("naive/", "step_controlled/")
WINDOW = 256
"""Questions whose trees are built at a time when a whole data set is scored."""


@dataclass(frozen=True, slots=True)
class ReferenceLogps:
    """Log-probs (nats) under the initial policy.

    `pairs` (n, 2) are those of the pairs' chosen and rejected sequences (empty where the
    reference is online), `heldout` those of the held-out pairs (chosen, rejected, chosen, …);
    `seconds` is the time they took.
    """

    pairs: NDArray[np.float64]
    heldout: list[float]
    seconds: float


class PreferenceTrainer(PlannedTrainer[PairBatch]):
    """The Transformers Trainer with a preference loss: the mean over the pairs of a step.

    The initial weights of `model`, or with an adapter the base weights, are the reference policy.
    Its log-probs are computed before the first step and kept in `references` under `weights`, by
    default the model's `policy_key`; `reference: online` in `config` computes them in every step.
    `checkpoints` is the Trainer's folder. `reference_progress` is called in the main process with
    the sequences scored and their total, `note` with a line where the model cannot be trained
    over token trees. Raises InputError for settings that the model or launcher does not support.
    """

    metric_names = tuple(f"{kind}{name}" for kind in ("", *OF_KIND) for name in METRICS)

    def __init__(
        self,
        model: PreTrainedModel,
        pairs: Sequence[PairTokens],
        config: DPOConfig,
        checkpoints: Path,
        *,
        heldout: Sequence[PairTokens] = (),
        references: ReferenceCache | None = None,
        weights: str | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        progress: Progress | None = None,
        reference_progress: Progress | None = None,
        note: Note | None = None,
    ):
        groups = by_question([pair.prompt_ids for pair in pairs], config.batch_size)
        steps = plan_epochs(groups, config.batch_size, config.epochs, config.seed)
        arguments = _arguments(config, len(steps), checkpoints)
        super().__init__(model, steps, config, arguments, callbacks=callbacks, progress=progress)
        self.pairs = pairs
        self.heldout = heldout
        self.config = config
        self.references = references or ReferenceCache()
        if weights is None and references is not None:
            weights = policy_key(model, "")
        self._weights = weights or ""
        self._reference_progress = reference_progress if self.is_world_process_zero() else None
        self._note = note or (lambda text: None)
        self._adapted = hasattr(model, "disable_adapter")
        self._initial = self._frozen_copy(model) if config.reference == "online" else None

    def train(self, *args: Any, **options: Any) -> Any:
        """`Trainer.train`, without dropout: policy and reference have to be the same function."""
        with without_dropout(cast(nn.Module, self.model)):
            return super().train(*args, **options)

    # ---- found when first needed, with the model as it is trained

    def find_scoring(self) -> TreeScoring | None:
        """The first way to score trees that works, or None for sequences by themselves.

        Raises InputError where the config insists on trees.
        """
        if self.config.computation == "pairs":
            return None
        sequences, questions = pair_sides(self.pairs)
        groups = [[sequences[n] for n in group] for group in by_question(questions)]
        again, on_gpu = self.config.gradient_checkpointing, torch.cuda.is_available()
        backends = candidates(self.config.attention, again, on_gpu)
        found, reason = find_scoring(self.model_wrapped, groups, backends)
        if found is None and self.config.computation == "tree":
            raise InputError(f"computation: the model cannot score token trees ({reason})")
        if found is None:
            self._note(f"every pair by itself: the model cannot score token trees ({reason})")
        return found

    @cached_property
    def reference(self) -> ReferenceLogps:
        """Log-probs under the initial policy, from the cache where possible.

        Every process has to ask for it at the same time. Raises ScdpoError when they are missing
        and the weights have already changed.
        """
        started = time.perf_counter()
        trained = self.pairs if self.config.reference == "cached" else ()
        sequences, questions = pair_sides([*trained, *self.heldout])

        def score(numbers: Sequence[int]) -> list[float]:
            if self.state.global_step and not self._adapted:
                raise ScdpoError(
                    f"{self.references.path or 'references'}: log-probs of the initial policy are"
                    " gone and the training has moved on; delete its folder to begin again"
                )
            chosen = [sequences[n] for n in numbers], [questions[n] for n in numbers]
            return self.score_all(*chosen, initial=True, progress=self._reference_progress)

        main = self.accelerator.is_main_process
        logps = reference_logps(score, sequences, self._weights, self.references, write=main)
        of_pairs = np.asarray(logps[: 2 * len(trained)], dtype=np.float64).reshape(-1, 2)
        seconds = time.perf_counter() - started
        return ReferenceLogps(of_pairs, logps[2 * len(trained) :], seconds)

    def prepare(self) -> None:
        """Find how trees are scored, and the reference log-probs."""
        super().prepare()
        _ = self.reference

    @contextmanager
    def attention(self) -> Iterator[None]:
        """The model, and its initial copy where there is one, with the attention for trees."""
        backend = self.scoring.backend if self.scoring else None
        with super().attention(), ExitStack() as stack:
            if self._initial is not None:
                stack.enter_context(using_attention(self._initial, backend))
            yield

    @property
    def computation(self) -> str:
        """How log-probs are computed, in words for a report."""
        return f"tree, {self.scoring.backend} attention" if self.scoring else "pairs"

    # ---- what a step computes

    def work(self, step: OptimizerStep, process: int, processes: int) -> Work[PairBatch]:
        """A process's share of a step."""
        if self.scoring is None:
            size = self.config.micro_batch_size
            batches = padded_batches(self.pairs, step.examples, size, processes)
        else:
            batches = tree_batches(self.pairs, step.examples, self.config.row_tokens, processes)
        return shard_pairs(batches, len(step.examples), process, processes)

    def loss(self, model: nn.Module, micro_batch: PairBatch, *, counts: bool) -> Tensor:
        """The sum of the losses of a micro-batch's pairs."""
        logps = self._score(model, micro_batch.sequences)
        reference = self._reference(model, micro_batch).to(logps.device)
        pairs = [self.pairs[number] for number in micro_batch.pairs]
        lengths = torch.tensor([p.n_counted for p in pairs], device=logps.device).flatten()
        config = self.config
        out = preference_loss(
            logps,
            reference,
            lengths,
            loss=config.loss,
            beta=config.beta,
            label_smoothing=config.label_smoothing,
            dpop_penalty=config.dpop_penalty,
            nll_weight=config.nll_weight,
            length_normalised=config.length_normalised,
        )
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
        """Log-probs (nats) of sequences under the model as it is, or with its adapter switched off
        (`initial`); sequences with equal `questions` share what they have in common.

        Every process has to call it; each computes a share, and all get the whole.
        """
        model = self.model_wrapped
        inner = model_inside(model)
        off = _without_adapter(inner) if initial and self._adapted else nullcontext()
        training = model.training
        model.eval()
        found: list[tuple[int, float]] = []
        try:
            with off, torch.no_grad(), self.attention():
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
        """This process's rows with the indices of their sequences; as many in every process."""
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        for rows in self._scoring_rows(sequences, questions):
            yield from shard(rows, process, processes)[0] if rows else []

    def _scoring_rows(
        self, sequences: Sequence[MaskedIds], questions: Sequence[Hashable]
    ) -> Iterator[list[tuple[list[int], Tree | SequenceBatch]]]:
        """All rows, in portions."""
        if self.scoring is None:
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
            rows = equalise_chunks([join([trees[n] for n in row]) for row in packed], processes)
            yield list(zip(numbers, rows, strict=True))

    def _score(self, model: nn.Module, sequences: Tree | SequenceBatch) -> Tensor:
        with self.precision():
            if isinstance(sequences, Tree):
                assert self.scoring is not None
                return score_tree(model, sequences, self.scoring)
            return score_padded(model, sequences)

    def _reference(self, model: nn.Module, batch: PairBatch) -> Tensor:
        """Reference log-probs (2n,) of a batch."""
        if self.config.reference == "cached":
            return torch.from_numpy(self.reference.pairs[list(batch.pairs)].reshape(-1))
        off = _without_adapter(model_inside(model)) if self._adapted else nullcontext()
        with off, torch.no_grad():
            return self._score(self._initial or model, batch.sequences)

    def _frozen_copy(self, model: PreTrainedModel) -> nn.Module | None:
        """A copy of the initial policy; None where it is the model with its adapter off."""
        if self._adapted:
            return None
        if self.accelerator.distributed_type in SHARDED:
            raise InputError("reference: online needs an adapter or unsharded weights; take cached")
        initial: nn.Module = copy.deepcopy(model).requires_grad_(False)
        initial.eval()
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


def pair_sides(
    pairs: Sequence[PairTokens],
) -> tuple[list[MaskedIds], list[tuple[int, ...]]]:
    """All sequences (chosen, rejected, chosen, …), and the prompt of each."""
    sequences: list[MaskedIds] = [side for p in pairs for side in (p.chosen, p.rejected)]
    return sequences, [pair.prompt_ids for pair in pairs for _ in range(2)]


def _arguments(config: DPOConfig, n_steps: int, folder: Path) -> TrainingArguments:
    options: dict[str, Any] = {
        "lr_scheduler_type": config.schedule,
        # The first step of a warm-up has the learning rate 0, which an only step must not have.
        "warmup_steps": math.ceil(config.warmup_ratio * n_steps) if n_steps > 1 else 0,
        "adam_beta1": config.adam_beta1,
        "adam_beta2": config.adam_beta2,
        "adam_epsilon": config.adam_epsilon,
        "save_steps": config.checkpoint_steps,
    }
    return training_arguments(config, n_steps, folder, **options)
