"""The index of a run: for every row where it lies and what is filtered by, and no more.

The run folder stays as it is. Rows are read once, later only what files have grown by; a row's text
is read from its place when it is shown.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from scdpo.errors import DataError, StoreError, short
from scdpo.store import RunFolder, compact, object_of
from scdpo.viewer.columns import (
    Credits,
    Json,
    Names,
    Pairs,
    Problems,
    Rows,
    Table,
    sampled,
    short_answer,
    since,
    size,
)
from scdpo.viewer.shards import Line, Shard, is_locked, shards_of, started_stages

_BATCH_ROWS, _BATCH_BYTES = 200, 2**20
"""At most so much is indexed between two looks at the clock."""

TABLES = ("problems", "rows", "pairs", "credit")


@dataclass(slots=True)
class Places:
    """Where rows lie: shard, offset, and length in bytes; -1 for a shard that is not known."""

    shard: array[int] = field(default_factory=lambda: array("l"))
    offset: array[int] = field(default_factory=lambda: array("q"))
    length: array[int] = field(default_factory=lambda: array("l"))

    def add(self, shard: int, offset: int, length: int) -> None:
        """Add a row."""
        self.shard.append(shard)
        self.offset.append(offset)
        self.length.append(length)


class Content:
    """What was indexed since the run folder was last read from the beginning."""

    def __init__(self) -> None:
        self.generation = f"{time.time_ns():x}"
        self.shards: list[Shard] = []
        self.problems, self.rows, self.pairs, self.credit = Problems(), Rows(), Pairs(), Credits()
        self.places = {name: Places() for name in ("problems", "rows", "credit")}
        self.names = {name: Names() for name in ("stage", "policy", "verdict", "finish", "flags")}
        self.problem_of: dict[str, int] = {}
        self.row_of: dict[str, int] = {}
        self.rows_of: list[array[int]] = []
        self.credit_of: dict[int, array[int]] = {}
        self.malformed = 0
        self.complaint = ""

    def table(self, name: str) -> Table:
        """A table by its name."""
        found: Table = getattr(self, name)
        return found

    # ---- adding rows

    def add(self, shard: int, line: Line) -> None:
        """Index a row of a shard; one that cannot be read is counted and left out."""
        source = self.shards[shard]
        place = shard, line.offset, len(line.text)
        try:
            row = parsed(line.text, source.path, line.number)
            getattr(self, f"_add_{source.content}")(row, source.stage, place)
        except (DataError, KeyError, TypeError, ValueError, AttributeError) as error:
            self.malformed += 1
            if not self.complaint:
                why = f"no {error}" if isinstance(error, KeyError) else short(str(error), 120)
                self.complaint = f"{source.stage}, line {line.number}: {why}"

    def _add_problems(self, row: Json, stage: str, place: tuple[int, int, int]) -> None:
        if str(row["id"]) not in self.problem_of:
            self._new_problem(stage.rpartition("/")[2], row, place)

    def _new_problem(self, part: str, row: Json, place: tuple[int, int, int]) -> int:
        self.problems.add(part, row)
        self.places["problems"].add(*place)
        self.rows_of.append(array("l"))
        return self.problem_of.setdefault(str(row["id"]), len(self.problem_of))

    def _problem(self, row: Json) -> int:
        found = self.problem_of.get(str(row["problem_id"]))
        if found is None:  # rows from elsewhere, whose problems are no stage
            known = {key: row.get(key) for key in ("dataset", "question", "level", "subject")}
            known = {key: value for key, value in known.items() if value is not None}
            known |= {"id": row["problem_id"], "answer": row.get("gold")}
            found = self._new_problem("", known, (-1, 0, 0))
        return found

    def _add_solutions(self, row: Json, stage: str, place: tuple[int, int, int]) -> None:
        if str(row["id"]) in self.row_of:
            return
        steps, k = row["steps"], int(row.get("branch_step") or 0)
        about = sampled(steps, k)
        self._add_row(
            row,
            place,
            stage=stage.partition("/")[0],
            id=str(row["id"]),
            parent=self.row_of.get(row.get("parent") or "", -1),
            k=k,
            flags=",".join(row.get("flags") or ()),
            attempt=int(row.get("attempt") or 0),
            steps=len(steps),
            tokens=about.tokens,
            temperature=about.temperature,
            mean_logp=about.mean_logp,
        )

    def _add_evaluations(self, row: Json, stage: str, place: tuple[int, int, int]) -> None:
        name = f"{stage}:{row['problem_id']}"
        if name in self.row_of:
            return
        self._add_row(
            row,
            place,
            stage="evaluations",
            id=name,
            parent=-1,
            k=0,
            flags="",
            attempt=0,
            steps=int(row["n_steps"]),
            tokens=int(row["n_tokens"]),
            temperature=0.0,
            mean_logp=float("nan"),
        )

    def _add_row(self, row: Json, place: tuple[int, int, int], **values: Any) -> None:
        verdict, finish, policy = row["verdict"]["name"], str(row["finish"]), str(row["policy"])
        answer = short_answer(row["answer"])
        problem = self._problem(row)
        values |= {"problem": problem, "answer": answer}
        for name, text in (
            ("stage", values["stage"]),
            ("policy", policy),
            ("verdict", str(verdict)),
            ("finish", finish),
            ("flags", values["flags"]),
        ):
            values[name] = self.names[name].code(text)
        number = len(self.rows.id)
        for name, value in values.items():
            getattr(self.rows, name).append(value)
        self.places["rows"].add(*place)
        self.row_of[values["id"]] = number
        self.rows_of[problem].append(number)

    def _add_pairs(self, row: Json, stage: str, place: tuple[int, int, int]) -> None:
        chosen, rejected = (
            self.row_of.get(str(row[f"{s}_id"]), -1) for s in ("chosen", "rejected")
        )
        k = int(row.get("branch_step") or 0)
        self.pairs.stage.append(self.names["stage"].code(stage))
        self.pairs.chosen.append(chosen)
        self.pairs.rejected.append(rejected)
        self.pairs.k.append(k)

    def _add_credit(self, row: Json, stage: str, place: tuple[int, int, int]) -> None:
        number = self.row_of.get(str(row["solution_id"]), -1)
        policy = self.names["policy"].code(str(row["policy"]))
        if number >= 0:  # others' solutions have no tree to be shown in
            self.credit_of.setdefault(number, array("l")).append(len(self.credit.row))
            self.credit.row.append(number)
            self.credit.policy.append(policy)
            self.places["credit"].add(*place)


class Index:
    """The index of the run in a folder. Raises StoreError for a folder that holds no run.

    `refresh` and `tables` may be called from several threads.
    """

    def __init__(self, path: Path | str):
        self.folder = RunFolder(path, write=False)
        self.path = self.folder.path
        if not (self.path / "recipe.yaml").is_file() and not started_stages(self.folder):
            raise StoreError(f"{self.path}: no run folder (it has no recipe.yaml and no stage)")
        self.content = Content()
        self.complete = False
        self._reading = threading.Lock()
        self._changing = threading.Lock()

    def refresh(self, seconds: float | None = None) -> bool:
        """Index what is new, for at most so many seconds; returns whether that was all.

        Returns at once if another thread is at it.
        """
        if not self._reading.acquire(blocking=seconds is None):
            return self.complete
        try:
            end = None if seconds is None else time.monotonic() + seconds
            self._find_shards()
            self.complete = all(
                self._read(number, end) for number in range(len(self.content.shards))
            )
            return self.complete
        finally:
            self._reading.release()

    def _find_shards(self) -> None:
        content = self.content
        if any(shard.replaced for shard in content.shards):
            content = Content()
        found = shards_of(self.folder)
        known = {shard.path for shard in content.shards}
        new = [shard for shard in found if shard.path not in known]
        with self._changing:
            content.shards += new
            self.content = content

    def _read(self, number: int, end: float | None) -> bool:
        content = self.content
        batch: list[Line] = []
        size_of_batch = 0
        for line in content.shards[number].unread():
            batch.append(line)
            size_of_batch += len(line.text)
            if len(batch) == _BATCH_ROWS or size_of_batch > _BATCH_BYTES:
                self._take(number, batch)
                batch, size_of_batch = [], 0
                if end is not None and time.monotonic() > end:
                    return False
        self._take(number, batch)
        return True

    def _take(self, number: int, batch: Iterable[Line]) -> None:
        with self._changing:
            for line in batch:
                self.content.add(number, line)

    def tables(self, generation: str = "", known: dict[str, int] | None = None) -> Json:
        """All tables from the given rows on, and what is known of the run and its stages.

        If the run was read anew since `generation`, the tables are whole.
        """
        with self._changing:
            content = self.content
            start = dict(known or {}) if generation == content.generation else {}
            tables = {name: since(content.table(name), start.get(name, 0)) for name in TABLES}
            return {
                "generation": content.generation,
                "from": {name: start.get(name, 0) for name in TABLES},
                "run": self.path.resolve().name,
                "complete": self.complete,
                "writing": is_locked(self.path / ".lock"),
                "malformed": content.malformed,
                "complaint": content.complaint,
                "names": {name: list(names.known) for name, names in content.names.items()},
                "stages": self._stages(),
                **tables,
            }

    def _stages(self) -> list[Json]:
        """All stages in the order in which they were started."""
        found = [self._stage(name) for name in started_stages(self.folder)]
        return sorted(found, key=lambda stage: (str(stage.get("started", "")), stage["name"]))

    def _stage(self, name: str) -> Json:
        try:
            manifest = self.folder.stage(name).manifest
        except (StoreError, DataError) as error:
            return {"name": name, "status": "unreadable", "note": short(str(error), 200)}
        if manifest is None:
            return {"name": name, "status": "missing"}
        return {
            "name": name,
            "status": manifest.status,
            "rows": manifest.rows,
            "seconds": manifest.seconds,
            "started": manifest.started,
            "counts": manifest.counts,
        }

    def row_at(self, content: Content, table: str, number: int) -> Json:
        """A row, read from its place. Raises DataError if it is no longer there."""
        places = content.places[table]
        shard = content.shards[places.shard[number]]
        try:
            with shard.path.open("rb") as file:
                file.seek(places.offset[number])
                line = file.read(places.length[number])
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", shard.path) from error
        return parsed(line, shard.path, 0)

    def sizes(self) -> dict[str, int]:
        """How many rows each table has."""
        return {name: size(self.content.table(name)) for name in TABLES}


def parsed(line: bytes, path: Path, n: int) -> Json:
    """A row. Raises DataError."""
    try:
        row = from_json(line)
    except ValueError:
        return object_of(line, path, n)  # what is no UTF-16 either, and its messages are plainer
    if not isinstance(row, dict):
        raise DataError("not a JSON object", path, n)
    return row


def encoded(value: object) -> bytes:
    """A value as JSON text."""
    try:
        return to_json(value, inf_nan_mode="null")
    except ValueError:  # half a surrogate pair
        return compact(value)
