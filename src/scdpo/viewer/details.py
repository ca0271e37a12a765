"""Everything about one problem: its solutions with their texts, its evaluations, its token credit.

Ids are left out, and the steps that a branch shares with its parent are sent once, so that a
problem's tree is small.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scdpo.errors import DataError, InputError, short
from scdpo.viewer.columns import Json
from scdpo.viewer.index import Content, Index

_STEP_KEYS = ("kind", "text", "output", "cut", "host_text", "temperature", "mean_logp")
_ROW_KEYS = ("format", "seed", "verdict", "answer", "flags", "gold", "text")


def problem_details(index: Index, number: int) -> Json:
    """A problem's row, its rows in the order of the index, and their token credit.

    `rows` has an entry for each solution or evaluation: `row` is its number in the table of rows,
    and of a branch `steps` are those after the first `shared` ones of its parent. `credit` has an
    entry for each solution and policy. `missing` says why a row could not be read. Raises
    InputError for a problem that is not there.
    """
    content = index.content
    if not 0 <= number < len(content.problems.id):
        raise InputError(f"no problem {number}")
    found: Json = {"problem": {}, "prompt": "", "rows": [], "credit": [], "missing": ""}
    if content.places["problems"].shard[number] >= 0:
        found["problem"] = _read(index, content, "problems", number, found)
    steps: dict[int, Sequence[Json]] = {}
    for row_number in content.rows_of[number]:
        row = _read(index, content, "rows", row_number, found)
        found["prompt"] = found["prompt"] or row.get("prompt", "")
        found["problem"].setdefault("question", row.get("question"))
        found["rows"].append(_shown(content, row_number, row, steps))
        for place in content.credit_of.get(row_number, ()):
            credit = _credit(_read(index, content, "credit", place, found))
            found["credit"].append({"row": row_number, **credit})
    return found


def _read(index: Index, content: Content, table: str, number: int, found: Json) -> Json:
    try:
        return index.row_at(content, table, number)
    except DataError as error:
        found["missing"] = short(str(error), 300, quote=False)
        return {}


def _shown(content: Content, number: int, row: Json, steps: dict[int, Sequence[Json]]) -> Json:
    shown: Json = {"row": number} | {key: row[key] for key in _ROW_KEYS if key in row}
    if "steps" not in row:
        return shown
    own = steps[number] = [_step(step) for step in row["steps"]]
    parent, k = content.rows.parent[number], content.rows.k[number]
    shared = k if own[:k] == list(steps.get(parent, ()))[:k] else 0
    return shown | {"shared": shared, "steps": own[shared:]}


def _step(step: Json) -> Json:
    return {key: step.get(key) for key in _STEP_KEYS} | {"tokens": len(step.get("token_ids") or ())}


def _credit(row: Json) -> Json:
    """Token texts with rewards and reference log-probs, by step, as short numbers."""
    steps: list[Json] = row.get("steps") or []
    return {
        "policy": row.get("policy", ""),
        "beta": row.get("beta"),
        "steps": [
            {
                "tokens": step.get("tokens") or [],
                "rewards": _rounded(step.get("rewards")),
                "logps": _rounded(step.get("logps")),
            }
            for step in steps
        ],
    }


def _rounded(values: Sequence[Any] | None) -> list[float | None]:
    return [None if value is None else round(value, 4) for value in values or ()]
