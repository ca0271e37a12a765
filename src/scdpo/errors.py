"""The exceptions of the package. Every one becomes one line on stderr and exit code 2.

ScdpoError
├── InputError        something the user gave is wrong
│   ├── RecipeError       a recipe's key or value
│   ├── DataError         a data file: its path and, where known, its line
│   └── PolicyError       a policy folder or name
├── StoreError        a run folder cannot be used as asked
│   ├── RunLocked         another process holds it
│   └── StorageFull       the disk took no more
├── SandboxError      the executor could not start or was lost
├── GradingError      the grading workers could not start or were lost
├── EngineError       an engine could not complete a request
└── MissingDependency an extra is not installed; the message has the pip command
"""

from __future__ import annotations

from pathlib import Path


def short(value: object, limit: int = 60, *, quote: bool = True) -> str:
    """A value as a message shows it, cut to `limit` characters; as text without `quote`."""
    text = repr(value) if quote else str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


class ScdpoError(Exception):
    """Base of all errors of the package; the message is one line meant for the user."""

    exit_code = 2


class InputError(ScdpoError):
    """Something the user gave is wrong."""


class RecipeError(InputError):
    """A recipe has an unknown key or a value that is not accepted."""


class DataError(InputError):
    """A data file is missing, malformed or incomplete.

    `path` and `line` (1-based) are put before the message when given.
    """

    def __init__(self, message: str, path: Path | str | None = None, line: int | None = None):
        where = "" if path is None else f"{path}: " if line is None else f"{path}, line {line}: "
        super().__init__(f"{where}{message}")
        self.path = path
        self.line = line


class PolicyError(InputError):
    """A policy folder or name does not hold a model that can be used."""


class StoreError(ScdpoError):
    """A run folder cannot be used as asked."""


class RunLocked(StoreError):
    """Another process is working on the run folder."""


class StorageFull(StoreError):
    """A row could not be written; what was written before stays."""


class SandboxError(ScdpoError):
    """The executor could not start or was lost."""


class GradingError(ScdpoError):
    """The grading workers could not start or were lost."""


class EngineError(ScdpoError):
    """An engine could not complete a request."""


class MissingDependency(ScdpoError):
    """An optional dependency is not installed.

    `extra` is the name of the package extra that brings it.
    """

    def __init__(self, what: str, extra: str):
        super().__init__(f"{what} is not installed: pip install 'scdpo[{extra}]'")
