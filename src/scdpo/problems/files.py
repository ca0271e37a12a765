"""Rows of benchmark files and of data sets on the Hugging Face hub, with where they stand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scdpo.errors import DataError, MissingDependency
from scdpo.problems.gold import Row

NumberedRow = tuple[int | None, Row]
"""A row and its 1-based line; None where the file is not read line by line."""


def find_file(folder: Path, patterns: Sequence[str], split: str) -> Path:
    """The file of `split` in a folder: the match of the first pattern that has one.

    Raises DataError where no pattern has a match or one has several.
    """
    wanted = [pattern.format(split=split) for pattern in patterns]
    for pattern in wanted:
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(path.name for path in found)
            raise DataError(f"several files for split {split!r} ({names}): name one", folder)
    there = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    raise DataError(f"no {' or '.join(wanted)} there (it holds {there})", folder)


def file_rows(path: Path) -> Iterator[NumberedRow]:
    """Rows of a JSON Lines file, of a JSON array of objects, or of a TSV with two columns.

    TSV files have no header; their rows get the keys `question` and `answer`. Raises DataError
    with the line for what is malformed.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path) from error
    if path.suffix == ".tsv":
        yield from _tsv_rows(raw, path)
    elif raw.lstrip().startswith(b"["):
        yield from _array_rows(raw, path)
    else:
        for line, text in _lines(raw, path):
            yield line, _json(text, path, line)


def _lines(raw: bytes, path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if line.strip():
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError("not UTF-8", path, number) from error


def _json(text: str, path: Path, line: int) -> Row:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise DataError(f"malformed JSON: {error}", path, line) from error
    if not isinstance(row, dict):
        raise DataError("a JSON object is expected", path, line)
    return row


def _array_rows(raw: bytes, path: Path) -> Iterator[NumberedRow]:
    try:
        rows = json.loads(raw)
    except json.JSONDecodeError as error:
        raise DataError(f"malformed JSON: {error.msg}", path, error.lineno) from error
    except ValueError as error:
        raise DataError(f"malformed JSON: {error}", path) from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"row {number}: a JSON object is expected", path)
        yield None, row


def _tsv_rows(raw: bytes, path: Path) -> Iterator[NumberedRow]:
    for line, text in _lines(raw, path):
        columns = text.rstrip("\r").split("\t")
        if len(columns) != 2:
            raise DataError(f"2 columns are expected, found {len(columns)}", path, line)
        yield line, {"question": columns[0], "answer": columns[1]}


def hub_rows(name: str, configs: Sequence[str], split: str) -> Iterator[NumberedRow]:
    """Rows of a data set on the Hugging Face hub.

    `configs` are the configurations wanted; a data set that does not have them all is read
    whole if it has a single one. Raises MissingDependency without the `datasets` extra, and
    DataError where the data set cannot be had.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingDependency("datasets", "datasets") from error
    number = 0
    for config in _chosen_configs(name, configs):
        # The library raises whatever its many backends raise: all of it means no data.
        try:
            rows: Any = datasets.load_dataset(name, config, split=split)
        except Exception as error:
            raise DataError(
                f"split {split!r} cannot be read: {_first_line(error)}", name
            ) from error
        for row in rows:
            number += 1
            yield number, row


def _chosen_configs(name: str, wanted: Sequence[str]) -> list[str]:
    import datasets

    try:
        there: list[str] = datasets.get_dataset_config_names(name)
    except Exception as error:
        raise DataError(
            f"no such path, and no such data set on the hub: {_first_line(error)}", name
        ) from error
    if wanted and set(wanted) <= set(there):
        return list(wanted)
    if len(there) == 1:
        return there
    expected = ", ".join(wanted) or "a single one"
    raise DataError(f"has configurations {', '.join(there)}; expected {expected}", name)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
