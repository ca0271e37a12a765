"""Values as JSON text: compact for rows, canonical for comparing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from scdpo.records import Record

Row = Record | Mapping[str, object]


def json_line(row: Row) -> bytes:
    """A record (defaults included) or an object as a line of a JSONL file."""
    text = row.model_dump_json().encode() if isinstance(row, Record) else compact(row)
    return text + b"\n"


def compact(value: object) -> bytes:
    """A value as JSON without spaces, in UTF-8."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)
        return text.encode()
    except UnicodeEncodeError:  # half a surrogate pair exists in JSON only as an escape
        return json.dumps(value, separators=(",", ":"), default=_plain).encode()


def canonical(value: object) -> str:
    """JSON with sorted keys: equal values give equal text."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not a JSON value")
