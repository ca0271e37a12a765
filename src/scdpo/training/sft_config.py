"""Settings and report of supervised fine-tuning; cheap to import."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from scdpo.records import Record
from scdpo.training.config import TrainingConfig


class SFTConfig(TrainingConfig):
    """Settings of supervised fine-tuning; the defaults are the paper's (arXiv 2407.00782).

    An example is a solution. `epochs` need not be whole. `pack_length` puts several solutions
    into one row of that many tokens, where they do not see each other; None gives every solution
    a row of its own, in batches of similar length. With `optimizer: muon`, `muon_learning_rate`
    and `weight_decay` are for hidden matrices and `learning_rate` for the rest, which does not
    decay. The learning rate rises over the first `warmup_ratio` of the steps and falls over the
    last `decay_ratio` of them: to zero along a cosine, or in a straight line where that is half
    of the training or less. `stop_at_step` ends the training early, its learning rates as they
    are at that step of the whole. `save_steps` is the number of optimizer steps between
    checkpoints.
    """

    learning_rate: float = Field(1e-5, gt=0)
    muon_learning_rate: float = Field(0.02, gt=0)
    optimizer: Literal["adamw", "muon"] = "adamw"
    epochs: float = Field(3.0, gt=0)
    micro_batch_size: int = Field(32, ge=1)
    max_length: int = Field(2048, ge=2)
    pack_length: int | None = Field(None, ge=8)
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    decay_ratio: float = Field(0.97, gt=0, le=1)
    stop_at_step: int | None = Field(None, ge=1)
    save_steps: int = Field(200, ge=1)


class SFTReport(Record):
    """What a supervised training did; losses in nats per counted token.

    `tokens` are those of all examples trained on, prompts included and repetitions counted.
    `seconds` are those of the call that finished the training.
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
