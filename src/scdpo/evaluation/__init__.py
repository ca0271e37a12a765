"""Accuracy of policies, with intervals, and paired comparisons on the same questions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdpo.lazy import lazy_names

if TYPE_CHECKING:
    from scdpo.evaluation.accuracy import (
        Accuracy,
        AnswerStatus,
        Comparison,
        GroupBy,
        by,
        compare,
        status,
        summarise,
    )
    from scdpo.evaluation.answered import Answered, Compared, compare_answered, read_answered
    from scdpo.evaluation.greedy import (
        EvaluateConfig,
        EvaluationReport,
        count_evaluations,
        evaluate,
        evaluate_async,
        evaluate_greedy,
    )
    from scdpo.evaluation.lines import (
        DATA_EQUAL,
        SFT,
        BenchmarkLine,
        BreakdownLine,
        ComparisonLine,
        Difference,
        Evaluations,
        MeasuredLine,
        PolicyLine,
        benchmark_lines,
        breakdown_lines,
        comparison_lines,
        policy_lines,
    )
    from scdpo.evaluation.significance import mcnemar_exact, paired_bootstrap, wilson_interval

_NAMES = {
    "accuracy": "Accuracy AnswerStatus Comparison GroupBy by compare status summarise",
    "answered": "Answered Compared compare_answered read_answered",
    "greedy": "EvaluateConfig EvaluationReport count_evaluations evaluate evaluate_async "
    "evaluate_greedy",
    "lines": "DATA_EQUAL SFT BenchmarkLine BreakdownLine ComparisonLine Difference Evaluations "
    "MeasuredLine PolicyLine benchmark_lines breakdown_lines comparison_lines policy_lines",
    "significance": "mcnemar_exact paired_bootstrap wilson_interval",
}

__all__ = [
    "DATA_EQUAL",
    "SFT",
    "Accuracy",
    "AnswerStatus",
    "Answered",
    "BenchmarkLine",
    "BreakdownLine",
    "Compared",
    "Comparison",
    "ComparisonLine",
    "Difference",
    "EvaluateConfig",
    "EvaluationReport",
    "Evaluations",
    "GroupBy",
    "MeasuredLine",
    "PolicyLine",
    "benchmark_lines",
    "breakdown_lines",
    "by",
    "compare",
    "compare_answered",
    "comparison_lines",
    "count_evaluations",
    "evaluate",
    "evaluate_async",
    "evaluate_greedy",
    "mcnemar_exact",
    "paired_bootstrap",
    "policy_lines",
    "read_answered",
    "status",
    "summarise",
    "wilson_interval",
]

__getattr__, __dir__ = lazy_names(__name__, _NAMES)
