"""Files of rows as the tests of `scdpo exec` and `scdpo grade` write, read and make them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-c", "from scdpo.cli import main; main()")


def write(path: str, *rows: dict[str, Any]) -> Path:
    """Write rows as JSONL."""
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Path(path)


def read(path: Path | str) -> list[dict[str, Any]]:
    """The rows of a file, every one of them whole."""
    text = Path(path).read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def command(*arguments: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    """The console script in a process of its own."""
    line = (*COMMAND, *map(str, arguments))
    return subprocess.run(line, capture_output=True, text=True, timeout=120, **settings)
