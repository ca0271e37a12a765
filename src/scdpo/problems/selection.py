"""Which problems of a source to take, and which questions two sets of problems share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from scdpo.errors import DataError
from scdpo.records import Problem

ID_KEYS = ("id", "problem_id")
"""Where a row of a JSONL file has a problem's id: in rows of problems, and in those of solutions,
pairs and evaluations."""

Ids = Sequence[str] | str | Path
"""Ids of problems, or a file of them: one a line, or JSONL rows with `id` or `problem_id`. A folder
stands for the JSONL files in it, as a stage of a run has them."""


def read_ids(ids: Ids) -> frozenset[str]:
    """The ids themselves. Raises DataError for a file that cannot be read or has no ids."""
    if not isinstance(ids, str | Path):
        return frozenset(ids)
    path = Path(ids)
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    found = frozenset(name for file in files for name in _ids(file))
    if not found:
        raise DataError("no ids in it", path)
    return found


def selected(
    problems: Sequence[Problem],
    *,
    offset: int | None = None,
    limit: int | None = None,
    ids: Ids | None = None,
    source: str,
) -> list[Problem]:
    """Those with one of the `ids`, without the first `offset` of them, at most `limit`, in order.

    Raises DataError for ids that no problem has and for an offset beyond the last problem.
    """
    kept = list(problems)
    if ids is not None:
        wanted = read_ids(ids)
        kept = [problem for problem in kept if problem.id in wanted]
        if missing := sorted(wanted - {problem.id for problem in kept}):
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise DataError(f"no problem with id {', '.join(missing[:3])}{more}", source)
    if offset and offset >= len(kept):
        raise DataError(f"offset {offset}: there are only {len(kept)} problems", source)
    start = offset or 0
    return kept[start : None if limit is None else start + limit]


def shared_questions(a: Iterable[Problem], b: Iterable[Problem]) -> int:
    """How many problems of `a` have a question that is also in `b`, spaces and case aside."""
    there = {_plain(problem.question) for problem in b}
    return sum(_plain(problem.question) in there for problem in a)


def _plain(question: str) -> str:
    return " ".join(question.casefold().split())


def _ids(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise DataError(f"ids cannot be read: {reason}", path) from error
    return [_id(line.strip(), path, n) for n, line in enumerate(lines, 1) if line.strip()]


def _id(line: str, path: Path, number: int) -> str:
    if not line.startswith("{"):
        return line
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"malformed JSON: {error}", path, number) from error
    for key in ID_KEYS[::-1]:
        if isinstance(value := row.get(key), str):
            return value
    raise DataError(f"no {' or '.join(ID_KEYS)} in it", path, number)
