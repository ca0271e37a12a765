"""Everything that touches the disk: run folders, rows, atomic files, locks.

A run folder holds one sub-folder per stage:

    RUN/.lock                      held (flock) by the one process that writes
    RUN/STAGE/manifest.json        what made the rows: config, inputs, counts, versions
    RUN/STAGE/rows-00000.jsonl     the rows, one record a line, only ever appended

A row is one `write` call, so a process killed at any moment leaves whole rows and at most one
torn last line, which the next `Stage.open` cuts off. Rows hold every field, defaults included:
they read the same when a default changes later.

This room has the package's only atomic write (`write_atomic`, `replacing`), append
(`append_row`), lock (`lock`), and test for a full disk (`is_full_disk`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdpo.lazy import lazy_names

if TYPE_CHECKING:
    from scdpo.store.append import append_row
    from scdpo.store.encoding import canonical, compact, json_line
    from scdpo.store.full_disk import is_full_disk, reason, storage_errors
    from scdpo.store.locks import lock, unlock
    from scdpo.store.manifest import Manifest, changed_keys, utc_now, versions
    from scdpo.store.reading import file_hash, object_of, read_json_rows, read_jsonl
    from scdpo.store.run import RunFolder
    from scdpo.store.stage import Stage
    from scdpo.store.writing import (
        make_folder,
        remove_leftovers,
        replacing,
        write_atomic,
        write_jsonl,
    )

_NAMES = {
    "append": "append_row",
    "encoding": "canonical compact json_line",
    "full_disk": "is_full_disk reason storage_errors",
    "locks": "lock unlock",
    "manifest": "Manifest changed_keys utc_now versions",
    "reading": "file_hash object_of read_json_rows read_jsonl",
    "run": "RunFolder",
    "stage": "Stage",
    "writing": "make_folder remove_leftovers replacing write_atomic write_jsonl",
}

__all__ = [
    "Manifest",
    "RunFolder",
    "Stage",
    "append_row",
    "canonical",
    "changed_keys",
    "compact",
    "file_hash",
    "is_full_disk",
    "json_line",
    "lock",
    "make_folder",
    "object_of",
    "read_json_rows",
    "read_jsonl",
    "reason",
    "remove_leftovers",
    "replacing",
    "storage_errors",
    "unlock",
    "utc_now",
    "versions",
    "write_atomic",
    "write_jsonl",
]

__getattr__, __dir__ = lazy_names(__name__, _NAMES)
