"""An interpreter whose files all belong to one user, as with a Python installed at home."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
SYSTEM = Path("/usr/bin") / VERSION
"""An interpreter that everyone may run; ours may be where others may not enter."""
_LEFT_OUT = shutil.ignore_patterns("test", "idlelib", "lib2to3", "dist-packages", "config-*")


@contextmanager
def owned_interpreter(user: int) -> Iterator[Path]:
    """A copy of the system's interpreter that belongs to `user`; requires root."""
    # Not below /tmp, which is a session's own.
    folder = Path(tempfile.mkdtemp(prefix="scdpo-owned-", dir="/var/tmp"))
    try:
        (folder / "bin").mkdir()
        shutil.copy2(SYSTEM, folder / "bin")
        library = Path("/usr/lib") / VERSION
        shutil.copytree(library, folder / "lib" / VERSION, symlinks=True, ignore=_LEFT_OUT)
        folder.chmod(0o755)
        subprocess.run(["chown", "-R", f"{user}:{user}", folder], check=True)
        yield folder / "bin" / VERSION
    finally:
        shutil.rmtree(folder)
