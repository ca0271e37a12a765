"""Supervised fine-tuning on solutions, on `transformers.Trainer`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from scdpo.errors import InputError
from scdpo.policies import Policy, save_policy
from scdpo.records import Record
from scdpo.training.batching import training_order
from scdpo.training.optimizers import MuonWithAdamW

Example = tuple[Sequence[int], Sequence[bool]]
"""Token ids of prompt and solution, and which of them the loss counts."""

IGNORED = -100


class SFTConfig(BaseModel):
    """Settings of supervised fine-tuning; the defaults are the paper's (arXiv 2407.00782).

    `batch_size` counts solutions per optimizer step. `pack_length` puts several solutions into
    one row of that many tokens, where they do not see each other; None gives every solution a
    row of its own, in batches of similar length. With `optimizer: muon`, `muon_learning_rate`
    is for hidden matrices and `learning_rate` for the rest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(1e-5, gt=0)
    muon_learning_rate: float = Field(0.02, gt=0)
    optimizer: Literal["adamw", "muon"] = "adamw"
    epochs: float = Field(3.0, gt=0)
    batch_size: int = Field(64, ge=1)
    micro_batch_size: int = Field(32, ge=1)
    max_length: int = Field(2048, ge=8)
    pack_length: int | None = Field(None, ge=8)
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    decay_ratio: float = Field(0.97, gt=0, le=1)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    save_steps: int = Field(200, ge=1)
    seed: int = 0


class SFTReport(Record):
    """What a training did: examples used and dropped, steps, tokens, seconds, losses (nats)."""

    n_examples: int
    dropped: dict[str, int]
    steps: int
    tokens: int
    seconds: float
    first_loss: float
    final_loss: float


