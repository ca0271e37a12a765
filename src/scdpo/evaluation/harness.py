"""Samples that lm-evaluation-harness logs (`--log_samples`): `samples_TASK_DATE.jsonl`.

A row has `doc_id`, `doc` (the question as its data set has it), `target`, `resps`,
`filtered_resps`, `filter`, `metrics` and one key for each metric. A task with several filters
(GSM8K: `strict-match`, `flexible-extract`) has a row for each of them and question.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scdpo.errors import DataError, InputError, short
from scdpo.records import CORRECT, WRONG, Evaluation
from scdpo.store import canonical, read_json_rows

PATTERN = "samples_*.jsonl"
_NAME = re.compile(r"samples_(?P<task>.+?)_(?P<date>\d{4}-\d\d-\d\dT[\d:.-]+)")
_QUESTION = ("question", "problem", "query", "Question", "original_text", "input", "text")
"""Where tasks keep the question in `doc`."""
_NOT_METRICS = {
    *("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"),
    *("doc_hash", "prompt_hash", "target_hash", "schema_version"),
}

Questions = dict[tuple[str, str], str]
"""The text of a question by data set and problem id."""


def is_sample(row: Mapping[str, Any]) -> bool:
    """Whether a row was logged by lm-evaluation-harness."""
    return "doc_id" in row and "doc" in row and "resps" in row


def sample_files(folder: Path) -> list[Path]:
    """The newest file of each task, in the folder that `--output_path` named or the model's in it.

    Raises InputError where it holds several models.
    """
    found = sorted(folder.glob(PATTERN))
    if not found:
        below = {path.parent for path in folder.glob(f"*/{PATTERN}")}
        if len(below) > 1:
            names = ", ".join(sorted(str(path) for path in below))
            raise InputError(f"{folder} has samples of several models; name one of {names}")
        found = sorted(path for place in below for path in place.glob(PATTERN))
    newest: dict[str, Path] = {}
    for path in sorted(found, key=lambda p: _named(p)[1]):
        newest[_named(path)[0]] = path
    return list(newest.values())


def read_samples(
    path: Path, metric: str | None = None, filter_: str | None = None
) -> tuple[list[Evaluation], Questions]:
    """The rows of a file as evaluations of the data set TASK, and their questions.

    A question is right where the metric is 1 and wrong where it is 0. Raises InputError where
    the file has several metrics or filters and none is chosen, DataError for malformed rows.
    """
    rows = [(n, row) for n, row in read_json_rows(path) if _checked(row, path, n)]
    wanted = _chosen(filter_, dict.fromkeys(_filter(row) for _, row in rows), "filter", path)
    rows = [(n, row) for n, row in rows if _filter(row) == wanted]
    names = _chosen(metric, dict.fromkeys(m for _, row in rows for m in _metrics(row)), "metric",
                    path)  # fmt: skip
    task = _named(path)[0]
    found = [_evaluation(row, task, names, path, n) for n, row in rows]
    questions = {
        (task, one.problem_id): text
        for one, (_, row) in zip(found, rows, strict=True)
        if (text := _question(row["doc"]))
    }
    return found, questions


def _evaluation(row: dict[str, Any], task: str, metric: str, path: Path, n: int) -> Evaluation:
    value = row.get(metric)
    if value not in (0, 1):
        raise DataError(f"{metric}: expected 1 (right) or 0 (wrong), found {short(value)}", path, n)
    hashed = row.get("doc_hash")
    mark = f":{hashed[:12]}" if isinstance(hashed, str) else ""
    return Evaluation(
        problem_id=f"{row['doc_id']}{mark}",
        dataset=task,
        policy=path.parent.name or path.stem,
        gold=row["target"] if isinstance(row["target"], str) else canonical(row["target"]),
        answer=_text(row.get("filtered_resps")),
        verdict=CORRECT if value else WRONG,
        finish="finished",
        n_steps=0,
        n_tokens=0,
        text=_text(row["resps"]) or "",
    )


def _checked(row: dict[str, Any], path: Path, n: int) -> bool:
    if not is_sample(row) or "target" not in row:
        raise DataError("not a row of lm-evaluation-harness (doc_id, doc, target, resps)", path, n)
    return True


def _chosen(given: str | None, known: Iterable[str], what: str, path: Path) -> str:
    """The metric or filter to read: the only one, or that which the user chose."""
    names = list(known)
    if len(names) == 1:
        return names[0]
    if given in names:
        return given
    if not names:
        raise InputError(f"{path}: no {what} in it that says right (1) or wrong (0)")
    chosen = "" if given is None else f"no {what} {given!r}; "
    raise InputError(f"{path}: {chosen}choose with --{what} one of {', '.join(names)}")


def _filter(row: Mapping[str, Any]) -> str:
    return str(row.get("filter", "none"))


def _metrics(row: Mapping[str, Any]) -> list[str]:
    """The metrics of a row that are 0 or 1; older versions do not list them."""
    names = row.get("metrics") or [name for name in row if name not in _NOT_METRICS]
    return [
        name for name in names if isinstance(row.get(name), (int, float)) and row[name] in (0, 1)
    ]


def _question(doc: object) -> str:
    if isinstance(doc, Mapping):
        for key in _QUESTION:
            if isinstance(text := doc.get(key), str):
                return text
    return ""


def _text(value: object) -> str | None:
    """The first text in nested lists."""
    while isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, str) else None


def _named(path: Path) -> tuple[str, str]:
    """Task and date of a file."""
    if found := _NAME.fullmatch(path.stem):
        return found["task"], found["date"]
    return path.stem.removeprefix("samples_"), ""
