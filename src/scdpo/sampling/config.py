"""Settings of naive sampling and of branching; those of the step loop are in `rollout`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt

from scdpo.errors import InputError
from scdpo.sampling.rollout import Limits, SamplingSettings, Schedule


class SampleConfig(SamplingSettings):
    """Naive sampling (stage 1 of the method): a question is sampled until it has `correct`
    preferred and `wrong` dispreferred solutions, or for `max_attempts`."""

    temperature: float = Field(1.0, ge=0, description="Sampling temperature.")
    correct: int = Field(1, ge=0, description="Preferred solutions wanted per question.")
    wrong: int = Field(1, ge=0, description="Dispreferred solutions wanted per question.")
    max_attempts: int = Field(100, ge=1, description="Maximum solutions sampled per question.")
    error_words_in_question: bool = Field(
        False, description="Also look for error words in the question, as the released code does."
    )
    truncated_is_wrong: bool = Field(
        False, description="Count truncated and unanswered solutions as wrong."
    )
    limits: Limits = Field(Limits(), description="Where a solution is cut.")
    chunk: int = Field(
        64,
        ge=1,
        description="Questions processed together: the unit of resumption, except with an engine "
        "that runs freely.",
    )
    rows: int = Field(
        192, ge=1, description="Solutions sampled side by side, each with a sandbox session."
    )
    seed: int = Field(0, description="Seed; the recipe's `seed` by default.")


class BranchConfig(SamplingSettings):
    """Branching (stage 2 of the method): every preferred solution is continued from its branch
    steps until `negatives` continuations are dispreferred, at most `max_attempts` times."""

    schedule: Schedule = Field(Schedule(), description="Temperatures of the new steps.")
    negatives: NonNegativeInt | dict[str, NonNegativeInt] = Field(
        2,
        description="Dispreferred continuations wanted per parent: a number, or one per data set "
        "with `default` for the others.",
    )
    max_attempts: int = Field(16, ge=1, description="Maximum continuations per parent.")
    branch_steps: Literal["random", "every"] = Field(
        "random", description="Use the branch steps k in random or in ascending order."
    )
    skip_last: int = Field(
        0, ge=0, description="How many of the last step boundaries are not used as branch steps."
    )
    min_mean_logp: float | None = Field(
        None,
        description="Flag a continuation as `unlikely`, which keeps it out of pairs, if the mean "
        "log-prob per token (nats) of its new steps under the initial policy is below this.",
    )
    truncated_is_wrong: bool = Field(
        False, description="Count truncated and unanswered continuations as wrong."
    )
    limits: Limits = Field(Limits(), description="Where a solution is cut.")
    chunk: int = Field(
        32,
        ge=1,
        description="Parents processed together: the unit of resumption, except with an engine "
        "that runs freely.",
    )
    rows: int = Field(
        128, ge=1, description="Continuations sampled side by side, each with a sandbox session."
    )
    seed: int = Field(0, description="Seed; the recipe's `seed` by default.")

    def negatives_for(self, dataset: str) -> int:
        """How many negatives a parent from this data set should have. Raises InputError."""
        if isinstance(self.negatives, int):
            return self.negatives
        if dataset in self.negatives:
            return self.negatives[dataset]
        if "default" in self.negatives:
            return self.negatives["default"]
        known = ", ".join(self.negatives)
        raise InputError(f"branch.negatives: no value for data set {dataset!r} (given: {known})")
