"""The solution format that a policy's folder states: how it was trained to write.

The file is not among those that `policy_hash` reads, as it changes nothing about the policy itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scdpo.errors import PolicyError
from scdpo.policies.names import EMBEDDED, policy_path

FORMAT_FILE = "solution_format.json"
"""Options of `formats.policy_format`, such as {"name": "fenced", "chat_template": "auto"}."""


def stated_format(name: str | Path) -> dict[str, Any] | None:
    """The format options that a policy (a folder, a hub name or `embedded`) states, if any.

    None also for a name without a policy. Raises PolicyError for a file that cannot be read.
    """
    try:
        file = _file(policy_path(name))
    except PolicyError:
        return None
    if file is None:
        return None
    try:
        options = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise PolicyError(f"{name}: its {FORMAT_FILE} cannot be read: {error}") from error
    if not isinstance(options, dict) or not isinstance(options.get("name"), str):
        raise PolicyError(f"{name}: its {FORMAT_FILE} has no key name")
    return options


def state_format(folder: Path, options: Mapping[str, Any]) -> None:
    """Write into a policy's folder in which format it writes, without options that are None."""
    given = {key: value for key, value in options.items() if value is not None}
    text = json.dumps(given, ensure_ascii=False, indent=2)
    (folder / FORMAT_FILE).write_text(f"{text}\n", encoding="utf-8")


def carry_format(name: str | Path, folder: Path) -> None:
    """State for the policy in `folder` what the policy that it was made from states, if anything.

    That one is a folder or `embedded`; other names are not looked up.
    """
    known = str(name) == EMBEDDED or Path(name).is_dir()
    if known and (options := stated_format(name)):
        state_format(folder, options)


def _file(path: str) -> Path | None:
    """The file of a policy's folder or hub repository; None if it has none."""
    if Path(path).is_dir():
        file = Path(path) / FORMAT_FILE
        return file if file.is_file() else None
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(path, FORMAT_FILE))
    except Exception:  # not in the repository, or whatever the network and the client raise
        return None
