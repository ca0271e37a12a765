"""Rows with answers to judge, and what is added to them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import Field

from scdpo.errors import DataError
from scdpo.records import Verdict, VerdictName
from scdpo.rowfiles import Number, OutputManifest, compact, without
from scdpo.store.files import object_of, short

_ADDED = ("verdict", "reason")
_FOUND = "found"
_EXPECTED = "a text or a number"


class MarkManifest(OutputManifest):
    """What made the verdicts: the grader's settings; rows by verdict, and undecided ones by
    reason."""

    grading: dict[str, Any]
    verdicts: dict[str, int] = Field(default_factory=dict)
    reasons: dict[str, int] = Field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """The grader's settings."""
        return self.grading


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows, rows by verdict, and undecided ones by reason."""

    rows: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def plus(self, other: Tally) -> Tally:
        """Both counts together."""
        return Tally(
            self.rows + other.rows, self.verdicts + other.verdicts, self.reasons + other.reasons
        )

    def fields(self) -> dict[str, Any]:
        """The counts as fields of the manifest."""
        verdicts, reasons = dict(self.verdicts), dict(self.reasons.most_common())
        return {"rows": self.rows, "verdicts": verdicts, "reasons": reasons}


def tally_of(verdicts: Sequence[Verdict]) -> Tally:
    """Count rows, given their verdicts."""
    return Tally(
        len(verdicts),
        Counter(verdict.name for verdict in verdicts),
        Counter(verdict.reason for verdict in verdicts if verdict.name == "undecided"),
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One answer to judge: line `n` (from 1) of the input.

    `head` is the line without its closing brace, and without the keys that are added to it: the
    others are written again byte for byte. `text` is the prediction as it stands (None is no
    answer), or the solution to find the answer in, as `is_solution` says. `several`: the question
    asks for several values, and the gold answer is one of them.
    """

    n: int
    head: bytes
    golds: tuple[str, ...]
    text: str | None
    is_solution: bool
    several: bool = False

    def line(self, verdict: Verdict, answer: str | None) -> bytes:
        """The row with its verdict, as a line of the output."""
        added: dict[str, object] = {"verdict": verdict.name, "reason": verdict.reason}
        if self.is_solution:
            added[_FOUND] = answer
        return self.head + b"," + compact(added)[1:] + b"\n"

    def tally(self, line: bytes) -> Tally | None:
        """What a line of an output file counts for; None where it is not this row's."""
        if not line.startswith(self.start):
            return None
        try:
            added = json.loads(b"{" + line[len(self.head) + 1 :])
        except ValueError:
            return None
        keys = (*_ADDED, _FOUND) if self.is_solution else _ADDED
        name, reason = added.get("verdict"), added.get("reason")
        if tuple(added) != keys or name not in get_args(VerdictName) or not isinstance(reason, str):
            return None
        return tally_of([Verdict(name=name, reason=reason)])

    @property
    def start(self) -> bytes:
        """What the row's line begins with, whatever its verdict is."""
        return self.head + b',"verdict":'


def row_of(line: bytes, path: Path, n: int) -> Row:
    """A line as a row; `path` and `n` are for the DataError that says why it is none."""
    found = object_of(line, path, n, number=Number)
    if "answer" not in found:
        raise DataError(f"no answer: {_EXPECTED} is expected there, or a list", path, n)
    is_solution = "prediction" not in found
    if is_solution and "solution" not in found:
        raise DataError("neither a solution nor a prediction", path, n)
    golds = found["answer"] if isinstance(found["answer"], list) else [found["answer"]]
    if not golds:
        raise DataError("answer: the list is empty", path, n)
    if is_solution:
        text = found["solution"]
        if text is not None and not isinstance(text, str):
            raise DataError(f"solution: a text is expected, found {short(text)}", path, n)
    else:
        text = _prediction(found["prediction"], path, n)
    several = found.get("several", False)
    if not isinstance(several, bool):
        raise DataError(f"several: true or false is expected, found {short(several)}", path, n)
    keys = (*_ADDED, _FOUND) if is_solution else _ADDED
    if any(key in found for key in keys):
        line = without(line, keys)
    answers = tuple(_gold(gold, path, n) for gold in golds)
    return Row(n, line[:-1].rstrip(), answers, text, is_solution, several)


def _gold(value: object, path: Path, n: int) -> str:
    """A gold answer; a missing one is empty, which the grader leaves undecided."""
    text = value.text if isinstance(value, Number) else "" if value is None else value
    if not isinstance(text, str):
        raise DataError(f"answer: {_EXPECTED} is expected, found {short(value)}", path, n)
    return text


def _prediction(value: object, path: Path, n: int) -> str | None:
    if isinstance(value, Number):
        return value.text
    if isinstance(value, float):
        # NaN is how tables write a missing value, so it is none; infinity is an answer.
        return None if value != value else "-\\infty" if value < 0 else "\\infty"
    if value is None or isinstance(value, str):
        return value
    raise DataError(f"prediction: {_EXPECTED} or null is expected, found {short(value)}", path, n)
