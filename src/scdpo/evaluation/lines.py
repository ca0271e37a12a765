"""The lines of tables, computed from evaluation rows.

All shares are fractions of 1; tables print per cent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from scdpo.evaluation.accuracy import GroupBy, by, compare, status, summarise
from scdpo.evaluation.answered import Compared
from scdpo.records import Evaluation, Record

SFT = "sft"
"""Name of the initial policy in a run."""
DATA_EQUAL = "dpo_equal"
"""The control for SCDPO: trained on the same number of pairs, all naive."""

Evaluations = Mapping[str, Sequence[Evaluation]]
"""The rows of each evaluated policy, on the same questions."""

Share = Annotated[float, Field(ge=0, le=1)]
Gap = Annotated[float, Field(ge=-1, le=1)]
Count = Annotated[int, Field(ge=0)]


class Difference(Record):
    """A policy's accuracy minus another's on the same questions, with the 95 % interval of the
    difference and the two-sided p-value of the paired test."""

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

    `undecided` and `unfinished` questions are part of `n` and count as not correct. A comparison
    is None if there is nothing to compare with, as for the reference itself. `pairs` is None for
    a policy that was not trained on pairs. `training` says how a policy was trained if its name
    does not.
    """

    vs_sft: Difference | None = None
    vs_data_equal: Difference | None = None
    pairs: Count | None = None
    training: str = ""
    undecided: Count = 0
    unfinished: Count = 0


class DatasetReport(Record):
    """The results of all policies of a run on the questions of one data set."""

    dataset: str
    policies: tuple[PolicyLine, ...]


class BenchmarkLine(MeasuredLine):
    """A policy's result on one benchmark; n = correct + wrong + undecided + unfinished.

    `reasons` counts why questions are undecided or unfinished.
    """

    benchmark: str
    wrong: Count
    undecided: Count
    unfinished: Count
    reasons: dict[str, Count] = Field(default_factory=dict)


class ComparisonLine(Record):
    """Two policies, a and b, on the same `n` questions: their accuracies, a minus b with its 95 %
    interval, how many questions only one answered correctly, and the paired test's p-value."""

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


def policy_lines(
    rows: Evaluations, pairs: Mapping[str, int], trained: Mapping[str, str] | None = None
) -> list[PolicyLine]:
    """One line for every policy, compared with SFT and with data-equal DPO.

    `pairs` gives the number of training pairs of each policy that was trained on pairs, `trained`
    says how a policy was trained where its name does not.
    """
    trained = trained or {}
    lines = []
    for name in rows:
        accuracy = summarise(rows[name])
        line = PolicyLine(
            policy=name,
            n=accuracy.n,
            accuracy=accuracy.accuracy,
            low=accuracy.low,
            high=accuracy.high,
            undecided=accuracy.undecided,
            unfinished=accuracy.unfinished,
            pairs=pairs.get(name),
            training=trained.get(name, ""),
            vs_sft=_difference(name, SFT, rows),
            vs_data_equal=None if name == SFT else _difference(name, DATA_EQUAL, rows),
        )
        lines.append(line)
    return lines


def breakdown_lines(rows: Evaluations, key: GroupBy) -> list[BreakdownLine]:
    """One line for every group (level, subject or data set) and policy; empty if the data has no
    such groups."""
    groups = {name: by(rows[name], key) for name in rows}
    names = dict.fromkeys(group for by_group in groups.values() for group in by_group)
    return [
        BreakdownLine(
            policy=policy,
            group=group,
            n=by_group[group].n,
            accuracy=by_group[group].accuracy,
            low=by_group[group].low,
            high=by_group[group].high,
        )
        for group in names
        for policy, by_group in groups.items()
        if group in by_group
    ]


def datasets(rows: Evaluations) -> list[str]:
    """The data sets of evaluated questions, in order of first occurrence."""
    return list(dict.fromkeys(row.dataset for answered in rows.values() for row in answered))


def of_dataset(rows: Sequence[Evaluation], dataset: str) -> list[Evaluation]:
    """The rows of one data set."""
    return [row for row in rows if row.dataset == dataset]


def benchmark_lines(policy: str, rows: Evaluations) -> list[BenchmarkLine]:
    """One line for every benchmark that a policy was measured on."""
    return [_benchmark_line(policy, name, rows[name]) for name in rows]


def _benchmark_line(policy: str, name: str, rows: Sequence[Evaluation]) -> BenchmarkLine:
    accuracy = summarise(rows)
    reasons = Counter(
        f"undecided ({row.verdict.reason})"
        if status(row) == "undecided"
        else f"unfinished ({row.finish})"
        for row in rows
        if status(row) in ("undecided", "unfinished")
    )
    return BenchmarkLine(
        policy=policy,
        benchmark=name,
        reasons=dict(reasons.most_common()),
        **accuracy.model_dump(exclude={"correct"}),
    )


def comparison_lines(compared: Sequence[Compared]) -> list[ComparisonLine]:
    """One line for every benchmark on which two policies were compared."""
    return [
        ComparisonLine(benchmark=pair.benchmark, **pair.comparison.model_dump())
        for pair in compared
    ]


def _difference(name: str, reference: str, rows: Evaluations) -> Difference | None:
    if name == reference or reference not in rows:
        return None
    comparison = compare(rows[name], rows[reference])
    return Difference(**comparison.model_dump(include={"difference", "low", "high", "p"}))
