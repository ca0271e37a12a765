"""Commands that complete the rows of a JSONL file: rows in, the same rows with more keys out.

`exec_rows` runs the code of each row in the sandbox, `grade_rows` judges the answer of each row.
Both write rows in the order of the input; an output file has a manifest beside it that says what
made its rows, and the same call resumes it after the last row. `driver.complete_rows` does what
they share.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

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

_HOMES = {
    "ExecSummary": "exec",
    "exec_rows": "exec",
    "exec_rows_async": "exec",
    "GradeSummary": "grade",
    "grade_rows": "grade",
    "grade_rows_async": "grade",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"scdpo.rowfiles.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
