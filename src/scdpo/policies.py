"""Policy folders: a causal language model with its tokenizer, in the Hugging Face layout."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from scdpo.errors import PolicyError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EMBEDDED = "embedded"
"""The name of the policy that ships with the package."""


HASHED = (
    *("*.safetensors", "*.bin", "config.json", "generation_config.json"),
    *("tokenizer*", "*.model", "vocab*", "merges.txt", "special_tokens_map.json"),
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
            f"{name}: no such folder, and not available from the Hugging Face hub: {_brief(error)}"
        ) from error
    return name


@dataclass(slots=True)
class Policy:
    """A loaded model with its tokenizer."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def encode(self, text: str, *, start: bool = False) -> tuple[int, ...]:
        """Token ids of `text`; see `encode_text`."""
        return encode_text(self.tokenizer, text, start=start)

    def decode(self, ids: Iterable[int]) -> str:
        """The exact text of token ids, including special tokens and spaces."""
        return decode_ids(self.tokenizer, ids)


def encode_text(
    tokenizer: PreTrainedTokenizerBase, text: str, *, start: bool = False
) -> tuple[int, ...]:
    """Token ids of `text`, with special-token markers recognised and nothing added around it.

    `start` prepends BOS if the tokenizer begins every text with it, unless the text already begins
    with it (as a text rendered with a chat template may).
    """
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if start:
        around = tokenizer("", add_special_tokens=True)["input_ids"]
        bos = tokenizer.bos_token_id
        if bos is not None and bos in around and ids[:1] != [bos]:
            ids = [bos, *ids]
    return tuple(int(i) for i in ids)


def decode_ids(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> str:
    """The exact text of token ids, including special tokens and spaces."""
    text = tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    assert isinstance(text, str)
    return text


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a policy. Raises PolicyError."""
    from transformers import AutoTokenizer

    path = policy_path(name)
    folder = Path(path)
    if folder.is_dir() and not any(
        file for pattern in ("tokenizer*", "*.model", "vocab*") for file in folder.glob(pattern)
    ):
        raise PolicyError(f"{name}: no tokenizer in it (tokenizer.json is missing)")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except Exception as error:  # whatever the tokenizer's backend raises
        raise PolicyError(f"{name}: its tokenizer cannot be read: {_brief(error)}") from error
    if len(tokenizer) == 0:
        raise PolicyError(f"{name}: its tokenizer has no tokens")
    return tokenizer


def load_policy(
    name: str | Path,
    *,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    quantization: Any = None,
) -> Policy:
    """Load a policy for inference or training, in fp32 unless `dtype` says otherwise.

    With `device` None, a GPU is used if there is one. `quantization` is a quantisation config of
    transformers. Raises PolicyError if the folder or hub name does not hold a complete causal
    language model with its tokenizer.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    # Loading weights would print its own bar among ours.
    disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = load_tokenizer(name)
    try:
        model, loaded = cast(
            "tuple[PreTrainedModel, dict[str, Any]]",
            AutoModelForCausalLM.from_pretrained(
                policy_path(name),
                dtype=dtype or torch.float32,
                output_loading_info=True,
                quantization_config=quantization,
                ignore_mismatched_sizes=True,  # reported below, in one line
            ),
        )
        torch.nn.Module.to(model, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except Exception as error:  # whatever the readers of configs and weights raise
        raise PolicyError(f"{name}: its model cannot be read: {_brief(error)}") from error
    # transformers would silently replace these with random weights.
    for fault in ("missing", "mismatched"):
        if keys := sorted(loaded[f"{fault}_keys"]):
            first = keys[0] if isinstance(keys[0], str) else keys[0][0]
            raise PolicyError(f"{name}: {len(keys)} {fault} tensors, such as {first}")
    return Policy(name=str(name), model=model, tokenizer=tokenizer)


def save_policy(policy: Policy, path: Path) -> None:
    """Write model and tokenizer as a folder that `load_policy` reads."""
    policy.model.save_pretrained(path)
    policy.tokenizer.save_pretrained(path)


def _brief(error: Exception) -> str:
    """An error as one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:199]}…"
