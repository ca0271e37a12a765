"""How many pairs a question gives, which solutions count as equal, and what is held out."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator

from scdpo.seeds import uniform

PerDataset = dict[str, PositiveInt]

STEP_CONTROLLED_LIMITS = {"default": 2, "gsm8k": 2, "math": 3, "ape210k": 1}
"""What the released code meant to keep per question (it kept more: a counter is never reset)."""


class PairConfig(BaseModel):
    """What becomes a pair."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    naive_per_question: PositiveInt = Field(1, description="Most naive pairs of a question.")
    step_controlled_per_question: PositiveInt | PerDataset = Field(
        default_factory=lambda: dict(STEP_CONTROLLED_LIMITS),
        description="Most step-controlled pairs of a question: a number, or one for each data set "
        "with `default` for the others.",
    )
    heldout_share: float = Field(
        0.01, ge=0, lt=1, description="Share of questions whose pairs are held out from training."
    )
    duplicates: Literal["exact", "released-code"] = Field(
        "exact",
        description="When two dispreferred solutions of a question are the same: equal texts "
        "(`exact`), or equally many blocks and lengths within 500 characters (`released-code`).",
    )
    truncated_is_wrong: bool = Field(
        False, description="Let truncated and unanswered solutions be dispreferred."
    )
    seed: int = Field(0, description="Seed; the recipe's own by default.")

    @field_validator("step_controlled_per_question")
    @classmethod
    def _has_default(cls, value: int | PerDataset) -> int | PerDataset:
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
    return uniform(config.seed, "heldout", problem_id) < config.heldout_share
