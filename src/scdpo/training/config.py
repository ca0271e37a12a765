"""Settings that every training takes; cheap to import."""

from __future__ import annotations

from typing import Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

Checkpointing: TypeAlias = Literal[False, True, "selective"]
"""Gradient checkpointing; `training.recomputing` describes what each kind keeps."""


class TrainingConfig(BaseModel):
    """Settings of trainings of every kind; an *example* is a pair or a solution."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(gt=0, description="Peak learning rate.")
    batch_size: int = Field(64, ge=1, description="Examples in an optimizer step.")
    micro_batch_size: int = Field(
        8,
        ge=1,
        description="Examples that go through the model together where they are padded rather "
        "than packed into rows; it changes speed and memory, not the loss.",
    )
    max_length: int = Field(
        ge=2,
        description="Longest example in tokens; longer ones are dropped, as are those that "
        "exceed the policy's context.",
    )
    warmup_ratio: float = Field(
        ge=0, lt=1, description="Share of the steps over which the learning rate rises from zero."
    )
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay of the optimizer.")
    max_grad_norm: float = Field(
        1.0, ge=0, description="Norm to which gradients are clipped; 0 turns clipping off."
    )
    score_output: bool = Field(
        False,
        description="Whether execution output counts in the loss, as in the code released with "
        "arXiv 2407.00782.",
    )
    bf16: bool = Field(
        True,
        description="Whether a GPU computes in bf16 (autocast); the weights stay in fp32, as "
        "bf16 weights would lose updates at small learning rates.",
    )
    gradient_checkpointing: Checkpointing = Field(
        False,
        description="Whether activations are computed again in the backward pass to save memory: "
        "all of them (true), or all but the results of attention (selective).",
    )
    compile: bool = Field(
        False,
        description="Whether the decoder runs through torch.compile; the first steps are slow.",
    )
    report_to: tuple[str, ...] = Field(
        (), description="Loggers of the Transformers Trainer, such as tensorboard or wandb."
    )
    seed: int = Field(
        0, ge=0, lt=2**31, description="Seed of the order of examples and of a new adapter."
    )

    @model_validator(mode="after")
    def _whole_micro_batches(self) -> Self:
        if self.micro_batch_size < self.batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size"
                f" {self.micro_batch_size}"
            )
        return self
