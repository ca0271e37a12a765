"""The exceptions of the package. On the command line each is one line on stderr, exit code 2.

ScdpoError
├── InputError        something the user gave is wrong
│   ├── RecipeError       a recipe's key or value
│   ├── DataError         a data file: its path and, where known, its line
│   └── PolicyError       a policy folder or name
├── StoreError        a run folder cannot be used as asked
│   ├── RunLocked         another process holds it
│   └── StorageFull       the disk is full
├── SandboxError      the executor could not start or was lost
├── GradingError      the grading workers could not start or were lost
├── EngineError       an engine could not complete a request
├── HubError          the Hugging Face hub refused, or could not be reached
└── MissingDependency an extra is not installed; the message gives the pip command
"""

from __future__ import annotations

from pathlib import Path


def short(value: object, limit: int = 60, *, quote: bool = True) -> str:
    """A value for a message: its `repr` (`str` without `quote`), cut to `limit` characters."""
    text = repr(value) if quote else str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


class ScdpoError(Exception):
    """Base of all the package's errors; the message is one line meant for the user."""

    exit_code = 2


class InputError(ScdpoError):
    """Something the user gave is wrong."""


class RecipeError(InputError):
    """A recipe has an unknown key or an invalid value."""


class DataError(InputError):
    """A data file is missing, malformed or incomplete.

    `path` and `line` (1-based), if given, precede the message.
    """

    def __init__(self, message: str, path: Path | str | None = None, line: int | None = None):
        where = "" if path is None else f"{path}: " if line is None else f"{path}, line {line}: "
        super().__init__(f"{where}{message}")
        self.path = path
        self.line = line


class PolicyError(InputError):
    """A policy folder or name does not hold a usable model."""


class StoreError(ScdpoError):
    """A run folder cannot be used as asked."""


class RunLocked(StoreError):
    """Another process is working on the run folder."""


class StorageFull(StoreError):
    """The disk is full; what was written before is kept."""


class SandboxError(ScdpoError):
    """The executor could not start or was lost."""


class GradingError(ScdpoError):
    """The grading workers could not start or were lost."""


class EngineError(ScdpoError):
    """An engine could not complete a request."""


class HubError(ScdpoError):
    """The Hugging Face hub refused, or could not be reached."""


class MissingDependency(ScdpoError):
    """An optional dependency is not installed.

    `extra` is the package extra that installs it.
    """

    def __init__(self, what: str, extra: str):
        super().__init__(f"{what} is not installed: pip install 'scdpo[{extra}]'")
