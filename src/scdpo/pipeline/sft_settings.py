"""The recipe's section `sft`: the training's settings, and what it learns from."""

from __future__ import annotations

from pydantic import Field

from scdpo.sampling.teaching import SFTData
from scdpo.training.sft_config import SFTConfig


class SFTSettings(SFTConfig):
    """Supervised fine-tuning, as a stage of a run (with `data`) or on its own."""

    data: SFTData | None = Field(
        None,
        description="Questions with solutions that the recipe's policy is fine-tuned on before "
        "anything is sampled; the result is the run's initial and reference policy. Null: the "
        "recipe's policy is that.",
    )
    heldout_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the questions in `data` that are not trained on; their loss is "
        "measured at the start and after every epoch.",
    )

    keep_best: bool = Field(
        False,
        description="Answer `problems.validation` greedily with the policy of every epoch, and "
        "keep the best one rather than the last; of equals, the one with the lowest held-out loss.",
    )
    add_tokens: bool = Field(
        False,
        description="Add the format's markers that the policy's tokenizer lacks as tokens of "
        "their own; their embeddings start as the mean of the others.",
    )

    @property
    def training(self) -> SFTConfig:
        """The settings of the training alone."""
        return SFTConfig(**{name: getattr(self, name) for name in SFTConfig.model_fields})
