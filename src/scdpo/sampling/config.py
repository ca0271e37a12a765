"""Settings of the step loop, of naive sampling and of branching."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, model_validator

from scdpo.errors import InputError


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Schedule(_Config):
    """The temperature of each new step: `start`, `increment` more per step, at most `cap`.

    The paper's schedule for branches is 1.1, 0.05, 1.4; a constant one has no increment.
    """

    start: float = Field(1.1, ge=0)
    increment: float = Field(0.05, ge=0)
    cap: float = Field(1.4, ge=0)

    @model_validator(mode="after")
    def _cap_is_reachable(self) -> Schedule:
        if self.cap < self.start:
            raise ValueError(f"cap {self.cap} is below start {self.start}")
        return self

    def temperature(self, new_step: int) -> float:
        """The temperature of the new step with this index, counted from 0."""
        # Rounded, so that rows do not record 1.2000000000000002.
        return min(round(self.start + self.increment * new_step, 9), self.cap)


class Limits(_Config):
    """Where a rollout is cut: steps, tokens per step, and tokens of prompt and solution.

    A rollout that has `max_steps` steps, shared ones included, and no end marker yet is cut.
    """

    max_steps: int = Field(64, ge=1)
    step_tokens: int = Field(512, ge=1)
    context: int = Field(3072, ge=16)


class SampleConfig(_Config):
    """Naive sampling (stage 1 of the method).

    A question is left as soon as it has `correct` preferred and `wrong` dispreferred solutions,
    or after `max_attempts`. `seed` is the run's. `chunk` problems are worked on together with
    up to `rows` rollouts at a time, each with a sandbox session of its own; a stopped run goes
    on at the first unfinished chunk.
    """

    temperature: float = Field(1.0, ge=0)
    correct: int = Field(1, ge=0)
    wrong: int = Field(1, ge=0)
    max_attempts: int = Field(100, ge=1)
    error_words_in_question: bool = False
    limits: Limits = Limits()
    chunk: int = Field(64, ge=1)
    rows: int = Field(192, ge=1)
    seed: int = 0


class BranchConfig(_Config):
    """Branching (stage 2 of the method).

    For every preferred solution, continuations are drawn from branch steps until `negatives`
    wrong ones are kept (a number, or one per data set with `default` for the others), at most
    `max_attempts` of them. `branch_steps` draws k at random, or takes every boundary in turn;
    the last `skip_last` boundaries are left out. A negative whose new steps have a mean log-prob
    per token below `min_mean_logp` under the initial policy is flagged `unlikely` and not kept.
    Up to `rows` continuations run at a time, each with a sandbox session of its own.
    """

    schedule: Schedule = Schedule()
    negatives: NonNegativeInt | dict[str, NonNegativeInt] = 2
    max_attempts: int = Field(16, ge=1)
    branch_steps: Literal["random", "every"] = "random"
    skip_last: int = Field(0, ge=0)
    min_mean_logp: float | None = None
    limits: Limits = Limits()
    chunk: int = Field(32, ge=1)
    rows: int = Field(128, ge=1)
    seed: int = 0

    def negatives_for(self, dataset: str) -> int:
        """How many negatives a question of this data set should have."""
        if isinstance(self.negatives, int):
            return self.negatives
        if dataset in self.negatives:
            return self.negatives[dataset]
        if "default" in self.negatives:
            return self.negatives["default"]
        known = ", ".join(self.negatives)
        raise InputError(f"branch.negatives: nothing for data set {dataset!r} (has: {known})")
