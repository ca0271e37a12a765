"""The rows that tables are made of. All shares are fractions of 1; tables print per cent."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from scdpo.records import Record

Share = Annotated[float, Field(ge=0, le=1)]
Gap = Annotated[float, Field(ge=-1, le=1)]
Count = Annotated[int, Field(ge=0)]


class Difference(Record):
    """A policy's accuracy minus another's on the same questions, with its 95 % interval and
    the two-sided p-value of the paired test."""

    difference: Gap
    low: Gap
    high: Gap
    p: Share


class MeasuredLine(Record):
    """A policy's accuracy on `n` questions with its 95 % interval `low`, `high`."""

    policy: str
    n: Annotated[int, Field(ge=1)]
    accuracy: Share
    low: Share
    high: Share

    @model_validator(mode="after")
    def _interval_holds_accuracy(self) -> Self:
        if not self.low <= self.accuracy <= self.high:
            raise ValueError(
                f"accuracy {self.accuracy} is outside its interval {self.low} to {self.high}"
            )
        return self


class PolicyLine(MeasuredLine):
    """One policy's result on the whole evaluation.

    `undecided` and `unfinished` questions are part of `n` and count as not correct. A
    comparison is None where there is nothing to compare with, as for the reference itself;
    `pairs` is None for a policy that was not trained on pairs.
    """

    vs_sft: Difference | None = None
    vs_data_equal: Difference | None = None
    pairs: Count | None = None
    undecided: Count = 0
    unfinished: Count = 0


class BenchmarkLine(MeasuredLine):
    """A policy's result on one benchmark: n = correct + wrong + undecided + unfinished.

    `reasons` counts why questions are undecided or unfinished.
    """

    benchmark: str
    wrong: Count
    undecided: Count
    unfinished: Count
    reasons: dict[str, Count] = Field(default_factory=dict)


class ComparisonLine(Record):
    """Two policies, a and b, on the same `n` questions: their accuracies, a minus b with its
    95 % interval, the questions that one alone got right, and the p-value of the paired test."""

    benchmark: str
    n: Annotated[int, Field(ge=1)]
    a_accuracy: Share
    b_accuracy: Share
    difference: Gap
    low: Gap
    high: Gap
    only_a: Count
    only_b: Count
    p: Share


class BreakdownLine(MeasuredLine):
    """One policy's accuracy on one group of questions, such as a level or a subject."""

    group: str
