"""Commands that complete the rows of a JSONL file: rows in, the same rows with more keys out.

`exec_rows` runs the code of each row in the sandbox, `grade_rows` judges the answer of each row.
Both write rows in the order of the input; an output file has a manifest beside it that says what
made its rows, and the same call resumes it after the last row. `driver.complete_rows` does what
they share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdpo.lazy import lazy_names

if TYPE_CHECKING:
    from scdpo.rowfiles.exec import ExecSummary, exec_rows, exec_rows_async
    from scdpo.rowfiles.grade import GradeSummary, grade_rows, grade_rows_async

__all__ = [
    "ExecSummary",
    "GradeSummary",
    "exec_rows",
    "exec_rows_async",
    "grade_rows",
    "grade_rows_async",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "exec": "ExecSummary exec_rows exec_rows_async",
        "grade": "GradeSummary grade_rows grade_rows_async",
    },
)
