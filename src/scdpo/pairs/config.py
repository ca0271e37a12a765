"""How many pairs a question yields, which solutions are duplicates, and what is held out."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator

from scdpo.seeds import uniform

PerDataset = dict[str, PositiveInt]

STEP_CONTROLLED_LIMITS = {"default": 2, "gsm8k": 2, "math": 3, "ape210k": 1}
"""What the released code meant to keep per question (it keeps more: a counter is never reset)."""


class PairConfig(BaseModel):
    """Settings for making pairs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    naive_per_question: PositiveInt = Field(1, description="Maximum naive pairs per question.")
    step_controlled_per_question: PositiveInt | PerDataset = Field(
        default_factory=lambda: dict(STEP_CONTROLLED_LIMITS),
        description="Maximum step-controlled pairs per question: a number, or one per data set "
        "with `default` for the others.",
    )
    heldout_share: float = Field(
        0.01, ge=0, lt=1, description="Share of questions whose pairs are held out from training."
    )
    duplicates: Literal["exact", "released-code"] = Field(
        "exact",
        description="When solutions of a question on the same side are duplicates: equal texts "
        "(`exact`), or as many blocks and lengths within 500 characters (`released-code`).",
    )
    truncated_is_wrong: bool = Field(
        False, description="Count truncated and unanswered solutions as wrong."
    )
    seed: int = Field(0, description="Seed; the recipe's `seed` by default.")

    @field_validator("step_controlled_per_question")
    @classmethod
    def _has_default(cls, value: int | PerDataset) -> int | PerDataset:
        if isinstance(value, dict) and "default" not in value:
            raise ValueError("a limit per data set needs a 'default' for the other data sets")
        return value

    def step_controlled_limit(self, dataset: str) -> int:
        """The maximum number of step-controlled pairs per question of `dataset`."""
        limits = self.step_controlled_per_question
        return limits if isinstance(limits, int) else limits.get(dataset, limits["default"])


def is_heldout(problem_id: str, config: PairConfig) -> bool:
    """Whether a question is held out; the answer is the same for every kind of pair.

    Each question is drawn independently, so a small set may have no held-out questions.
    """
    return uniform(config.seed, "heldout", problem_id) < config.heldout_share
