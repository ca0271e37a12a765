"""Final answers: finding them in a solution's text, and judging them against the gold answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scdpo.grading.extraction import final_answer
    from scdpo.grading.grader import Grader, GradingConfig
    from scdpo.grading.judging import Claim, Judgement, grade, grade_async, judge

_HOMES = {
    "Claim": "judging",
    "Grader": "grader",
    "GradingConfig": "grader",
    "Judgement": "judging",
    "final_answer": "extraction",
    "grade": "judging",
    "grade_async": "judging",
    "judge": "judging",
}

__all__ = [
    "Claim",
    "Grader",
    "GradingConfig",
    "Judgement",
    "final_answer",
    "grade",
    "grade_async",
    "judge",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
