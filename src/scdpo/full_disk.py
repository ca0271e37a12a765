"""Tell a full disk from other failures, whichever library met it."""

from __future__ import annotations

import errno
from collections.abc import Iterator

_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
# safetensors passes on the system's words; torch's writer of checkpoints says only that a write
# failed, in the words of the C++ library or of its own consistency check.
_WORDS = ("No space left", "quota exceeded", "PytorchStreamWriter failed", "iostream error")


def is_full_disk(error: BaseException) -> bool:
    """Whether an error, or one behind it, says that the disk or a quota takes no more."""
    return any(
        (isinstance(one, OSError) and one.errno in _ERRNOS)
        or any(word in str(one) for word in _WORDS)
        for one in _chain(error)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was raised from or while handling."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__]
