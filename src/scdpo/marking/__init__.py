"""The grader alone: rows with a gold answer and a solution or prediction in, verdicts out.

`mark` reads rows from a file or a pipe, judges every one, and writes the same rows with `verdict`
and `reason` (and `found`, the answer that a solution states), in their order.
"""

from scdpo.marking.run import Summary, mark

__all__ = ["Summary", "mark"]
