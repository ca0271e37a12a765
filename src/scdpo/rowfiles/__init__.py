"""Commands that complete the rows of a JSONL file: rows in, the same rows with more keys out.

A `Source` is a file or a pipe that rows are read from. An `Output` takes the completed rows, in
the order of the input; an `OutputFile` is appended to, says in a manifest beside it what made its
rows, and is continued when the same command is called again. What is done to a row in between is
the command's own (`scdpo exec`, `scdpo grade`).
"""

from scdpo.rowfiles.members import Number, compact, without
from scdpo.rowfiles.output import Output, OutputFile, OutputManifest, open_output
from scdpo.rowfiles.source import Source
from scdpo.rowfiles.window import Window

__all__ = [
    "Number",
    "Output",
    "OutputFile",
    "OutputManifest",
    "Source",
    "Window",
    "compact",
    "open_output",
    "without",
]
