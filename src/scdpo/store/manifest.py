"""What a stage's manifest holds, and how two configs differ."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field

from scdpo.errors import short
from scdpo.records import Record
from scdpo.store.encoding import canonical


class Manifest(Record):
    """What made a stage's rows. `seconds`, `cpu_seconds` and `resumes` add up over all processes.

    `cpu_seconds` is the CPU time of the process that wrote the rows, all its threads, without that
    of other processes; None for a stage that was begun before it was recorded.
    `inputs` maps what the stage read to its hash; `rows` counts lines; `repairs` counts torn
    last lines that were cut off; times are ISO 8601 in UTC.
    """

    stage: str
    status: Literal["running", "done"] = "running"
    config: dict[str, Any]
    config_hash: str
    inputs: dict[str, str]
    rows: int = 0
    counts: dict[str, int | float] = Field(default_factory=dict)
    output_hash: str | None = None
    seconds: float = 0.0
    cpu_seconds: float | None = None
    resumes: int = 0
    repairs: int = 0
    versions: dict[str, str] = Field(default_factory=dict)
    started: str
    updated: str


@lru_cache(maxsize=1)
def _versions() -> tuple[tuple[str, str], ...]:
    found = [("python", platform.python_version())]
    for name in ("scdpo", "torch", "transformers", "accelerate", "pydantic", "math-verify"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found.append((name, importlib.metadata.version(name)))
    return tuple(found)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape results, without importing them."""
    return dict(_versions())


def hash_text(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def changed_keys(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """`key old → new` for every leaf that differs, with dotted keys.

    A key that is missing equals one that is null: a setting that is added to the package, and that
    a recipe does not use, leaves old folders as they are.
    """
    before, after = dict(_leaves("", old)), dict(_leaves("", new))
    return [
        f"{key} {before.get(key, 'nothing')} → {after.get(key, 'nothing')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, "null") != after.get(key, "null")
    ]


def _leaves(prefix: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), inner)
    else:
        yield prefix, short(canonical(value), 60, quote=False)


def utc_now() -> str:
    """The time in ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
