"""The Transformers Trainer over optimizer steps that are planned in advance."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import torch
from accelerate.utils import DistributedType
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from scdpo.errors import InputError
from scdpo.training.config import TrainingConfig
from scdpo.training.internals import private_part
from scdpo.training.processes import on_cpu
from scdpo.training.recomputing import enable_checkpointing
from scdpo.training.scoring import TreeScoring, decoder_of, model_inside, using_attention
from scdpo.training.steps import OptimizerStep
from scdpo.waiting import Progress

W = TypeVar("W")


@dataclass(frozen=True, slots=True)
class Work(Generic[W]):
    """One process's share of an optimizer step.

    `micro_batches` go through the model one after the other. `n_items` is the number of items
    (pairs, tokens) of the whole step, over which its loss is a mean. Every process has the same
    number of micro-batches, as sharded models need; the last `idle` of them do not count.
    `n_tokens` is the number of tokens that this process computes, `n_separate` the number it
    would compute if every sequence were computed by itself.
    """

    micro_batches: tuple[W, ...]
    n_items: int
    idle: int
    n_tokens: int
    n_separate: int


def shard(batches: Sequence[W], process: int, processes: int) -> tuple[list[W], int]:
    """A process's share of batches, and how many at its end are idle.

    Batches are dealt in rounds. A process that would get none in the last round gets that round's
    last batch as an idle one, which takes as many chunks as those of the other processes
    (`tree.equalise_chunks`).
    """
    mine = list(batches[process::processes])
    idle = -(-len(batches) // processes) - len(mine)
    return mine + [batches[-1]] * idle, idle


class _Steps(Dataset[OptimizerStep]):
    def __init__(self, steps: Sequence[OptimizerStep]):
        self.steps = steps

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> OptimizerStep:
        return self.steps[index]


class PlannedTrainer(Trainer, Generic[W]):
    """The Transformers Trainer over planned optimizer steps.

    The Trainer sees one batch per optimizer step, the same in every process. The batch is cut
    into micro-batches here (`work`), so that the loss of a step is a mean over its items however
    it is cut and on however many processes.

    What needs the model as it is trained (wrapped, perhaps sharded) is found when it is first
    needed, see `scoring`. `progress` is called in the main process with the optimizer steps done
    and their total.
    """

    metric_names: tuple[str, ...] = ()
    """What `loss` adds up with `add_metric`."""
    _since: float

    def __init__(
        self,
        model: PreTrainedModel,
        steps: Sequence[OptimizerStep],
        config: TrainingConfig,
        arguments: TrainingArguments,
        *,
        callbacks: Sequence[TrainerCallback] = (),
        progress: Progress | None = None,
    ):
        # Otherwise every backward pass looks for parameters that were not used; without experts
        # there are none.
        experts = {"num_experts", "num_local_experts", "n_routed_experts"}
        arguments.ddp_find_unused_parameters = any(hasattr(model.config, n) for n in experts)
        enable_checkpointing(model, config.gradient_checkpointing)
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=_Steps(steps[: arguments.max_steps]),
            callbacks=list(callbacks),
        )
        self.remove_callback(PrinterCallback)
        deepspeed = self.accelerator.distributed_type == DistributedType.DEEPSPEED
        if config.gradient_checkpointing == "selective" and deepspeed:
            raise InputError(
                "gradient_checkpointing: selective does not work with DeepSpeed; take true"
            )
        self.steps = steps
        self.autocast_bf16 = config.bf16 and torch.cuda.is_available()
        self._compile = config.compile
        self._progress = progress if self.is_world_process_zero() else None
        self._begun = False
        self._reset_metrics()
        self._computed = self._separate = 0.0

    @abstractmethod
    def work(self, step: OptimizerStep, process: int, processes: int) -> Work[W]:
        """A process's share of a step."""

    @abstractmethod
    def loss(self, model: torch.nn.Module, micro_batch: W, *, counts: bool) -> Tensor:
        """The sum of a micro-batch's loss over its items; metrics are added only if it `counts`."""

    def add_metric(self, name: str, total: Tensor) -> None:
        """Add a micro-batch's sum to a metric that is logged for every optimizer step."""
        self._metrics[name] += total.detach()

    def step_metrics(self, totals: dict[str, float]) -> dict[str, float]:
        """What is logged for a step, from the sums over all its micro-batches and processes."""
        return totals

    @property
    def tokens_saved(self) -> float:
        """The share of tokens that did not have to be computed, over all steps of this call."""
        return 1 - self._computed / self._separate if self._separate else 0.0

    @abstractmethod
    def find_scoring(self) -> TreeScoring | None:
        """How token trees are scored with the model as it is trained, or None."""

    @cached_property
    def scoring(self) -> TreeScoring | None:
        """`find_scoring`, once. Every process has to ask for it at the same time."""
        found = self.find_scoring()
        if self._compile:
            decoder_of(model_inside(self.model_wrapped)).compile(dynamic=True)
        return found

    def prepare(self) -> None:
        """Find whatever a step needs. Every process has to call it at the same time."""
        _ = self.scoring

    @contextmanager
    def attention(self) -> Iterator[None]:
        """The model with the attention that `scoring` needs, around forward and backward."""
        backend = self.scoring.backend if self.scoring else None
        with using_attention(self.model_wrapped, backend):
            yield

    def precision(self) -> AbstractContextManager[Any]:
        """The number format of all computations with the model."""
        if not self.autocast_bf16:
            return nullcontext()
        return torch.autocast("cuda", torch.bfloat16)

    def train(self, *args: Any, **options: Any) -> Any:
        """`Trainer.train`."""
        output = super().train(*args, **options)
        self._begin()  # where the checkpoint was that of the last step, there was no step to do it
        return output

    def _begin(self) -> None:
        """What comes before the first step of a call of `train`."""
        if not self._begun:
            self.prepare()
            self._begun = True
            self._report_progress()

    def _report_progress(self) -> None:
        if self._progress is not None:
            self._progress(self.state.global_step, self.state.max_steps)

    # ---- what the Trainer calls

    def get_train_dataloader(self) -> DataLoader[OptimizerStep]:
        """The steps in order, the same ones in every process."""
        return DataLoader(cast(Any, self.train_dataset), batch_size=1, collate_fn=_single)

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[OptimizerStep], None]:
        """The next step; its items are counted in `work`."""
        return [next(epoch_iterator) for _ in range(num_batches)], None

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted."""
        return 0

    def training_step(
        self, model: torch.nn.Module, inputs: Any, num_items_in_batch: Any = None
    ) -> Tensor:
        """Forward and backward passes of this process's share of a step; returns its loss,
        scaled so that the mean over processes is that of the step."""
        self._begin()
        with self.attention():
            return self._training_step(model, inputs)

    def _training_step(self, model: torch.nn.Module, step: OptimizerStep) -> Tensor:
        self._since = self._since or time.perf_counter()
        model.train()
        processes = self.accelerator.num_processes
        work = self.work(step, self.accelerator.process_index, processes)
        total = torch.zeros((), device=self.args.device)
        counted = len(work.micro_batches) - work.idle
        for number, micro_batch in enumerate(work.micro_batches, 1):
            with self._synchronised(model, number == len(work.micro_batches)):
                with self.precision():
                    loss = self.loss(model, micro_batch, counts=number <= counted)
                # Gradients are averaged over processes, and the step's loss is a sum over them.
                loss = loss * (processes / work.n_items if number <= counted else 0.0)
                self._backward(loss)
            total += loss.detach()
        self._tokens[0] += work.n_tokens
        self._tokens[1] += work.n_separate
        return total

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log a step with its metrics, tokens per second and the share of tokens saved."""
        if "loss" in logs:
            self.state.epoch = self.steps[self.state.global_step - 1].epochs
            logs |= self._reduced()
            super().log(logs, start_time)
            self._report_progress()
        else:
            super().log(logs, start_time)

    def _reduced(self) -> dict[str, float]:
        """The metrics of a step over all processes, with its tokens per second."""
        values = [*(float(self._metrics[name]) for name in self.metric_names), *self._tokens]
        sums = torch.tensor(values, dtype=torch.float64, device=self.args.device)
        *totals, computed, separate = self.accelerator.reduce(sums, "sum").tolist()
        seconds = time.perf_counter() - self._since
        rates = {
            "tokens_per_second": round(computed / max(seconds, 1e-9), 1),
            "tokens_saved": round(1 - computed / separate, 4),
        }
        self._computed += computed
        self._separate += separate
        self._reset_metrics()
        return self.step_metrics(dict(zip(self.metric_names, totals, strict=True))) | rates

    def _reset_metrics(self) -> None:
        """Start the metrics of a step, the same ones in every process."""
        self._metrics: dict[str, Tensor | float] = dict.fromkeys(self.metric_names, 0.0)
        self._tokens = [0, 0]
        self._since = 0.0

    def _synchronised(self, model: torch.nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Reduce gradients over processes after the last micro-batch only, if that saves time."""
        kind = self.accelerator.distributed_type
        if kind == DistributedType.DEEPSPEED:
            state = self.accelerator.gradient_state
            private_part(state, "_set_sync_gradients", "accelerate")(last)
        # A sharded model keeps whole gradients of every parameter until they are reduced.
        if last or kind in (DistributedType.DEEPSPEED, DistributedType.FSDP):
            return nullcontext()
        return cast("AbstractContextManager[Any]", self.accelerator.no_sync(model))

    def _backward(self, loss: Tensor) -> None:
        options = {}
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            options["scale_wrt_gas"] = False
        self.accelerator.backward(loss, **options)


def _single(batch: list[OptimizerStep]) -> OptimizerStep:
    return batch[0]


def training_arguments(
    config: TrainingConfig, n_steps: int, folder: Path, **options: Any
) -> TrainingArguments:
    """The Trainer's settings for `n_steps` planned steps; `options` are added unchanged."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        max_steps=n_steps,
        learning_rate=config.learning_rate,
        optim="adamw_torch",
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=config.bf16 and torch.cuda.is_available(),
        use_cpu=on_cpu(),
        dataloader_pin_memory=False,
        seed=config.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_total_limit=1,
        remove_unused_columns=False,
        report_to=list(config.report_to) or "none",
        disable_tqdm=True,
        **options,
    )
    if arguments.n_gpu > 1:
        # Otherwise the Trainer would wrap the model in DataParallel. To use several GPUs, one
        # process is launched for each.
        private_part(arguments, "_n_gpu", "transformers")
        arguments._n_gpu = 1
    return arguments
