"""Settings and report of a preference training; cheap to import."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scdpo.records import Record
from scdpo.training.config import TrainingConfig


class LoraSettings(BaseModel):
    """A low-rank adapter (peft) that is trained in place of the weights.

    `targets` are names of modules, or `all-linear`. `quantize` loads the base weights in 4 bits
    (nf4) with bitsandbytes: QLoRA.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0)
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    quantize: bool = False


class DPOConfig(TrainingConfig):
    """Settings of a preference training; the defaults are the paper's.

    An example is a pair; the pairs of a question stay together in an optimizer step. `loss` is
    `sigmoid` (DPO; with `label_smoothing` cDPO), `ipo` or `dpop` (with `dpop_penalty`, λ);
    `nll_weight` adds that much of the mean negative log-prob of the chosen steps (RPO);
    `length_normalised` divides log-probs by the tokens they sum; `score_shared` lets a pair's
    shared steps count on both sides. See `training.losses`.

    `computation: tree` computes what sequences of a question share once, `pairs` every sequence
    by itself; `auto` is `tree` where the model can do it. `row_tokens` is the size of the rows
    that trees are packed into, each a micro-batch; `micro_batch_size` is for `pairs`. `attention`
    is how trees are computed (`training.attention`); `auto` takes the fastest that works. None of
    these changes the loss.

    `reference: cached` computes the reference log-probs once and keeps them on disk, `online`
    with every step. `checkpoint_steps` is the number of optimizer steps between checkpoints.
    """

    loss: Literal["sigmoid", "ipo", "dpop"] = "sigmoid"
    beta: float = Field(0.1, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    dpop_penalty: float = Field(50.0, ge=0)
    nll_weight: float = Field(0.0, ge=0)
    length_normalised: bool = False
    score_shared: bool = False
    learning_rate: float = Field(1e-7, gt=0)
    epochs: int = Field(2, ge=1)
    max_length: int = Field(1024, ge=2)
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    optim: Literal["adamw"] = "adamw"
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    adam_epsilon: float = Field(1e-8, gt=0)
    computation: Literal["auto", "tree", "pairs"] = "auto"
    row_tokens: int = Field(2048, ge=16)
    attention: Literal["auto", "paths", "sdpa", "flex"] = "auto"
    reference: Literal["cached", "online"] = "cached"
    lora: LoraSettings | None = None
    checkpoint_steps: int = Field(20, ge=1)

    @model_validator(mode="after")
    def _smoothing_is_for_sigmoid(self) -> Self:
        if self.label_smoothing and self.loss != "sigmoid":
            raise ValueError(f"label_smoothing is for loss sigmoid, not {self.loss}")
        return self

    @model_validator(mode="after")
    def _selective_knows_the_attention(self) -> Self:
        if self.attention == "flex" and self.gradient_checkpointing == "selective":
            raise ValueError("gradient_checkpointing selective is for attention paths and sdpa")
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
    """What a preference training did. `seconds` are those of the call that finished it.

    `computation` is how: `pairs`, or `tree` with its attention; `tokens_saved` is the share of
    the pairs' tokens that did not have to be computed because trees share them.
    """

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
    computation: str = "pairs"
    tokens_saved: float = 0.0
