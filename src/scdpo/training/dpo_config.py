"""Settings and report of a preference training; cheap to import."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scdpo.records import Record
from scdpo.training.config import TrainingConfig


class LoraSettings(BaseModel):
    """A low-rank adapter (peft) that is trained in place of the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(16, ge=1, description="Rank of the adapter's matrices.")
    alpha: float = Field(
        32, gt=0, description="Scale of the adapter, which is added with weight alpha / rank."
    )
    targets: tuple[str, ...] | Literal["all-linear"] = Field(
        "all-linear", description="Names of the modules that get an adapter, or all-linear."
    )
    quantize: bool = Field(
        False,
        description="Whether the base weights are held in 4 bits (nf4, bitsandbytes): QLoRA.",
    )


class DPOConfig(TrainingConfig):
    """Settings of a preference training; the defaults are the paper's (arXiv 2407.00782).

    An example is a pair, and the pairs of a question stay together in an optimizer step. The
    losses are those of `training.losses`. `computation`, `row_tokens`, `attention` and
    `micro_batch_size` change speed and memory, not the loss.
    """

    loss: Literal["sigmoid", "ipo", "dpop"] = Field(
        "sigmoid", description="The preference loss: sigmoid (DPO), ipo or dpop."
    )
    beta: float = Field(
        0.1, gt=0, description="β, the strength of the pull towards the reference policy."
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="Share of pairs assumed to be labelled the wrong way round (cDPO); for loss "
        "sigmoid.",
    )
    dpop_penalty: float = Field(
        50.0,
        ge=0,
        description="λ of loss dpop, the penalty on a chosen side that became less likely.",
    )
    nll_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of the mean negative log-prob of the chosen steps, added to the loss "
        "(RPO).",
    )
    length_normalised: bool = Field(
        False, description="Whether log-probs are divided by the number of tokens they sum."
    )
    score_shared: bool = Field(
        False, description="Whether a pair's shared steps count on both sides."
    )
    learning_rate: float = Field(1e-7, gt=0, description="Peak learning rate.")
    epochs: int = Field(2, ge=1, description="Passes over the pairs.")
    max_length: int = Field(
        1024,
        ge=2,
        description="Longest side of a pair in tokens, prompt included; longer pairs are dropped, "
        "as are those that exceed the policy's context.",
    )
    warmup_ratio: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of the steps over which the learning rate rises from zero.",
    )
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = Field(
        "cosine", description="How the learning rate goes on after the warm-up."
    )
    optim: Literal["adamw"] = Field("adamw", description="The optimizer.")
    adam_beta1: float = Field(
        0.9, ge=0, lt=1, description="AdamW's decay rate of the first moment."
    )
    adam_beta2: float = Field(
        0.999, ge=0, lt=1, description="AdamW's decay rate of the second moment."
    )
    adam_epsilon: float = Field(
        1e-8, gt=0, description="AdamW's ε, added to the denominator of its updates."
    )
    computation: Literal["auto", "tree", "pairs"] = Field(
        "auto",
        description="Whether what the sequences of a question share is computed once (tree) or "
        "every sequence by itself (pairs); auto is tree where the model can do it.",
    )
    row_tokens: int = Field(
        2048,
        ge=16,
        description="Tokens in the rows that trees are packed into; each row is a micro-batch.",
    )
    attention: Literal["auto", "paths", "sdpa", "flex"] = Field(
        "auto",
        description="How attention over trees is computed; auto is the fastest way that works.",
    )
    reference: Literal["cached", "online"] = Field(
        "cached",
        description="Whether reference log-probs are computed once and kept on disk (cached) or "
        "with every step (online).",
    )
    lora: LoraSettings | None = Field(
        None, description="The adapter to train; null trains all weights."
    )
    checkpoint_steps: int = Field(20, ge=1, description="Optimizer steps between checkpoints.")

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
    """How a policy ranks a set of pairs; means over pairs.

    `margin` is β-scaled (an implicit reward, nats); `accuracy` is the share of pairs with a
    positive margin, where a margin of zero counts half; `chosen_likelier` is the share whose
    chosen continuation has the higher summed log-prob under the policy itself.
    """

    n_pairs: int
    loss: float
    margin: float
    accuracy: float
    chosen_likelier: float


class TrainingReport(Record):
    """What a preference training did. `seconds` are those of the call that finished it.

    `policy` is the folder of the trained policy. `dropped` counts the pairs that could not be
    trained on, by reason. `computation` is `pairs`, or `tree` with its attention; `tokens_saved`
    is the share of the pairs' tokens that trees did not have to compute. `references_computed`
    and `references_reused` count the reference log-probs that were computed and those found in
    the cache. `unchanged` means that the trained policy is the initial one, bit for bit. Losses
    are in nats.
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
    references_computed: int = 0
    references_reused: int = 0
    unchanged: bool = False
