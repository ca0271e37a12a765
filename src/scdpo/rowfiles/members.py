"""The members of a JSON object, byte for byte, and numbers as they are written."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Number:
    """A number as a row writes it; no float holds `0.10`, and no int of Python's that is read
    from a text has more than 4,300 digits."""

    text: str

    def __repr__(self) -> str:
        return self.text


_DECODER = json.JSONDecoder(parse_int=Number, parse_float=Number)
_SPACE = re.compile(r"[ \t\n\r]*")


def without(line: bytes, keys: Collection[str]) -> bytes:
    """A whole JSON object without its members of these keys; the others stay as they are."""
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


def compact(value: object) -> bytes:
    """A value as JSON without spaces, in UTF-8."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair exists in JSON only as an escape
        return json.dumps(value, separators=(",", ":")).encode()


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()
