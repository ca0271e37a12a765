"""The rows of stages, problem by problem, with no more than one problem's rows in memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Generic, Self

from pydantic import BaseModel, ValidationError

from scdpo.errors import DataError
from scdpo.store.full_disk import reason
from scdpo.store.reading import R, record_of
from scdpo.store.stage import Stage

_FILE_BITS = 16
"""A place is an offset, and in its lowest bits the number of its file."""


class _Head(BaseModel):
    """The field by which rows are grouped; the rest of a line is passed over."""

    problem_id: str


class RowGroups(Generic[R]):
    """The rows of some stages by their `problem_id`; a context manager.

    One pass over the files finds where each problem's rows are (some 8 bytes of memory for a row
    and 200 for a problem); they are read when they are asked for. The constructor raises StoreError
    for a stage that was never started, and DataError for a malformed row.
    """

    def __init__(self, stages: Iterable[Stage], cls: type[R]):
        self._cls = cls
        self._paths = [path for stage in stages for path in stage.begun_shards()]
        self._places: dict[str, array[int]] = {}
        for number, path in enumerate(self._paths):
            for offset, problem in _heads(path, cls):
                places = self._places.setdefault(problem, array("Q"))
                places.append(offset << _FILE_BITS | number)
        self._stack = ExitStack()
        self._files: list[IO[bytes]] = []

    def __enter__(self) -> Self:
        self._files = [self._stack.enter_context(path.open("rb")) for path in self._paths]
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def problems(self) -> list[str]:
        """The problems that have rows, sorted."""
        return sorted(self._places)

    def of(self, problem: str) -> list[R]:
        """The rows of a problem, in the order of the stages and as they were written."""
        rows = []
        for place in self._places.get(problem, ()):
            number = place & ((1 << _FILE_BITS) - 1)
            file = self._files[number]
            file.seek(place >> _FILE_BITS)
            rows.append(record_of(self._cls, file.readline(), self._paths[number], 0))
        return rows

    def __iter__(self) -> Iterator[list[R]]:
        """The rows of every problem, sorted by problem."""
        return map(self.of, self.problems())


def _heads(path: Path, cls: type[R]) -> Iterator[tuple[int, str]]:
    """Where each row begins, and its problem; a last line still being written is left out."""
    offset = 0
    try:
        with path.open("rb") as file:
            for n, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                if not line.isspace():
                    yield offset, _problem(line, path, n, cls)
                offset += len(line)
    except OSError as error:
        raise DataError(reason(error), path) from error


def _problem(line: bytes, path: Path, n: int, cls: type[R]) -> str:
    try:
        return _Head.model_validate_json(line).problem_id
    except ValidationError:
        record_of(cls, line, path, n)  # says what is wrong
        raise
