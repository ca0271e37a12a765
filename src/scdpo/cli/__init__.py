"""The command line: each command reads its arguments and calls one stage."""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Any

# isort: off
from scdpo.cli.app import app

# Imported in the order in which the help lists their commands.
from scdpo.cli import (  # noqa: F401
    stages,
    finetuning,
    rows,
    planning,
    measuring,
    quality,
    crediting,
    sharing,
    viewing,
    alone,
    converting,
)

# isort: on

from scdpo.errors import ScdpoError
from scdpo.store import is_full_disk

ENVIRONMENT_ERRORS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE)
"""Operating-system errors that are not bugs in the package: one line, no traceback."""


def main(arguments: list[str] | None = None) -> None:
    """The console script: the package's own errors become one line and exit code 2."""
    for name, value in {
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }.items():
        os.environ.setdefault(name, value)
    # End as with Ctrl-C, so that child processes and the terminal are cleaned up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app(arguments)
    except ScdpoError as error:
        fail(str(error), error.exit_code)
    except OSError as error:
        if is_full_disk(error):
            fail(
                f"{error.filename or 'disk'}: no space left on the device; what was written is kept"
            )
        if error.errno not in ENVIRONMENT_ERRORS:
            raise
        fail(f"{error.filename or 'system'}: {error.strerror}")


def fail(message: str, code: int = 2) -> Any:
    """Print one line on stderr and exit with `code`."""
    print(f"scdpo: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code)
