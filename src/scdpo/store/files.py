"""JSONL files of records, and files that appear whole or not at all."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from scdpo.errors import DataError, InputError, StorageFull, StoreError
from scdpo.records import Record

R = TypeVar("R", bound=Record)
M = TypeVar("M", bound=BaseModel)
Row = Record | Mapping[str, object]

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}


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

    Raises DataError naming path, line and field where the file is not what `cls` says.
    """
    path = Path(path)
    for n, line in numbered_lines(path):
        yield record_of(cls, line, path, n)


def write_jsonl(path: Path | str, rows: Iterable[Row]) -> int:
    """Write records or objects as JSONL (gzip when it ends in .gz); returns how many.

    The file appears whole or not at all. Raises StorageFull or StoreError.
    """
    path = Path(path)
    n = 0
    with _replacing(path) as raw:
        # mtime 0: equal rows make equal files.
        zipped = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if path.suffix == ".gz" else None
        out = cast("IO[bytes]", zipped or raw)
        for row in rows:
            line = row.model_dump_json().encode() if isinstance(row, Record) else _compact(row)
            out.write(line + b"\n")
            n += 1
        if zipped is not None:
            zipped.close()
    return n


def write_atomic(path: Path | str, data: bytes | str) -> None:
    """Write a file so that a reader, or a crash, sees the old or the new one and no mixture."""
    with _replacing(Path(path)) as out:
        out.write(data.encode() if isinstance(data, str) else data)


def file_hash(path: Path | str) -> str:
    """SHA-256 of a file's bytes. Raises DataError when it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(reason(error), path) from error


def validation_line(error: ValidationError) -> str:
    """A pydantic error as one line: the first field at fault, why, and what was found."""
    errors = error.errors(include_url=False, include_context=False)
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"][:1].lower() + first["msg"][1:]
    found = ""
    if first["type"] not in ("missing", "json_invalid"):
        found = f", found {short(first['input'])}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return " ".join(f"{where + ': ' if where else ''}{message}{found}{more}".split())


def settings_from_options(model: type[M], **options: object) -> M:
    """Settings from options of the command line by their fields' names; None leaves a default.

    Raises InputError naming the option.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        name, _, message = validation_line(error).partition(":")
        raise InputError(f"--{name.replace('_', '-')}:{message}") from error


def numbered_lines(path: Path, *, torn_tail: bool = False) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1; blank ones are left out, and with `torn_tail` a last line
    that has no newline. Raises DataError when the file cannot be read."""
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
    """A line as a JSON object; `path` and `n` are for the DataError that says why not.

    `number` makes a value of each number's text; int and float are made where it is not given.
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
    """A line as a record; raises DataError naming the field at fault."""
    try:
        return cls.model_validate_json(line)
    except ValidationError as error:
        object_of(line, path, n)  # its words on bad UTF-8 and bad JSON are plainer
        raise DataError(f"{cls.__name__}.{validation_line(error)}", path, n) from error


def values_of(
    row: Mapping[str, Any], fields: tuple[str, ...], path: Path, n: int
) -> tuple[object, ...]:
    """The values of some fields of a row; raises DataError when one is missing."""
    try:
        return tuple(row[field] for field in fields)
    except KeyError as error:
        raise DataError(f"the row has no {error.args[0]}", path, n) from error


def is_object(line: bytes) -> bool:
    """Whether a line is a whole JSON object."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def last_line_start(file: IO[bytes], end: int) -> int:
    """Where the last line begins, whether or not it is ended; reads backwards in blocks."""
    position = end - 1  # the last byte may be the line's own newline
    while position > 0:
        start = max(0, position - 2**16)
        file.seek(start)
        found = file.read(position - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0


def _compact(value: object) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)
    try:
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


def short(value: object, limit: int = 60, *, quote: bool = True) -> str:
    """A value cut to `limit` characters for a message."""
    text = repr(value) if quote else str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def reason(error: BaseException) -> str:
    """Why a file could not be used, in a few words."""
    match error:
        case FileNotFoundError():
            return "no such file"
        case IsADirectoryError():
            return "a folder, not a file"
        case gzip.BadGzipFile() | EOFError() | zlib.error():
            return f"not a whole gzip file ({error})"
        case OSError():
            return error.strerror or str(error)
    return str(error)


@contextmanager
def storage_errors(path: Path, kept: str) -> Iterator[None]:
    """Turn OSError into StorageFull (naming what was `kept`) or StoreError."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise StorageFull(
                f"{path}: {reason(error)}; {kept}, make room and run again"
            ) from error
        raise StoreError(f"{path}: {reason(error)}") from error


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` when the block ends well."""
    path = path.resolve()
    with storage_errors(path, "nothing was replaced"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            # A device or pipe is written to; renaming over it would destroy it.
            with path.open("wb") as out:
                yield out
            return
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            with temporary.open("wb") as out:
                yield out
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(path: Path) -> None:
    """Create a folder and those above it. Raises StoreError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreError(f"{path}: a file is in the way, a folder is needed") from error
    except OSError as error:
        raise StoreError(f"{path}: {reason(error)}") from error
