"""What can be wrong with an answer of a server."""

from __future__ import annotations

from typing import Literal

FaultName = Literal[
    "unreachable", "cut", "deadline", "busy", "status", "garbled", "aborted", "ids", "text", "logps"
]
"""`unreachable`: no connection. `cut`: it ended before the answer. `deadline`: no answer in time.
`busy`: status 429 or 503. `status`: another error of the server (5xx, 408). `garbled`: no JSON, or
not that of a completion. `aborted`: a completion that ends where nothing ends it. `ids`: token ids
are missing, or are those of another prompt. `text`: a text that its ids do not decode to. `logps`:
missing log-probs."""


class ServerFault(Exception):
    """A failed try: the request is asked again, since it is no answer to it.

    `wait` is how long the server asks to be left alone, in seconds.
    """

    def __init__(self, name: FaultName, message: str, *, wait: float = 0.0):
        super().__init__(message)
        self.name: FaultName = name
        self.wait = wait
