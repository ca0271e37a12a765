"""The rows files of a run folder, read on from where reading stopped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scdpo.store import RunFolder

Content = Literal["problems", "solutions", "pairs", "evaluations", "credit"]
"""What the rows of a stage are."""

STAGES: tuple[tuple[str, Content], ...] = (
    ("problems/*", "problems"),
    ("solutions", "solutions"),
    ("imports/*", "solutions"),
    ("branches", "solutions"),
    ("pairs/*", "pairs"),
    ("evaluations/*", "evaluations"),
    ("credit/solutions", "solutions"),
    ("credit/rewards", "credit"),
)
"""Stages that are shown, in the order in which their rows refer to each other."""

_FIRST = ("train", "test", "sft", "dpo", "dpo_equal", "scdpo")
"""Names that stand in this order; others follow by the alphabet."""


@dataclass(frozen=True, slots=True)
class Line:
    """A row's text, its number in the file from 1, and where it begins, in bytes."""

    number: int
    offset: int
    text: bytes


@dataclass(slots=True)
class Shard:
    """A file of rows, and how much of it was read. `inode` is 0 until it was opened once."""

    path: Path
    stage: str
    content: Content
    read: int = 0
    inode: int = 0
    lines: int = 0

    @property
    def replaced(self) -> bool:
        """Whether what was read is no longer there: the stage was done again."""
        if not self.inode:
            return False
        try:
            found = self.path.stat()
        except OSError:
            return True
        return found.st_ino != self.inode or found.st_size < self.read

    def unread(self) -> Iterator[Line]:
        """Whole lines that were not read yet; a torn last one is left."""
        with self.path.open("rb") as file:
            self.inode = os.fstat(file.fileno()).st_ino
            file.seek(self.read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                at, self.read = self.read, self.read + len(line)
                self.lines += 1
                if text := line.rstrip():
                    yield Line(self.lines, at, text)


def shards_of(folder: RunFolder) -> list[Shard]:
    """The files of all stages that are shown."""
    return [
        Shard(path, name, content)
        for pattern, content in STAGES
        for name in _stages(folder.path, pattern)
        for path in folder.stage(name).shards
    ]


def _stages(run: Path, pattern: str) -> list[str]:
    names = [path.relative_to(run).as_posix() for path in run.glob(pattern) if path.is_dir()]
    visible = [name for name in names if not name.rpartition("/")[2].startswith(".")]
    return sorted(visible, key=_place)


def _place(name: str) -> tuple[int, str]:
    last = name.rpartition("/")[2]
    return _FIRST.index(last) if last in _FIRST else len(_FIRST), name


def started_stages(folder: RunFolder) -> list[str]:
    """All stages that have a manifest, at any depth."""
    found = folder.path.glob("*/manifest.json"), folder.path.glob("*/*/manifest.json")
    names = {path.parent.relative_to(folder.path).as_posix() for paths in found for path in paths}
    return sorted(name for name in names if "/." not in f"/{name}")


def is_locked(path: Path) -> bool:
    """Whether some process has a lock on a file. Taking one to find out would disturb a writer."""
    try:
        inode = path.stat().st_ino
        locks = Path("/proc/locks").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return any(f":{inode} " in line for line in locks.splitlines() if " FLOCK " in line)
