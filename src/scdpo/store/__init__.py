"""Run folders: append-only JSONL shards with a manifest per stage, and typed JSONL files.

A run folder holds one sub-folder per stage:

    RUN/.lock                      held (flock) by the one process that writes
    RUN/STAGE/manifest.json        what made the rows: config, inputs, counts, versions
    RUN/STAGE/rows-00000.jsonl     the rows, one record a line, only ever appended

A row is one `write` call, so a process killed at any moment leaves whole rows and at most one
torn last line, which the next `Stage.open` cuts off. Rows hold every field, defaults included:
they read the same when a default changes later.
"""

from scdpo.store.files import (
    file_hash,
    read_json_rows,
    read_jsonl,
    settings_from_options,
    validation_line,
    write_atomic,
    write_jsonl,
)
from scdpo.store.manifest import Manifest, versions
from scdpo.store.run import RunFolder
from scdpo.store.stage import Stage

__all__ = [
    "Manifest",
    "RunFolder",
    "Stage",
    "file_hash",
    "read_json_rows",
    "read_jsonl",
    "settings_from_options",
    "validation_line",
    "versions",
    "write_atomic",
    "write_jsonl",
]
