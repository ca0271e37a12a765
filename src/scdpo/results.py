"""From the rows of evaluations to the lines of the tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from scdpo.evaluation.accuracy import GroupBy, by, compare, outcome, summarise
from scdpo.evaluation.answered import Compared
from scdpo.records import Evaluation
from scdpo.report import BenchmarkLine, BreakdownLine, ComparisonLine, Difference, PolicyLine

SFT = "sft"
"""The initial policy's name in a run."""
DATA_EQUAL = "dpo_equal"
"""The control that SCDPO is compared with: as many pairs, all of them naive."""

Evaluations = Mapping[str, Sequence[Evaluation]]
"""The rows of each evaluated policy, on the same questions."""


def policy_lines(rows: Evaluations, pairs: Mapping[str, int]) -> list[PolicyLine]:
    """One line for every policy, compared with SFT and with data-equal DPO.

    `pairs` has the number of pairs of every policy that was trained on some.
    """
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
            vs_sft=_difference(name, SFT, rows),
            vs_data_equal=None if name == SFT else _difference(name, DATA_EQUAL, rows),
        )
        lines.append(line)
    return lines


def breakdown_lines(rows: Evaluations, key: GroupBy) -> list[BreakdownLine]:
    """One line for every group (level, subject or data set) and policy; none where the data has
    no such groups."""
    groups = {name: by(rows[name], key) for name in rows}
    names = dict.fromkeys(group for found in groups.values() for group in found)
    return [
        BreakdownLine(
            policy=policy,
            group=group,
            n=found[group].n,
            accuracy=found[group].accuracy,
            low=found[group].low,
            high=found[group].high,
        )
        for group in names
        for policy, found in groups.items()
        if group in found
    ]


def benchmark_lines(policy: str, rows: Evaluations) -> list[BenchmarkLine]:
    """One line for every benchmark that a policy was measured on."""
    return [_benchmark_line(policy, name, rows[name]) for name in rows]


def _benchmark_line(policy: str, name: str, rows: Sequence[Evaluation]) -> BenchmarkLine:
    accuracy = summarise(rows)
    reasons = Counter(
        f"undecided ({row.verdict.reason})"
        if outcome(row) == "undecided"
        else f"unfinished ({row.finish})"
        for row in rows
        if outcome(row) in ("undecided", "unfinished")
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
        ComparisonLine(benchmark=one.benchmark, **one.comparison.model_dump()) for one in compared
    ]


def _difference(name: str, other: str, rows: Evaluations) -> Difference | None:
    if name == other or other not in rows:
        return None
    comparison = compare(rows[name], rows[other])
    return Difference(**comparison.model_dump(include={"difference", "low", "high", "p"}))
