"""The members of a JSON object, byte for byte, and numbers as they were written."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WrittenNumber:
    """A number in the digits of its row: a float would turn `0.10` into `0.1`, and Python reads
    no int of more than 4,300 digits."""

    text: str

    def __repr__(self) -> str:
        return self.text


_DECODER = json.JSONDecoder(parse_int=WrittenNumber, parse_float=WrittenNumber)
_SPACE = re.compile(r"[ \t\n\r]*")


def without(line: bytes, keys: Collection[str]) -> bytes:
    """A line with a JSON object, without the members of these keys; the others are unchanged."""
    text = line.decode()
    kept = []
    at = _after_space(text, 1)
    while text[at] != "}":
        start = at
        key, at = _DECODER.raw_decode(text, at)
        colon = _after_space(text, at)
        _, at = _DECODER.raw_decode(text, _after_space(text, colon + 1))
        if key not in keys:
            kept.append(text[start:at])
        at = _after_space(text, at)
        if text[at] == ",":
            at = _after_space(text, at + 1)
    return ("{" + ", ".join(kept) + "}").encode()


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()
