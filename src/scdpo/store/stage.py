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
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from scdpo.errors import DataError, StorageFull, StoreError
from scdpo.records import Record
from scdpo.store.files import (
    R,
    canonical,
    is_object,
    last_line_start,
    make_folder,
    numbered_lines,
    object_of,
    record_of,
    storage_errors,
    validation_line,
    values_of,
    write_atomic,
)
from scdpo.store.manifest import Manifest, changed_keys, hash_text, utc_now, versions

if TYPE_CHECKING:
    from scdpo.store.run import RunFolder

SHARD_BYTES = 256 * 2**20
"""A shard that has reached this size is closed and the next one begun."""
MANIFEST_SECONDS = 10.0
"""A running stage's manifest is brought up to date at most this often."""


class Stage:
    """One stage's rows and manifest. Reading needs no `open`; appending does."""

    def __init__(self, run: RunFolder, name: str):
        self._run = run
        self.name = name
        self.path = run.path / name
        self._fd: int | None = None
        self._shard = self.path / "rows-00000.jsonl"
        self._rows = 0
        self._keys: dict[tuple[str, ...], set[tuple[object, ...]]] = {}
        self._clock = self._saved = 0.0

    # ---- reading

    @property
    def manifest(self) -> Manifest | None:
        """The manifest on disk, or None when the stage was never begun."""
        path = self.path / "manifest.json"
        try:
            return Manifest.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from error
        except ValidationError as error:
            raise DataError(validation_line(error), path) from error

    @property
    def done(self) -> bool:
        """Whether the stage was finished."""
        manifest = self.manifest
        return manifest is not None and manifest.status == "done"

    def rows(self, cls: type[R]) -> Iterator[R]:
        """Every row in the order written; a last line still being written is left out.

        Raises StoreError for a stage never begun, DataError for a malformed row.
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

    def _lines(self) -> Iterator[tuple[Path, int, bytes]]:
        if self.manifest is None:
            raise StoreError(f"{self.path.parent}: stage {self.name} has not been run there")
        shards = self._shards()
        return (
            (path, n, line)
            for path in shards
            for n, line in numbered_lines(path, torn_tail=path == shards[-1])
        )

    def _shards(self) -> list[Path]:
        return sorted(self.path.glob("rows-*.jsonl"))

    # ---- writing

    def open(
        self,
        config: Mapping[str, object],
        inputs: Mapping[str, str] | None = None,
        *,
        redo: bool = False,
    ) -> Stage:
        """Begin the stage, or continue it where it stood; a finished one stays finished.

        `config` (JSON values or pydantic models) is everything that shapes the rows; `inputs`
        maps what is read to its hash. `redo` deletes what the stage has first. Raises
        StoreError when the stage was begun with another config or other inputs.
        """
        if not self._run.write:
            raise StoreError(f"{self._run.path}: opened for reading only")
        plain = json.loads(canonical(config))
        inputs = dict(inputs or {})
        self.close()
        self._keys.clear()
        if redo:
            self._clear()
        manifest = self.manifest
        if manifest is None and self._shards():
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
                versions=versions(),
                started=utc_now(),
                updated=utc_now(),
            )
        else:
            self._check_same(manifest, plain, inputs)
            if manifest.status == "done":
                return self
            repairs = manifest.repairs + self._repair()
            manifest = manifest.model_copy(
                update={
                    "resumes": manifest.resumes + 1,
                    "repairs": repairs,
                    "versions": versions(),
                }
            )
        self._rows = sum(1 for _ in self._lines()) if self._shards() else 0
        self._clock = time.monotonic()
        self._save(manifest)
        self._open_shard()
        return self

    def append(self, records: Iterable[Record]) -> int:
        """Append rows, each handed to the operating system at once; returns how many.

        Raises StorageFull when the disk takes no more: whole rows stay, a part of one does not.
        """
        if self._fd is None:
            state = "finished" if self.done else "not open"
            raise StoreError(f"{self.path}: stage {self.name} is {state}, rows cannot be added")
        before = self._rows
        for record in records:
            if os.fstat(self._fd).st_size >= SHARD_BYTES:
                self._open_shard()
            self._write_row(record.model_dump_json().encode() + b"\n")
            self._rows += 1
            for fields, known in self._keys.items():
                known.add(tuple(getattr(record, field) for field in fields))
        if time.monotonic() - self._saved >= MANIFEST_SECONDS:
            self._save()
        return self._rows - before

    def append_new(self, records: Iterable[Record], *key: str) -> int:
        """Append the rows whose `key` fields (`id` when none is given) no row has yet."""
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
        """Mark the stage as done, with the counts its rows do not tell by themselves.

        Counts describe the whole stage, so a resumed one derives them from its rows. A stage
        that was done already is left as it is.
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
        # A full disk has been reported by the row that met it; the manifest can wait.
        with suppress(StorageFull):
            self._save()
        with suppress(StorageFull):
            self._close_shard()

    def _write_row(self, row: bytes) -> None:
        assert self._fd is not None
        start = os.fstat(self._fd).st_size
        done = 0
        with storage_errors(self._shard, f"{self._rows} rows are kept"):
            try:
                while done < len(row):
                    done += os.write(self._fd, row[done:])
            except BaseException:
                os.ftruncate(self._fd, start)
                raise

    def _open_shard(self) -> None:
        shards = self._shards()
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
        now = time.monotonic()
        changes |= {
            "rows": self._rows,
            "seconds": round(manifest.seconds + now - self._clock, 3),
            "updated": utc_now(),
        }
        manifest = manifest.model_copy(update=changes)
        write_atomic(self.path / "manifest.json", manifest.model_dump_json(indent=2) + "\n")
        self._clock = self._saved = now
        return manifest

    def _check_same(
        self, manifest: Manifest, config: Mapping[str, object], inputs: Mapping[str, str]
    ) -> None:
        changed = changed_keys(manifest.config, config)
        changed += [f"input {line}" for line in changed_keys(manifest.inputs, inputs)]
        if changed:
            more = f" and {len(changed) - 6} more" if len(changed) > 6 else ""
            raise StoreError(
                f"stage {self.name} in {self._run.path} was begun with other values: "
                f"{', '.join(changed[:6])}{more}; use another run folder, or redo the stage "
                f"(or delete {self.path})"
            )

    def _clear(self) -> None:
        """Delete the stage's folder; a kill in between leaves it whole or gone."""
        doomed = self.path.with_name(f".deleted-{self.path.name}")
        try:
            shutil.rmtree(doomed, ignore_errors=True)
            if self.path.exists():
                self.path.rename(doomed)
                shutil.rmtree(doomed)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be deleted: {error.strerror}") from error

    def _repair(self) -> int:
        """Cut a torn last line off the last shard; returns how many were cut (0 or 1)."""
        shards = self._shards()
        if not shards:
            return 0
        with storage_errors(shards[-1], "nothing was repaired"), shards[-1].open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            start = last_line_start(file, end)
            file.seek(start)
            line = file.read()
            if not line or (line.endswith(b"\n") and is_object(line)):
                return 0
            file.truncate(start)
            os.fsync(file.fileno())
            return 1
