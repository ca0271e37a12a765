"""Final answers: finding them in a solution's text, and judging them against the gold answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdpo.lazy import lazy_names

if TYPE_CHECKING:
    from scdpo.grading.extraction import final_answer
    from scdpo.grading.grader import Grader, GradingConfig
    from scdpo.grading.judging import Claim, Judgement, grade, grade_async, judge

_NAMES = {
    "extraction": "final_answer",
    "grader": "Grader GradingConfig",
    "judging": "Claim Judgement grade grade_async judge",
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

__getattr__, __dir__ = lazy_names(__name__, _NAMES)
