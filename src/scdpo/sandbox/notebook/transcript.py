"""What a block prints: two text streams that write to the same descriptor."""

from __future__ import annotations

import io
from collections import deque
from os import set_blocking as _set_blocking
from os import write as _write

_CHUNK = 1 << 16
_MAX_HELD = 1000


class Transcript:
    """Passes text on to a descriptor line by line, and knows whether a line is unfinished."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.open_line = False
        # Threads may print too: use only operations that are atomic in the interpreter.
        self._held: deque[str] = deque()

    def write(self, text: str, now: bool = False) -> None:
        """Add text, which is written at the end of its line, or immediately if `now`."""
        if text:
            self._held.append(text)
            self.open_line = not text.endswith("\n")
            long = len(text) > _MAX_HELD or len(self._held) > _MAX_HELD
            if now or long or "\n" in text:
                self.flush()

    def show(self, text: str) -> None:
        """Write text on lines of its own."""
        start = "\n" if self.open_line else ""
        self.write(f"{start}{text}\n", now=True)

    def flush(self) -> None:
        """Write all text that is held. Raises OSError if the descriptor is gone."""
        parts = []
        try:
            while self._held:
                parts.append(self._held.popleft())
        except IndexError:
            # Another thread was faster.
            pass
        text = "".join(parts)
        for start in range(0, len(text), _CHUNK):
            data = text[start : start + _CHUNK].encode("utf-8", "backslashreplace")
            while data:
                try:
                    data = data[_write(self.fd, data) :]
                except BlockingIOError:
                    # Code may have made descriptor 1 non-blocking, which is the same pipe.
                    _set_blocking(self.fd, True)


class OutStream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of a notebook: accepts only text, and cannot be closed."""

    encoding = "UTF-8"
    errors = "backslashreplace"

    def __init__(self, transcript: Transcript, name: str, fd: int, *, hold: bool) -> None:
        self.name = name
        self._transcript = transcript
        self._fd = fd
        self._hold = hold

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text)}")
        self._transcript.write(text, not self._hold)
        return len(text)

    def flush(self) -> None:
        self._transcript.flush()

    def close(self) -> None:
        self.flush()

    def fileno(self) -> int:
        return self._fd

    def writable(self) -> bool:
        return True


# The name that code in a notebook sees.
OutStream.__module__ = "ipykernel.iostream"
