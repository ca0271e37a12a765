"""Settings of the step loop, of naive sampling and of branching."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, model_validator

from scdpo.errors import InputError


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Schedule(_Config):
    """The temperature of each new step: `start`, then `increment` more per step, up to `cap`.

    The paper's schedule for branches is Schedule(1.1, 0.05, 1.4) (arXiv 2407.00782, Sec. 3.2). A
    constant schedule has increment 0.
    """

    start: float = Field(1.1, ge=0, description="Temperature of the first new step.")
    increment: float = Field(0.05, ge=0, description="Temperature increase per further step.")
    cap: float = Field(1.4, ge=0, description="Maximum temperature.")

    def __init__(
        self, start: float = 1.1, increment: float = 0.05, cap: float = 1.4, **unknown: object
    ) -> None:
        values: dict[str, object] = {"start": start, "increment": increment, "cap": cap}
        super().__init__(**values, **unknown)

    @model_validator(mode="after")
    def _cap_is_reachable(self) -> Schedule:
        if self.cap < self.start:
            raise ValueError(f"cap {self.cap} is below start {self.start}")
        return self

    def temperature(self, new_step: int) -> float:
        """The temperature of the new step with this 0-based index."""
        # Rounded, so that rows do not record 1.2000000000000002.
        return min(round(self.start + self.increment * new_step, 9), self.cap)


class Limits(_Config):
    """Where a rollout is cut."""

    max_steps: int = Field(
        64, ge=1, description="Maximum steps per solution, shared steps included."
    )
    step_tokens: int = Field(512, ge=1, description="Maximum tokens per step.")
    context: int = Field(3072, ge=16, description="Maximum tokens of prompt and solution together.")


class SampleConfig(_Config):
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
        64, ge=1, description="Questions processed together: the unit of resumption."
    )
    rows: int = Field(
        192, ge=1, description="Solutions sampled side by side, each with a sandbox session."
    )
    seed: int = Field(0, description="Seed; the recipe's `seed` by default.")


class BranchConfig(_Config):
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
    chunk: int = Field(32, ge=1, description="Parents processed together: the unit of resumption.")
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
