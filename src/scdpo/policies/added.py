"""Markers of a format that a tokenizer lacks, added to a policy as tokens of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from scdpo.policies.loading import Policy

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


def add_markers(tokenizer: PreTrainedTokenizerBase, markers: Iterable[str]) -> list[str]:
    """Add those markers to a tokenizer that it does not have as single tokens; returns them."""
    from transformers import AddedToken

    vocabulary = tokenizer.get_added_vocab()
    missing = [marker for marker in dict.fromkeys(markers) if marker not in vocabulary]
    tokenizer.add_tokens(
        [AddedToken(marker, special=True, normalized=False) for marker in missing],
        special_tokens=True,
    )
    return missing


def add_tokens(policy: Policy, markers: Iterable[str]) -> tuple[int, ...]:
    """Add markers to a loaded policy in place; returns the ids of those that it did not have.

    The model's embeddings grow if they have too few rows. The new rows, at the input and at the
    output, are the mean of the old ones, so that the policy at first finds every new token as
    likely as an average one.
    """
    old = len(policy.tokenizer)
    added = add_markers(policy.tokenizer, markers)
    if not added:
        return ()
    model: Any = policy.model
    if len(policy.tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(policy.tokenizer), mean_resizing=False)
    ids = cast("list[int]", policy.tokenizer.convert_tokens_to_ids(added))
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    _set_to_mean(inputs.weight, ids, old)
    if outputs is not None and outputs.weight is not inputs.weight:
        _set_to_mean(outputs.weight, ids, old)
        if getattr(outputs, "bias", None) is not None:
            _set_to_mean(outputs.bias, ids, old)
    return tuple(ids)


def _set_to_mean(weight: torch.nn.Parameter, ids: Sequence[int], old: int) -> None:
    import torch

    with torch.no_grad():
        weight[list(ids)] = weight[:old].mean(dim=0)
