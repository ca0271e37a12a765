"""Settings that every training takes; cheap to import."""

from __future__ import annotations

from typing import Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

Checkpointing: TypeAlias = Literal[False, True, "selective"]
"""Gradient checkpointing; `training.recomputing` says what each keeps."""


class TrainingConfig(BaseModel):
    """What trainings of every kind are told; an *example* is what one of them trains on.

    `batch_size` counts examples per optimizer step and `micro_batch_size` examples that go
    through the model together where each has rows of its own; the latter changes speed and
    memory, not the loss. `max_length`
    is in tokens; longer examples are dropped, as are those longer than the policy's own
    context. `score_output` lets execution output count, as the released code of
    arXiv 2407.00782 does. `bf16` autocasts the computation on a GPU; the weights stay fp32, as
    bf16 weights would lose updates at small learning rates. `gradient_checkpointing` computes
    activations twice to keep fewer of them, `selective` all but attention
    (`training.recomputing`); `compile` runs the decoder through torch.compile. `report_to` names
    loggers of the Trainer, such as `tensorboard` or `wandb`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(gt=0)
    batch_size: int = Field(64, ge=1)
    micro_batch_size: int = Field(8, ge=1)
    max_length: int = Field(ge=2)
    warmup_ratio: float = Field(ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, ge=0)
    score_output: bool = False
    bf16: bool = True
    gradient_checkpointing: Checkpointing = False
    compile: bool = False
    report_to: tuple[str, ...] = ()
    seed: int = Field(0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _whole_micro_batches(self) -> Self:
        if self.micro_batch_size < self.batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size"
                f" {self.micro_batch_size}"
            )
        return self
