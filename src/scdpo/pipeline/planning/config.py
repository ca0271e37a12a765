"""The assumptions behind a plan: the recipe's section `plan`; cheap to import."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(gt=0, le=1)]


class FoundPairs(BaseModel):
    """How many pairs were found for a data set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    questions: int = Field(ge=1, description="Questions sampled on.")
    within: int = Field(100, ge=2, description="Solutions per question, at most.")
    naive: int = Field(ge=0, description="Naive pairs found, one per question at most.")
    step_controlled: int = Field(ge=0, description="Step-controlled pairs found.")


class PlanConfig(BaseModel):
    """What `scdpo plan` assumes; no stage of a run reads it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sft_rows: int | None = Field(
        None, ge=1, description="Rows of `sft.data`, where they cannot be counted."
    )
    pairs: dict[str, FoundPairs] = Field(
        default_factory=dict,
        description="Pairs found per data set in an earlier run of such a policy; default: the "
        "mean of the paper's three 7B policies.",
    )
    accuracy: dict[str, Share] = Field(
        default_factory=dict,
        description="Share of sampled solutions that are right, per data set; it decides how many "
        "have to be sampled. Default: means of the paper's.",
    )
    prompt_tokens: dict[str, int] = Field(
        default_factory=dict, description="Mean tokens of a prompt, per data set."
    )
    solution_tokens: dict[str, int] = Field(
        default_factory=dict,
        description="Mean tokens of a solution with its execution output, per data set.",
    )
    training_share: Share | None = Field(
        None,
        description="Share of the peak FLOP/s that training reaches (MFU); default: 0.35 on GPUs, "
        "0.55 on CPUs.",
    )
    decoding_share: Share | None = Field(
        None,
        description="Share of what bandwidth and peak FLOP/s allow that decoding reaches; default: "
        "0.6 on GPUs, 0.18 on CPUs.",
    )
    layer_ms: float = Field(
        0.6,
        ge=0,
        description="Milliseconds that the host needs to start a layer in a token step on a GPU.",
    )
    usable_memory: Share = Field(
        0.92, description="Share of a device's memory that can be used; the rest is the driver's."
    )
