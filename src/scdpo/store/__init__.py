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

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
