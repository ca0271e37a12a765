"""A stage of a run: its rows, appended one by one, and its manifest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from scdpo.errors import DataError, StorageFull, StoreError
from scdpo.errors.validation import explain
from scdpo.records import Record
from scdpo.store.append import append_row, cut_torn_tail
from scdpo.store.encoding import canonical, json_line
from scdpo.store.full_disk import storage_errors
from scdpo.store.manifest import Manifest, changed_keys, hash_text, utc_now, versions
from scdpo.store.reading import R, numbered_lines, object_of, record_of, values_of
from scdpo.store.writing import make_folder, remove_leftovers, write_atomic

SHARD_BYTES = 256 * 2**20
"""A shard that has reached this size is closed and the next one is started."""
MANIFEST_SECONDS = 10.0
"""A running stage's manifest is updated at most this often."""


class Stage:
    """One stage's rows and manifest, in the folder `name` of the run folder `run`.

    Reading needs no `open`; appending does, and that the stage is `writable`.
    """

    def __init__(self, run: Path, name: str, *, writable: bool = True):
        self._run = run
        self._writable = writable
        self.name = name
        self.path = run / name
        self._fd: int | None = None
        self._shard = self.path / "rows-00000.jsonl"
        self._rows = 0
        self._keys: dict[tuple[str, ...], set[tuple[object, ...]]] = {}
        self._clock = self._cpu = self._saved = 0.0

    # ---- reading

    @property
    def manifest(self) -> Manifest | None:
        """The manifest on disk, or None when the stage was never started."""
        path = self.path / "manifest.json"
        try:
            return Manifest.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from error
        except ValidationError as error:
            raise DataError(explain(error, Manifest), path) from error

    @property
    def done(self) -> bool:
        """Whether the stage was finished."""
        manifest = self.manifest
        return manifest is not None and manifest.status == "done"

    @property
    def shards(self) -> list[Path]:
        """The files of its rows, in the order written."""
        return sorted(self.path.glob("rows-*.jsonl"))

    def rows(self, cls: type[R]) -> Iterator[R]:
        """Every row in the order written; a last line still being written is left out.

        Raises StoreError for a stage that was never started, DataError for a malformed row.
        """
        return (record_of(cls, line, path, n) for path, n, line in self._lines())

    def ids(self, *key: str) -> set[Any]:
        """The values of a field (`id`) over all rows; tuples of values for several fields."""
        fields = key or ("id",)
        found: set[Any] = set()
        for path, n, line in self._lines():
            values = values_of(object_of(line, path, n), fields, path, n)
            found.add(values[0] if len(fields) == 1 else values)
        return found

    def output_hash(self) -> str:
        """A hash of the rows as a set: neither their order nor repeated rows change it."""
        digests = {hashlib.sha256(line).digest() for _, _, line in self._lines()}
        return hashlib.sha256(b"".join(sorted(digests))).hexdigest()

    def begun_shards(self) -> list[Path]:
        """The files of its rows. Raises StoreError for a stage that was never started."""
        if self.manifest is None:
            raise StoreError(f"{self.path.parent}: stage {self.name} has not been run there")
        return self.shards

    def _lines(self) -> Iterator[tuple[Path, int, bytes]]:
        shards = self.begun_shards()
        return (
            (path, n, line)
            for path in shards
            for n, line in numbered_lines(path, torn_tail=path == shards[-1])
        )

    # ---- writing

    def open(
        self,
        config: Mapping[str, object],
        inputs: Mapping[str, str] | None = None,
        *,
        redo: bool = False,
    ) -> Stage:
        """Start the stage, or resume it where it stopped; a finished one stays finished.

        `config` (JSON values or pydantic models) is everything that shapes the rows; `inputs`
        maps what is read to its hash. `redo` deletes the stage's rows first. Raises StoreError
        when the stage was started with another config or other inputs.
        """
        if not self._writable:
            raise StoreError(f"{self._run}: opened for reading only")
        plain = json.loads(canonical(config))
        inputs = dict(inputs or {})
        self.close()
        self._keys.clear()
        if redo:
            self._clear()
        manifest = self.manifest
        if manifest is None and self.shards:
            raise StoreError(
                f"{self.path}: rows without a manifest; delete that folder or redo the stage"
            )
        if manifest is None:
            make_folder(self.path)
            manifest = Manifest(
                stage=self.name,
                config=plain,
                config_hash=hash_text(canonical(plain)),
                inputs=inputs,
                cpu_seconds=0.0,
                versions=versions(),
                started=utc_now(),
                updated=utc_now(),
            )
        else:
            self._check_same(manifest, plain, inputs)
            if manifest.status == "done":
                return self
            shards = self.shards
            repairs = manifest.repairs + (1 if shards and cut_torn_tail(shards[-1]) else 0)
            manifest = manifest.model_copy(
                update={
                    "resumes": manifest.resumes + 1,
                    "repairs": repairs,
                    "versions": versions(),
                }
            )
        remove_leftovers(self.path / "manifest.json")
        self._rows = sum(1 for _ in self._lines()) if self.shards else 0
        self._clock, self._cpu = time.monotonic(), time.process_time()
        self._save(manifest)
        self._open_shard()
        return self

    def append(self, records: Iterable[Record]) -> int:
        """Append rows, each handed to the operating system at once; returns how many.

        Raises StorageFull when the disk is full: whole rows stay, a partial one does not.
        """
        if self._fd is None:
            state = "finished" if self.done else "not open"
            raise StoreError(f"{self.path}: stage {self.name} is {state}, rows cannot be added")
        before = self._rows
        for record in records:
            if os.fstat(self._fd).st_size >= SHARD_BYTES:
                self._open_shard()
            with storage_errors(self._shard, f"{self._rows} rows are kept"):
                append_row(self._fd, json_line(record))
            self._rows += 1
            for fields, known in self._keys.items():
                known.add(tuple(getattr(record, field) for field in fields))
        if time.monotonic() - self._saved >= MANIFEST_SECONDS:
            self._save()
        return self._rows - before

    def append_new(self, records: Iterable[Record], *key: str) -> int:
        """Append the rows whose `key` fields (default `id`) are those of no earlier row."""
        fields = key or ("id",)
        if fields not in self._keys:
            self._keys[fields] = {
                values_of(object_of(line, path, n), fields, path, n)
                for path, n, line in self._lines()
            }
        known = self._keys[fields]
        return self.append(
            record
            for record in records
            if tuple(getattr(record, field) for field in fields) not in known
        )

    def finish(self, counts: Mapping[str, int | float] | None = None) -> Manifest:
        """Mark the stage as done, with counts that cannot be read off its rows.

        Counts describe the whole stage, so a resumed stage derives them from its rows. A stage
        that is already done is left as it is.
        """
        if self._fd is None:
            manifest = self.manifest
            if manifest is None or manifest.status != "done":
                raise StoreError(f"{self.path}: stage {self.name} is not open")
            return manifest
        self._close_shard()
        return self._save(status="done", counts=dict(counts or {}), output_hash=self.output_hash())

    def close(self) -> None:
        """Stop appending; the stage can be opened again. Closing twice does nothing."""
        if self._fd is None:
            return
        # The row that met a full disk has reported it; the manifest can wait.
        try:
            with suppress(StorageFull):
                self._save()
        finally:
            with suppress(StorageFull):
                self._close_shard()

    def _open_shard(self) -> None:
        shards = self.shards
        shard = shards[-1] if shards else self.path / "rows-00000.jsonl"
        if shards and shard.stat().st_size >= SHARD_BYTES:
            shard = self.path / f"rows-{int(shard.stem[5:]) + 1:05d}.jsonl"
        self._close_shard()
        self._shard = shard
        with storage_errors(shard, f"{self._rows} rows are kept"):
            self._fd = os.open(shard, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def _close_shard(self) -> None:
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        try:
            with storage_errors(self._shard, f"{self._rows} rows were written"):
                os.fsync(fd)
        finally:
            os.close(fd)

    def _save(self, manifest: Manifest | None = None, **changes: object) -> Manifest:
        manifest = manifest or self.manifest
        if manifest is None:
            raise StoreError(f"{self.path}: manifest.json was deleted while the stage ran")
        now, cpu = time.monotonic(), time.process_time()
        changes |= {
            "rows": self._rows,
            "seconds": round(manifest.seconds + now - self._clock, 3),
            "updated": utc_now(),
        }
        if manifest.cpu_seconds is not None:
            changes["cpu_seconds"] = round(manifest.cpu_seconds + cpu - self._cpu, 3)
        manifest = manifest.model_copy(update=changes)
        write_atomic(self.path / "manifest.json", manifest.model_dump_json(indent=2) + "\n")
        self._clock, self._cpu, self._saved = now, cpu, now
        return manifest

    def _check_same(
        self, manifest: Manifest, config: Mapping[str, object], inputs: Mapping[str, str]
    ) -> None:
        changed = changed_keys(manifest.config, config)
        changed += [f"input {line}" for line in changed_keys(manifest.inputs, inputs)]
        if changed:
            more = f" and {len(changed) - 6} more" if len(changed) > 6 else ""
            raise StoreError(
                f"stage {self.name} in {self._run} was started with other values: "
                f"{', '.join(changed[:6])}{more}; use another run folder, or redo the stage "
                f"(or delete {self.path})"
            )

    def _clear(self) -> None:
        """Delete the stage's folder; a kill in between leaves it complete or gone."""
        doomed = self.path.with_name(f".deleted-{self.path.name}")
        try:
            shutil.rmtree(doomed, ignore_errors=True)
            if self.path.exists():
                self.path.rename(doomed)
                shutil.rmtree(doomed)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be deleted: {error.strerror}") from error
