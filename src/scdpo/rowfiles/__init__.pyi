from .exec import ExecSummary as ExecSummary
from .exec import exec_rows as exec_rows
from .exec import exec_rows_async as exec_rows_async
from .grade import GradeSummary as GradeSummary
from .grade import grade_rows as grade_rows
from .grade import grade_rows_async as grade_rows_async
