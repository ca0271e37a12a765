"""The executor alone: sessions of code blocks in, what they showed out; no policy, no grading.

`execute` reads rows with `blocks` from a file or a pipe, runs every row's blocks in a sandbox
session of their own, many sessions side by side, and writes the same rows with `outputs` and
`cuts`, in their order.
"""

from scdpo.execute.run import Summary, execute

__all__ = ["Summary", "execute"]
