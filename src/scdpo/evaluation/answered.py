"""Reads the questions that policies have answered, from any source, and compares policies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast, get_args

from scdpo.errors import DataError, InputError, short
from scdpo.evaluation.accuracy import Comparison, compare
from scdpo.records import Evaluation, Record, Verdict, VerdictName
from scdpo.store import Manifest, RunFolder, canonical, read_json_rows, read_jsonl

UNNAMED = "rows"
"""Data set name of rows that do not give one."""
TOGETHER = "all together"


class Compared(Record):
    """A comparison of two policies on one benchmark, or on all of them together."""

    benchmark: str
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class Answered:
    """One side of a comparison: its rows, by data set.

    If `ids` is false, questions have no ids and rows are paired by position. `unfinished` names
    the evaluations that are not finished.
    """

    name: str
    rows: dict[str, list[Evaluation]]
    ids: bool = True
    unfinished: tuple[str, ...] = ()


def read_answered(path: Path) -> Answered:
    """The rows of a folder written by `scdpo evaluate`, of one evaluation in a run, or of a JSONL
    file with `Evaluation` rows or rows written by `scdpo grade`.

    Raises DataError, and InputError for a run folder that has evaluations.
    """
    if path.is_file():
        rows, ids = _file_rows(path)
        return Answered(str(path), _by_dataset(rows), ids)
    if not path.exists():
        raise DataError("no such file or folder", path)
    if (path / "manifest.json").is_file():
        names = [path.name]
        path = path.parent
    else:
        manifest_files = sorted(path.glob("evaluations/*/manifest.json"))
        names = [f"evaluations/{manifest.parent.name}" for manifest in manifest_files]
        if names and (path / "recipe.yaml").exists():
            raise InputError(
                f"{path} is a run; name one of {', '.join(f'{path}/{n}' for n in names)}"
            )
    if not names:
        raise DataError("no evaluation in it (no manifest.json, no evaluations/)", path)
    with RunFolder(path, write=False) as folder:
        stages = [folder.stage(name) for name in names]
        lines = list(chain.from_iterable(stage.rows(Evaluation) for stage in stages))
        manifests = [cast("Manifest", stage.manifest) for stage in stages]
    unfinished = tuple(
        str(path / name)
        for name, manifest in zip(names, manifests, strict=True)
        if manifest.status != "done"
    )
    name = str(path / names[0]) if len(names) == 1 else str(path)
    return Answered(name, _by_dataset(lines), unfinished=unfinished)


def compare_answered(a: Answered, b: Answered, *, common: bool = False) -> list[Compared]:
    """Compare two sides on every data set that both have and, if there are several, on all of
    them together.

    With `common`, questions that only one side has are left out, and unfinished evaluations are
    accepted; otherwise both are errors. Raises InputError, also if gold answers differ or the
    sides have nothing in common.
    """
    shared = [name for name in a.rows if name in b.rows]
    if not shared:
        sides = "; ".join(f"{side.name} has {', '.join(side.rows) or 'none'}" for side in (a, b))
        raise InputError(f"nothing to compare: the sides share no benchmark ({sides})")
    if not common:
        for side in (a, b):
            if side.unfinished:
                raise InputError(
                    f"{', '.join(side.unfinished)}: not finished; run `scdpo evaluate` again, or "
                    "compare what is there, with --common"
                )
    pairs = {name: _paired(name, a, b, common) for name in shared}
    pairs = {name: pair for name, pair in pairs.items() if pair[0]}
    if not pairs:
        raise InputError(f"{a.name} and {b.name} have no question in common")
    compared = [Compared(benchmark=n, comparison=compare(*pair)) for n, pair in pairs.items()]
    if len(pairs) > 1:
        both = [[row for pair in pairs.values() for row in pair[side]] for side in (0, 1)]
        compared.append(Compared(benchmark=TOGETHER, comparison=compare(both[0], both[1])))
    return compared


def _paired(
    name: str, a: Answered, b: Answered, common: bool
) -> tuple[list[Evaluation], list[Evaluation]]:
    """The rows of both sides for one data set, with the same problem ids on both."""
    sides = [side.rows[name] for side in (a, b)]
    if not (a.ids and b.ids):
        sides = [_by_place(rows) for rows in sides]
    keys = [{row.problem_id for row in rows} for rows in sides]
    both = keys[0] & keys[1]
    if common:
        sides = [[row for row in rows if row.problem_id in both] for rows in sides]
    elif keys[0] != keys[1]:
        raise InputError(
            f"{name}: different questions: {len(both)} in both, {len(keys[0] - both)} only in "
            f"{a.name} and {len(keys[1] - both)} only in {b.name}; --common compares those in both"
        )
    return sides[0], sides[1]


def _by_place(rows: Sequence[Evaluation]) -> list[Evaluation]:
    return [
        row.model_copy(update={"problem_id": f"row {place}"}) for place, row in enumerate(rows, 1)
    ]


def _by_dataset(rows: Iterable[Evaluation]) -> dict[str, list[Evaluation]]:
    groups: dict[str, list[Evaluation]] = {}
    for row in rows:
        groups.setdefault(row.dataset, []).append(row)
    return groups


def _file_rows(path: Path) -> tuple[list[Evaluation], bool]:
    """The rows of a file, and whether they have ids."""
    first = next(iter(read_json_rows(path)), None)
    if first is None:
        raise DataError("no rows in it", path)
    if "problem_id" in first[1]:
        return list(read_jsonl(path, Evaluation)), True
    rows: list[Evaluation] = []
    with_id = 0
    for n, row in read_json_rows(path):
        with_id += "id" in row
        rows.append(_graded(row, len(rows) + 1, path, n))
    return rows, with_id == len(rows)


def _graded(row: dict[str, Any], place: int, path: Path, n: int) -> Evaluation:
    """A row written by `scdpo grade`, as an `Evaluation`."""
    verdict, reason, dataset = (row.get(key) for key in ("verdict", "reason", "dataset"))
    if verdict not in get_args(VerdictName):
        expected = ", ".join(get_args(VerdictName))
        raise DataError(f"verdict: expected one of {expected}; found {short(verdict)}", path, n)
    if "answer" not in row:
        raise DataError("no 'answer' (the gold answer, which both sides must share)", path, n)
    gold = row["answer"]
    identity = row.get("id", f"row {place}")
    return Evaluation(
        problem_id=identity if isinstance(identity, str) else canonical(identity),
        dataset=dataset if isinstance(dataset, str) and dataset else UNNAMED,
        policy=path.stem,
        gold=gold if isinstance(gold, str) else canonical(gold),
        answer=None,
        verdict=Verdict(name=verdict, reason=reason if isinstance(reason, str) else ""),
        finish="finished",
        n_steps=0,
        n_tokens=0,
        text="",
    )
