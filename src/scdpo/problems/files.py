"""Rows of benchmark files and of data sets on the Hugging Face hub, with their line numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scdpo.errors import DataError, MissingDependency
from scdpo.problems.gold import Row

NumberedRow = tuple[int | None, Row]
"""A row with its 1-based line (of a hub data set: row), or None for a row of a JSON array."""


def find_file(folder: Path, patterns: Sequence[str], split: str) -> Path:
    """The file of `split` in a folder: the match of the first pattern that has any.

    Raises DataError if no pattern matches, or if that pattern matches several files.
    """
    wanted = [pattern.format(split=split) for pattern in patterns]
    for pattern in wanted:
        matches = sorted(folder.glob(pattern))
        if len(matches) == 1:
            return matches[0]
        if matches:
            names = ", ".join(path.name for path in matches)
            raise DataError(f"several files for split {split!r} ({names}): name one", folder)
    there = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    raise DataError(f"no {' or '.join(wanted)} in it (it holds {there})", folder)


def file_rows(path: Path) -> Iterator[NumberedRow]:
    """Rows of a JSON Lines file, a JSON array of objects, or a TSV file with two columns.

    TSV files have no header; their rows get the keys `question` and `answer`. Raises DataError
    with the line for malformed content.
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
        raise DataError("expected a JSON object", path, line)
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
            raise DataError(f"row {number}: expected a JSON object", path)
        yield None, row


def _tsv_rows(raw: bytes, path: Path) -> Iterator[NumberedRow]:
    for line, text in _lines(raw, path):
        columns = text.rstrip("\r").split("\t")
        if len(columns) != 2:
            raise DataError(f"expected 2 columns, found {len(columns)}", path, line)
        yield line, {"question": columns[0], "answer": columns[1]}


def hub_rows(name: str, configs: Sequence[str], split: str) -> Iterator[NumberedRow]:
    """Rows of a data set on the Hugging Face hub.

    `configs` are the configurations to read. If the data set lacks any of them but has a single
    configuration, that is read instead. Raises MissingDependency without the extra `datasets`,
    and DataError if the data set cannot be read.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingDependency(
            f"{name}: no such file or folder; to read it as a data set on the hub, datasets",
            "datasets",
        ) from error
    number = 0
    for config in _chosen_configs(name, configs):
        # The library raises whatever its many backends raise; any of it means no data.
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
            f"neither a path nor a data set on the hub: {_first_line(error)}", name
        ) from error
    if wanted and set(wanted) <= set(there):
        return list(wanted)
    if len(there) == 1:
        return there
    expected = ", ".join(wanted) or "a single configuration"
    raise DataError(f"has configurations {', '.join(there)}; expected {expected}", name)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
