"""Policy folders: a causal language model with its tokenizer, in the Hugging Face layout."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from scdpo.errors import PolicyError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EMBEDDED = "embedded"
"""The name of the policy that ships with the package."""


def policy_path(name: str | Path) -> str:
    """The folder of a policy, or its name on the Hugging Face hub.

    `embedded` is the policy in the package. Raises PolicyError for a local path that holds no
    model; a hub name (`owner/name`) is passed on as it is.
    """
    if str(name) == EMBEDDED:
        return str(resources.files("scdpo") / "embedded" / "policy")
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise PolicyError(f"{path}: no model there (config.json is missing)")
        return str(path)
    if path.exists():
        raise PolicyError(f"{path}: a policy is a folder, this is a file")
    if str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        raise PolicyError(
            f"{path}: no such policy folder (or 'embedded', or a hub name owner/model)"
        )
    return str(name)


def policy_hash(name: str | Path) -> str:
    """A hash of a policy folder's weights, config and tokenizer; a hub name is its own."""
    path = Path(policy_path(name))
    if not path.is_dir():
        return str(name)
    digest = hashlib.sha256()
    for file in sorted(
        [*path.glob("*.safetensors"), path / "config.json", path / "tokenizer.json"]
    ):
        if file.is_file():
            digest.update(file.name.encode())
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


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
        """The exact text of token ids, special tokens and spaces kept."""
        return decode_ids(self.tokenizer, ids)


def encode_text(
    tokenizer: PreTrainedTokenizerBase, text: str, *, start: bool = False
) -> tuple[int, ...]:
    """Token ids of `text`, special-token markers recognised and nothing added around it.

    `start` puts before them the ids the tokenizer begins every text with (such as BOS).
    """
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if start:
        around = tokenizer("", add_special_tokens=True)["input_ids"]
        bos = tokenizer.bos_token_id
        if bos is not None and bos in around:
            ids = [bos, *ids]
    return tuple(int(i) for i in ids)


def decode_ids(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> str:
    """The exact text of token ids, special tokens and spaces kept."""
    text = tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    assert isinstance(text, str)
    return text


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a policy. Raises PolicyError."""
    from transformers import AutoTokenizer

    path = policy_path(name)
    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise PolicyError(f"{name}: its tokenizer cannot be read: {_first_line(error)}") from error


def load_policy(
    name: str | Path, *, device: str | None = None, dtype: torch.dtype | None = None
) -> Policy:
    """Load a policy for inference or training; fp32 unless `dtype` says otherwise.

    `device` None takes the GPU where there is one. Raises PolicyError when the folder or hub
    name does not hold a causal language model with its tokenizer.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # loading weights would print a bar of its own among ours
    tokenizer = load_tokenizer(name)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            policy_path(name), dtype=dtype or torch.float32, attn_implementation="sdpa"
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise PolicyError(f"{name}: its model cannot be read: {_first_line(error)}") from error
    torch.nn.Module.to(model, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return Policy(name=str(name), model=model, tokenizer=tokenizer)


def save_policy(policy: Policy, path: Path) -> None:
    """Write model and tokenizer as a folder that `load_policy` reads."""
    policy.model.save_pretrained(path)
    policy.tokenizer.save_pretrained(path)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
