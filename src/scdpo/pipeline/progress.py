"""How far a run is, in a file that other programs can read: `RUN/progress.json`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from scdpo.errors import StoreError
from scdpo.pipeline.services import Watcher
from scdpo.store.manifest import utc_now
from scdpo.store.writing import write_atomic
from scdpo.waiting import Counter, Progress

KEEP_SECONDS = 5.0
"""The file is written at most this often, and at the end of each piece of work."""


class KeptProgress:
    """A watcher that also writes to `progress.json` what another one is told.

    Its keys: `work` (what is being done), `done`, `total`, `seconds` since it began,
    `per_second` (null before anything is done), `seconds_left` (null likewise), and `updated`
    (UTC). Where the disk is full, the file stays as it was.
    """

    def __init__(self, watcher: Watcher, folder: Path, clock: Callable[[], float] = time.monotonic):
        self._watcher = watcher
        self._path = folder / "progress.json"
        self._clock = clock
        self._kept = float("-inf")

    def note(self, label: str, text: str) -> None:
        """Pass a fact on."""
        self._watcher.note(label, text)

    def progress(self, name: str) -> Progress:
        """The callback for a piece of work that starts now."""
        shown = self._watcher.progress(name)
        began = self._clock()
        first: list[int] = []

        def report(done: int, total: int) -> None:
            shown(done, total)
            # What a resumed stage finds done already says nothing about its speed.
            first[:] = first or [done]
            now = self._clock()
            if done >= total or now - self._kept >= KEEP_SECONDS:
                self._kept = now
                self._keep(name, done, total, done - first[0], now - began)

        return report

    def counter(self, name: str, unit: str) -> Counter:
        """Pass a number on."""
        return self._watcher.counter(name, unit)

    def _keep(self, name: str, done: int, total: int, new: int, seconds: float) -> None:
        rate = new / seconds if new and seconds > 0 else None
        state = {
            "work": name,
            "done": done,
            "total": total,
            "seconds": round(seconds, 1),
            "per_second": rate and float(f"{rate:.3g}"),
            "seconds_left": rate and round((total - done) / rate, 1),
            "updated": utc_now(),
        }
        try:
            write_atomic(self._path, json.dumps(state) + "\n")
        except StoreError:
            return
