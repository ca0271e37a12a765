"""A policy in memory: a causal language model with its tokenizer, loaded and saved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from scdpo.errors import PolicyError
from scdpo.policies.names import brief, policy_path
from scdpo.policies.stated import carry_format
from scdpo.policies.tokens import decode_ids, encode_text, load_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


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


def load_config(name: str | Path) -> PretrainedConfig:
    """The config of a policy's model, without its weights. Raises PolicyError if there is none."""
    from transformers import AutoConfig

    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(policy_path(name))
    except Exception as error:  # whatever the readers of configs raise
        raise PolicyError(f"{name}: its config cannot be read: {brief(error)}") from error
    return config


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
        raise PolicyError(f"{name}: its model cannot be read: {brief(error)}") from error
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
    carry_format(policy.name, path)
