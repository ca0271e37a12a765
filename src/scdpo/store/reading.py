"""Reading JSONL files line by line, with errors that name path, line and field."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from pydantic import ValidationError

from scdpo.errors import DataError, short
from scdpo.errors.validation import explain
from scdpo.records import Record
from scdpo.store.full_disk import reason

R = TypeVar("R", bound=Record)


def read_json_rows(path: Path | str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file (gzip when it ends in .gz) with their line numbers from 1.

    Blank lines are skipped. Raises DataError for a missing file and for a line that is not a
    JSON object in UTF-8.
    """
    path = Path(path)
    for n, line in numbered_lines(path):
        yield n, object_of(line, path, n)


def read_jsonl(path: Path | str, cls: type[R]) -> Iterator[R]:
    """The records of a JSONL file (gzip when it ends in .gz); blank lines are skipped.

    Raises DataError naming path, line and field where a line is not a `cls`.
    """
    path = Path(path)
    for n, line in numbered_lines(path):
        yield record_of(cls, line, path, n)


def file_hash(path: Path | str) -> str:
    """SHA-256 of a file's bytes. Raises DataError when it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(reason(error), path) from error


def numbered_lines(path: Path, *, torn_tail: bool = False) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1, without the blank ones.

    With `torn_tail` a last line without a newline is left out too. Raises DataError when the
    file cannot be read.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for n, line in enumerate(cast("IO[bytes]", file), 1):
                if torn_tail and not line.endswith(b"\n"):
                    return
                line = line.removeprefix(b"\xef\xbb\xbf") if n == 1 else line
                if stripped := line.strip():
                    yield n, stripped
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(reason(error), path) from error


def object_of(
    line: bytes, path: Path, n: int, *, number: Callable[[str], object] | None = None
) -> dict[str, Any]:
    """A line as a JSON object; `path` and `n` are for the DataError that says why it is not one.

    `number` makes a value from each number's text, in place of int and float.
    """
    try:
        row = json.loads(line.decode(), parse_int=number, parse_float=number)
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 (byte {error.start + 1})", path, n) from error
    except ValueError as error:
        raise DataError(f"not JSON: {short(str(error), 100, quote=False)}", path, n) from error
    except RecursionError as error:
        raise DataError("not JSON: nested too deeply", path, n) from error
    if not isinstance(row, dict):
        raise DataError(f"not a JSON object: {short(row)}", path, n)
    return row


def record_of(cls: type[R], line: bytes, path: Path, n: int) -> R:
    """A line as a record. Raises DataError naming the field at fault."""
    try:
        return cls.model_validate_json(line)
    except ValidationError as error:
        object_of(line, path, n)  # its messages on bad UTF-8 and bad JSON are plainer
        raise DataError(f"{cls.__name__}: {explain(error, cls)}", path, n) from error


def values_of(
    row: Mapping[str, Any], fields: tuple[str, ...], path: Path, n: int
) -> tuple[object, ...]:
    """The values of some fields of a row. Raises DataError when one is missing."""
    try:
        return tuple(row[field] for field in fields)
    except KeyError as error:
        raise DataError(f"the row has no {error.args[0]}", path, n) from error
