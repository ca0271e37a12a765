"""What the list, the filter and the tree need of every row, by column."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

QUESTION_CHARS = 300
"""A question is in the list up to this length."""
_ANSWER_CHARS = 120


def _ints() -> array[int]:
    return array("q")


def _floats() -> array[float]:
    return array("d")


class Names:
    """Names by the order in which they came: a column then holds numbers."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def code(self, name: str) -> int:
        """The number of a name."""
        return self.known.setdefault(name, len(self.known))


@dataclass(slots=True)
class Problems:
    """A column for each field of a problem that is listed."""

    id: list[str] = field(default_factory=list)
    part: list[str] = field(default_factory=list)
    dataset: list[str] = field(default_factory=list)
    question: list[str] = field(default_factory=list)
    answer: list[str | None] = field(default_factory=list)
    level: list[str | None] = field(default_factory=list)
    subject: list[str | None] = field(default_factory=list)

    def add(self, part: str, row: Json) -> None:
        """Add a problem."""
        self.id.append(str(row["id"]))
        self.part.append(part)
        self.dataset.append(str(row.get("dataset", "")))
        self.question.append(str(row.get("question", ""))[:QUESTION_CHARS])
        answer = row.get("answer")
        self.answer.append(None if answer is None else str(answer)[:_ANSWER_CHARS])
        self.level.append(_text(row.get("level")))
        self.subject.append(_text(row.get("subject")))


@dataclass(slots=True)
class Rows:
    """A column for each field of a solution or evaluation that can be filtered by.

    `parent` is a row, -1 for none; `temperature` and `mean_logp` are NaN if not known.
    """

    stage: array[int] = field(default_factory=_ints)
    problem: array[int] = field(default_factory=_ints)
    id: list[str] = field(default_factory=list)
    policy: array[int] = field(default_factory=_ints)
    parent: array[int] = field(default_factory=_ints)
    k: array[int] = field(default_factory=_ints)
    verdict: array[int] = field(default_factory=_ints)
    finish: array[int] = field(default_factory=_ints)
    flags: array[int] = field(default_factory=_ints)
    attempt: array[int] = field(default_factory=_ints)
    steps: array[int] = field(default_factory=_ints)
    tokens: array[int] = field(default_factory=_ints)
    temperature: array[float] = field(default_factory=_floats)
    mean_logp: array[float] = field(default_factory=_floats)
    answer: list[str | None] = field(default_factory=list)


@dataclass(slots=True)
class Pairs:
    """A column for each field of a pair; `chosen` and `rejected` are rows, -1 if unknown."""

    stage: array[int] = field(default_factory=_ints)
    chosen: array[int] = field(default_factory=_ints)
    rejected: array[int] = field(default_factory=_ints)
    k: array[int] = field(default_factory=_ints)


@dataclass(slots=True)
class Credits:
    """Which solutions have token credit of which policies."""

    row: array[int] = field(default_factory=_ints)
    policy: array[int] = field(default_factory=_ints)


Table = Problems | Rows | Pairs | Credits


def since(table: Table, start: int) -> dict[str, list[Any]]:
    """All columns from a row on, as JSON values."""
    found = {}
    for name in table.__slots__:
        part = getattr(table, name)[start:]
        if isinstance(part, array):
            values: list[Any] = part.tolist()
            part = [None if v != v else v for v in values] if part.typecode == "d" else values
        found[name] = part
    return found


def size(table: Table) -> int:
    """How many rows a table has."""
    return len(getattr(table, table.__slots__[0]))


@dataclass(frozen=True, slots=True)
class Sampled:
    """What the steps of a row say about sampling, over the steps that are its own."""

    tokens: int
    temperature: float
    mean_logp: float


def sampled(steps: Sequence[Json], k: int) -> Sampled:
    """Tokens of all steps; temperature of the first step after k, mean log-prob after k."""
    tokens = sum(len(step.get("token_ids") or ()) for step in steps)
    own = steps[k:]
    temperature = next((t for s in own if (t := s.get("temperature")) is not None), float("nan"))
    weights = [
        (len(step.get("token_ids") or ()) or 1, mean)
        for step in own
        if (mean := step.get("mean_logp")) is not None
    ]
    total = sum(weight for weight, _ in weights)
    mean = sum(w * m for w, m in weights) / total if total else float("nan")
    return Sampled(tokens, float(temperature), round(mean, 4))


def short_answer(answer: object) -> str | None:
    """An answer for the list."""
    return None if answer is None else str(answer)[:_ANSWER_CHARS]


def _text(value: object) -> str | None:
    return None if value is None else str(value)
