"""A run folder and its stages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

from scdpo.errors import StoreError
from scdpo.store.locks import lock_folder, unlock
from scdpo.store.stage import Stage
from scdpo.store.writing import make_folder

_STAGE_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*")


class RunFolder:
    """A run folder, opened for writing (exclusively) or for reading; a context manager.

    Writing creates the folder and holds a lock until `close`; the lock ends with the process,
    however that ends. Raises RunLocked when another process writes there, StoreError when the
    folder cannot be used.
    """

    def __init__(self, path: Path | str, *, write: bool = True):
        self.path = Path(path)
        self.write = write
        self._lock: int | None = None
        self._stages: dict[str, Stage] = {}
        if write:
            make_folder(self.path)
            self._lock = lock_folder(self.path)
        elif not self.path.is_dir():
            raise StoreError(f"{self.path}: no run folder there")

    def stage(self, name: str) -> Stage:
        """A stage of this run, started or not. `name` may have slashes (`policies/dpo`)."""
        if not _STAGE_NAME.fullmatch(name):
            raise StoreError(
                f"{name!r} is not a stage name: it consists of letters, digits, and _ . - /"
            )
        if name not in self._stages:
            self._stages[name] = Stage(self.path, name, writable=self.write)
        return self._stages[name]

    def close(self) -> None:
        """Close the open stages and give the lock back; closing twice does nothing."""
        try:
            for stage in self._stages.values():
                stage.close()
        finally:
            self._stages.clear()
            if self._lock is not None:
                unlock(self._lock)
                self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
