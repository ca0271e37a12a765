"""Rows of sessions, and what is added to them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError

from scdpo.errors import DataError, short
from scdpo.records import Record
from scdpo.rowfiles import Number, OutputManifest, without
from scdpo.store import object_of

Reason = Literal["", "deadline", "memory", "output", "died", "not run"]
"""What became of a block: `sandbox.Cut`, or `not run` after one that ended the session."""
_ADDED = ("outputs", "cuts")


class Executed(Record):
    """What a row gains: one output and one reason (see `Reason`) for each of its blocks."""

    outputs: tuple[str, ...]
    cuts: tuple[Reason, ...]


class ExecManifest(OutputManifest):
    """What made the rows of sessions: the sandbox's settings, and what each sandbox obtained,
    without repeats; `cuts` counts blocks by reason."""

    sandbox: dict[str, Any]
    isolation: tuple[str, ...] = ()
    blocks: int = 0
    cuts: dict[str, int] = Field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """The sandbox's settings."""
        return self.sandbox

    def begun(self, note: str) -> Self:
        """`note` is the isolation that a sandbox has obtained now."""
        known = self.isolation if note in self.isolation else (*self.isolation, note)
        return super().begun(note).model_copy(update={"isolation": known})


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows, blocks, and blocks by the reason for which they were cut."""

    rows: int = 0
    blocks: int = 0
    cuts: Counter[str] = field(default_factory=Counter)

    def plus(self, other: Tally) -> Tally:
        """Both counts together."""
        cuts = self.cuts + other.cuts
        return Tally(self.rows + other.rows, self.blocks + other.blocks, cuts)

    def fields(self) -> dict[str, Any]:
        """The counts as fields of the manifest."""
        return {"rows": self.rows, "blocks": self.blocks, "cuts": dict(self.cuts)}


def tally_of(cuts: tuple[Reason, ...]) -> Tally:
    """One row, given the reasons of its blocks."""
    return Tally(1, len(cuts), Counter(cut for cut in cuts if cut))


@dataclass(frozen=True, slots=True)
class Row:
    """One session to run: line `n` (from 1) of the input.

    `head` is the line without its closing brace, and without `outputs` and `cuts` where it had
    them: the other keys are written again byte for byte.
    """

    n: int
    head: bytes
    blocks: tuple[str, ...]

    def line(self, executed: Executed) -> bytes:
        """The row with what was added, as a line of the output."""
        return self.head + b"," + executed.model_dump_json().encode()[1:] + b"\n"

    def tally(self, line: bytes) -> Tally | None:
        """What a line of an output file counts for; None where it is not this row's."""
        if not line.startswith(self.start):
            return None
        try:
            found = Executed.model_validate_json(b"{" + line[len(self.head) + 1 :])
        except ValidationError:
            return None
        same = len(found.outputs) == len(found.cuts) == len(self.blocks)
        return tally_of(found.cuts) if same else None

    @property
    def start(self) -> bytes:
        """What the row's line begins with, whatever its blocks show."""
        return self.head + b',"outputs":'


def row_of(line: bytes, path: Path, n: int) -> Row:
    """A line as a row; `path` and `n` are for the DataError that says why it is none."""
    found = object_of(line, path, n, number=Number)
    if "blocks" not in found:
        raise DataError("no blocks: a list of strings is expected there", path, n)
    blocks = found["blocks"]
    if not isinstance(blocks, list):
        raise DataError(f"blocks: a list of strings is expected, found {short(blocks)}", path, n)
    for i, block in enumerate(blocks):
        if not isinstance(block, str):
            raise DataError(f"blocks[{i}]: a string is expected, found {short(block)}", path, n)
    if any(key in found for key in _ADDED):
        line = without(line, _ADDED)
    return Row(n, line[:-1].rstrip(), tuple(blocks))
