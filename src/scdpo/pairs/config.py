"""How many pairs a question gives, which solutions count as equal, and what is held out."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator

Limits = dict[str, PositiveInt]

STEP_CONTROLLED_LIMITS = {"default": 2, "gsm8k": 2, "math": 3, "ape210k": 1}
"""What the released code meant to keep per question (it kept more: a counter is never reset)."""


class PairConfig(BaseModel):
    """What becomes a pair.

    `step_controlled_per_question` is one limit, or one per dataset with `default` for the
    others. `duplicates` says when two dispreferred solutions of a question are one: `exact`
    compares their text; `released-code` takes the same number of blocks and lengths within
    500 characters for equal. `truncated_is_wrong` makes dispreferred samples of solutions that
    a limit cut and of those without an answer, as the released code does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    naive_per_question: PositiveInt = 1
    step_controlled_per_question: PositiveInt | Limits = Field(
        default_factory=lambda: dict(STEP_CONTROLLED_LIMITS)
    )
    heldout_share: Annotated[float, Field(ge=0, lt=1)] = 0.01
    duplicates: Literal["exact", "released-code"] = "exact"
    truncated_is_wrong: bool = False
    seed: int = 0

    @field_validator("step_controlled_per_question")
    @classmethod
    def _has_default(cls, value: int | Limits) -> int | Limits:
        if isinstance(value, dict) and "default" not in value:
            raise ValueError("a limit per dataset needs a 'default' for the other datasets")
        return value

    def step_controlled_limit(self, dataset: str) -> int:
        """The most step-controlled pairs that a question of `dataset` gives."""
        limits = self.step_controlled_per_question
        return limits if isinstance(limits, int) else limits.get(dataset, limits["default"])


def is_heldout(problem_id: str, config: PairConfig) -> bool:
    """Whether a question is held out: a fixed share of questions, the same for every pair kind.

    Every question is drawn by itself, so a small set may have none.
    """
    return draw(config.seed, "heldout", problem_id) < config.heldout_share


def draw(seed: int, *names: str) -> float:
    """A number in [0, 1) that depends on the seed and the names alone."""
    digest = hashlib.sha256("\0".join((str(seed), *names)).encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48
