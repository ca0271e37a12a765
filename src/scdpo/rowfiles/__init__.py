"""Commands that complete the rows of a JSONL file: rows in, the same rows with more keys out.

`exec_rows` runs the code of each row in the sandbox, `grade_rows` judges the answer of each row.
Both write rows in the order of the input; an output file has a manifest beside it that says what
made its rows, and the same call resumes it after the last row. `driver.complete_rows` does what
they share.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
