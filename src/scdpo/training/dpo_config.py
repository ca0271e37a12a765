"""Settings and report of a preference training; cheap to import."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scdpo.records import Record


class DPOConfig(BaseModel):
    """Settings of a preference training; the defaults are the paper's.

    `batch_size` counts pairs per optimizer step and `micro_batch_size` pairs that go through
    the model together; the latter changes speed and memory, not the loss. `max_length` is in
    tokens; longer pairs are dropped, as are those longer than the policy's own context.
    `score_output` lets execution output count, as the released code does. `bf16` autocasts the
    computation on a GPU; the weights stay fp32, as bf16 weights would lose updates at these
    learning rates. `checkpoint_steps` is the number of optimizer steps between checkpoints.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    loss: Literal["sigmoid"] = "sigmoid"
    beta: float = Field(0.1, gt=0)
    learning_rate: float = Field(1e-7, gt=0)
    epochs: int = Field(2, ge=1)
    batch_size: int = Field(64, ge=1)
    micro_batch_size: int = Field(8, ge=1)
    max_length: int = Field(1024, ge=2)
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    optim: Literal["adamw"] = "adamw"
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    adam_epsilon: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, ge=0)
    score_output: bool = False
    bf16: bool = True
    checkpoint_steps: int = Field(20, ge=1)
    seed: int = Field(0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _whole_micro_batches(self) -> Self:
        if self.micro_batch_size < self.batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size"
                f" {self.micro_batch_size}"
            )
        return self


class PreferenceMetrics(Record):
    """How a policy stands to a set of pairs; means over pairs.

    `margin` is β-scaled (an implicit reward, nats); `accuracy` is the share of pairs with a
    positive margin, a margin of zero counting half; `chosen_likelier` is the share whose chosen
    continuation has the higher summed log-prob under the policy itself.
    """

    n_pairs: int
    loss: float
    margin: float
    accuracy: float
    chosen_likelier: float


class TrainingReport(Record):
    """What a preference training did. `seconds` are those of the call that finished it."""

    policy: str
    initial_policy: str
    n_pairs: int
    n_naive: int
    n_step_controlled: int
    dropped: dict[str, int]
    steps: int
    resumed_at_step: int
    seconds: float
    reference_seconds: float
    first_loss: float
    final_loss: float
    heldout_dropped: dict[str, int]
    heldout_before: PreferenceMetrics | None = None
    heldout_after: PreferenceMetrics | None = None
