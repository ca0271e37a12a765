"""What a policy is called: a folder, a name on the Hugging Face hub, or `embedded`."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from importlib import resources
from pathlib import Path

from scdpo.errors import PolicyError

EMBEDDED = "embedded"
"""The name of the policy that ships with the package."""


HASHED = (
    *("*.safetensors", "*.bin", "config.json", "generation_config.json"),
    *("tokenizer*", "*.model", "vocab*", "merges.txt", "special_tokens_map.json"),
    "chat_template*",
)
"""Files in a policy folder that determine what the policy writes."""
HUB_SECONDS = 10.0
"""Timeout for asking the Hugging Face hub whether it has a model."""


def policy_path(name: str | Path) -> str:
    """The folder of a policy, or its name on the Hugging Face hub.

    `embedded` is the policy in the package. Raises PolicyError for a local path without a model,
    and for a hub name (`owner/model`) found neither on the hub nor in its local cache.
    """
    if str(name) == EMBEDDED:
        return str(resources.files("scdpo") / "embedded" / "policy")
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise PolicyError(f"{path}: not a policy folder (config.json is missing)")
        return str(path)
    if path.exists():
        raise PolicyError(f"{path}: a policy is a folder, but this is a file")
    if not _is_hub_name(name):
        raise PolicyError(
            f"{path}: no such policy folder (also accepted: 'embedded', or a hub name owner/model)"
        )
    return _on_hub(str(name))


def policy_hash(name: str | Path) -> str:
    """A hash of a policy folder's weights, config and tokenizer; a hub name is returned as it is.

    Raises PolicyError as `policy_path` does.
    """
    path = Path(policy_path(name))
    if not Path(name).exists() and _is_hub_name(name):
        return str(name)
    digest = hashlib.sha256()
    for file in sorted({file for pattern in HASHED for file in path.glob(pattern)}):
        digest.update(file.name.encode())
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def _is_hub_name(name: str | Path) -> bool:
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(name)) is not None


@lru_cache
def _on_hub(name: str) -> str:
    """`name` if the hub has it, else its folder in the local cache. Raises PolicyError.

    Checked once, before anything is loaded: the libraries spend minutes on an unreachable hub,
    even if the name is only a mistyped folder.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        HfApi().model_info(name, timeout=HUB_SECONDS)
    except Exception as error:  # whatever the network, the hub or its client raise
        cached = try_to_load_from_cache(name, "config.json")
        if isinstance(cached, str):
            return str(Path(cached).parent)
        raise PolicyError(
            f"{name}: no such folder, and not available from the Hugging Face hub: {brief(error)}"
        ) from error
    return name


def brief(error: Exception) -> str:
    """An error as one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:199]}…"
