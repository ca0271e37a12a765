"""Settings and report of supervised fine-tuning; cheap to import."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from scdpo.records import Record
from scdpo.training.config import TrainingConfig
from scdpo.training.dpo_config import LoraSettings


class SFTConfig(TrainingConfig):
    """Settings of supervised fine-tuning; the defaults are the paper's (arXiv 2407.00782).

    An example is a solution. The learning rate rises over the first `warmup_ratio` of the steps
    and falls to zero over the last `decay_ratio` of them.
    """

    learning_rate: float = Field(
        1e-5,
        gt=0,
        description="Peak learning rate; with optimizer muon, that of everything but hidden "
        "matrices.",
    )
    muon_learning_rate: float = Field(
        0.02, gt=0, description="Peak learning rate of hidden matrices with optimizer muon."
    )
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw",
        description="The optimizer; muon takes hidden matrices, with AdamW without weight decay "
        "for the rest.",
    )
    epochs: float = Field(
        3.0, gt=0, description="Passes over the solutions; need not be a whole number."
    )
    micro_batch_size: int = Field(
        32,
        ge=1,
        description="Solutions that go through the model together where they are padded rather "
        "than packed into rows; it changes speed and memory, not the loss.",
    )
    max_length: int = Field(
        2048,
        ge=2,
        description="Longest solution in tokens, prompt included; longer ones are dropped, as are "
        "those that exceed the policy's context.",
    )
    pack_length: int | None = Field(
        None,
        ge=8,
        description="Tokens in rows that several solutions are packed into without seeing each "
        "other; null gives every solution a row of its own, in batches of similar length.",
    )
    warmup_ratio: float = Field(
        0.03,
        ge=0,
        lt=1,
        description="Share of the steps over which the learning rate rises from zero.",
    )
    decay_ratio: float = Field(
        0.97,
        gt=0,
        le=1,
        description="Share of the steps over which the learning rate falls to zero at the end: "
        "linearly up to 0.5, along a cosine above.",
    )
    stop_at_step: int | None = Field(
        None,
        ge=1,
        description="Optimizer step at which the training ends early; learning rates are those of "
        "the whole training.",
    )
    lora: LoraSettings | None = Field(
        None, description="The adapter to train; null trains all weights."
    )
    save_steps: int = Field(200, ge=1, description="Optimizer steps between checkpoints.")


class HeldoutLoss(Record):
    """The loss on held-out solutions (nats per counted token) after so many epochs."""

    epochs: float
    step: int
    loss: float


class SFTReport(Record):
    """What a supervised training did; losses in nats per counted token.

    `policy` is the folder of the trained policy. `dropped` counts the solutions that could not
    be trained on, by reason. `tokens` are those of all examples trained on, prompts included and
    repetitions counted. `seconds` are those of the call that finished the training. `heldout` are
    the losses on held-out solutions, before the training and after every epoch; `epochs` maps
    the epochs whose policies were kept to their folders.
    """

    policy: str
    n_examples: int
    dropped: dict[str, int]
    steps: int
    resumed_at_step: int
    tokens: int
    seconds: float
    first_loss: float
    final_loss: float
    n_heldout: int = 0
    heldout: tuple[HeldoutLoss, ...] = ()
    epochs: dict[int, str] = Field(default_factory=dict)