def train_sft(
    policy: Policy,
    examples: Sequence[Example],
    config: SFTConfig,
    out: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> SFTReport:
    """Train `policy` in place on solutions and save it to `out/policy`.

    The loss is the mean over counted tokens of a batch (nats per token). Examples longer than
    `max_length` are dropped and counted, never cut. A killed training goes on from its last
    checkpoint in `out/checkpoints`. Raises InputError when no example is left.
    """
    torch.set_flush_denormal(True)
    kept = [e for e in examples if len(e[0]) <= config.max_length and any(e[1][1:])]
    if not kept:
        raise InputError(f"supervised training: none of {len(examples)} examples can be used")
    order = training_order(
        [len(ids) for ids, _ in kept],
        batch_size=config.batch_size,
        micro_batch_size=config.micro_batch_size,
        epochs=config.epochs,
        seed=config.seed,
    )
    accumulation = -(-min(config.batch_size, len(kept)) // config.micro_batch_size)
    started = time.perf_counter()
    trainer = _SFTTrainer(policy, kept, order, config, accumulation, out, progress)
    trainer.train(resume_from_checkpoint=_last_checkpoint(out))
    save_policy(policy, out / "policy")
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return SFTReport(
        n_examples=len(kept),
        dropped={"too_long_or_empty": len(examples) - len(kept)},
        steps=trainer.state.global_step,
        tokens=sum(len(kept[i][0]) for batch in order for i in batch),
        seconds=time.perf_counter() - started,
        first_loss=losses[0],
        final_loss=losses[-1],
    )


def collate(
    examples: Sequence[Example], pad_id: int, pack_length: int | None
) -> dict[str, torch.Tensor]:
    """Rows of token ids (B, T), labels (B, T), and for packed rows position ids and a mask.

    The mask (B, 1, T, T) lets a token see the earlier tokens of its own solution alone.
    Right-padded rows need none: causal attention never looks at padding behind a token.
    """
    if pack_length is None:
        rows = [[example] for example in examples]
    else:
        rows = _pack(examples, pack_length)
    width = max(sum(len(ids) for ids, _ in row) for row in rows)
    shape = (len(rows), width)
    input_ids = torch.full(shape, pad_id)
    labels = torch.full(shape, IGNORED)
    positions = torch.zeros(shape, dtype=torch.long)
    segments = torch.full(shape, -1)
    for r, row in enumerate(rows):
        start = 0
        for s, (ids, mask) in enumerate(row):
            end = start + len(ids)
            tokens = torch.tensor(ids)
            counted = torch.tensor(mask)
            counted[0] = False  # nothing of its own solution comes before the first token
            input_ids[r, start:end] = tokens
            labels[r, start:end] = torch.where(counted, tokens, IGNORED)
            positions[r, start:end] = torch.arange(len(ids))
            segments[r, start:end] = s
            start = end
    batch = {"input_ids": input_ids, "labels": labels}
    if pack_length is not None:
        same = segments[:, :, None] == segments[:, None, :]
        causal = torch.ones(width, width, dtype=torch.bool).tril()
        batch["position_ids"] = positions
        batch["attention_mask"] = (same & causal)[:, None]
    return batch


def _pack(examples: Sequence[Example], pack_length: int) -> list[list[Example]]:
    """First fit, longest first; an example longer than a row gets a row of its own."""
    rows: list[list[Example]] = []
    free: list[int] = []
    for example in sorted(examples, key=lambda e: -len(e[0])):
        size = len(example[0])
        place = next((i for i, room in enumerate(free) if room >= size), None)
        if place is None:
            rows.append([])
            free.append(pack_length)
            place = len(rows) - 1
        rows[place].append(example)
        free[place] -= size
    return rows


def _last_checkpoint(out: Path) -> str | None:
    folder = out / "checkpoints"
    if not folder.is_dir():
        return None
    last = get_last_checkpoint(str(folder))  # type: ignore[no-untyped-call]
    return None if last is None else str(last)


class _Progress(TrainerCallback):
    def __init__(self, report: Callable[[int, int], None]):
        self._report = report

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._report(state.global_step, state.max_steps)


class _SFTTrainer(Trainer):
    """The Trainer over a fixed order of micro-batches, with the loss at counted tokens only."""

    def __init__(
        self,
        policy: Policy,
        examples: Sequence[Example],
        order: list[list[int]],
        config: SFTConfig,
        accumulation: int,
        out: Path,
        progress: Callable[[int, int], None] | None,
    ):
        self._config = config
        pad_id = policy.tokenizer.pad_token_id
        pad = policy.tokenizer.eos_token_id if pad_id is None else pad_id
        super().__init__(
            model=policy.model,
            args=_arguments(config, len(order), accumulation, out),
            train_dataset=order,
            data_collator=lambda item: collate(
                [examples[i] for i in item[0]], int(pad or 0), config.pack_length
            ),
            callbacks=[] if progress is None else [_Progress(progress)],
        )
        self.model_accepts_loss_kwargs = True

    def get_train_dataloader(self) -> DataLoader[Any]:
        dataset: Any = self.train_dataset
        loader: Any = DataLoader(
            dataset, batch_size=1, shuffle=False, collate_fn=self.data_collator
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self._config.optimizer == "adamw":
            return super().create_optimizer(model) if model else super().create_optimizer()
        trained: Any = self.model
        self.optimizer = MuonWithAdamW(
            trained,
            muon_lr=self._config.muon_learning_rate,
            adamw_lr=self._config.learning_rate,
            weight_decay=self._config.weight_decay,
        )
        return self.optimizer

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        labels_BT = inputs.pop("labels")
        hidden_BTH = model.get_decoder()(**inputs, use_cache=False).last_hidden_state
        counted_BT = labels_BT[:, 1:] != IGNORED
        logits_NV = model.get_output_embeddings()(hidden_BTH[:, :-1][counted_BT]).float()
        total = torch.nn.functional.cross_entropy(
            logits_NV, labels_BT[:, 1:][counted_BT], reduction="sum"
        )
        items = counted_BT.sum() if num_items_in_batch is None else num_items_in_batch
        loss = total / items
        return (loss, {"logits": logits_NV}) if return_outputs else loss


def _arguments(
    config: SFTConfig, micro_batches: int, accumulation: int, out: Path
) -> TrainingArguments:
    steps = max(1, micro_batches // accumulation)
    decay = max(1, round(steps * config.decay_ratio))
    warmup = min(round(steps * config.warmup_ratio), steps - 1)
    return TrainingArguments(
        output_dir=str(out / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={
            "num_decay_steps": min(decay, steps - warmup),
            "decay_type": "cosine" if config.decay_ratio > 0.5 else "linear",
            "min_lr_ratio": 0.0,
        },
        warmup_steps=warmup,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        save_strategy="steps",
        save_steps=config.save_steps,
        save_total_limit=1,
        logging_steps=10,
        logging_first_step=True,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        seed=config.seed,
    )
