"""Final answers: finding them in a solution's text, and judging them against the gold answer."""

from scdpo.grading.extraction import final_answer
from scdpo.grading.grader import Grader, GradingConfig

__all__ = ["Grader", "GradingConfig", "final_answer"]
