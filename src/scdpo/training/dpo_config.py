"""Settings and report of a preference training; cheap to import."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from scdpo.records import Record
from scdpo.training.config import TrainingConfig


class DPOConfig(TrainingConfig):
    """Settings of a preference training; the defaults are the paper's.

    An example is a pair. `checkpoint_steps` is the number of optimizer steps between checkpoints.
    """

    loss: Literal["sigmoid"] = "sigmoid"
    beta: float = Field(0.1, gt=0)
    learning_rate: float = Field(1e-7, gt=0)
    epochs: int = Field(2, ge=1)
    max_length: int = Field(1024, ge=2)
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    optim: Literal["adamw"] = "adamw"
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    adam_epsilon: float = Field(1e-8, gt=0)
    checkpoint_steps: int = Field(20, ge=1)


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
