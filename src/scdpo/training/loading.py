"""The initial policy of a training: a folder, a hub name, a `Policy` or a loaded model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import torch
from transformers import PretrainedConfig, PreTrainedModel

from scdpo.errors import InputError
from scdpo.policies import Policy, load_policy
from scdpo.training.adapters import load_in_four_bits
from scdpo.training.processes import process_count, process_group
from scdpo.training.recomputing import checkpoints_activations, disable_checkpointing

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AnyPolicy: TypeAlias = Union[str, Path, Policy, "PreTrainedModel"]
"""A policy folder, a name on the hub, a loaded policy, or a loaded model."""


def initial_policy(
    policy: AnyPolicy,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    quantize: bool = False,
) -> Policy:
    """The policy, loaded in fp32 (`quantize`: in 4 bits) unless it is loaded already.

    `tokenizer` belongs to a loaded model, and takes the place of a policy's own. Raises
    InputError for a loaded model without one or with `quantize`, PolicyError where a folder or
    hub name holds no policy, MissingDependency without bitsandbytes.
    """
    process_group()  # joined before loading: a launcher may have one process read the weights
    if isinstance(policy, (str, Path)):
        # Of several processes, each leaves it to the Trainer to place the model.
        device = None if process_count() == 1 else "cpu"
        loaded = (
            load_in_four_bits(policy, device) if quantize else load_policy(policy, device=device)
        )
        return Policy(loaded.name, loaded.model, tokenizer or loaded.tokenizer)
    if quantize:
        raise InputError(
            "lora.quantize: weights are quantised while they are loaded; pass the policy's folder"
            " or hub name instead of a loaded model"
        )
    if isinstance(policy, Policy):
        return Policy(policy.name, policy.model, tokenizer or policy.tokenizer)
    if not isinstance(policy, PreTrainedModel):
        raise InputError(
            "policy: a folder, a hub name, a Policy or a transformers model, found"
            f" {type(policy).__name__}"
        )
    if tokenizer is None:
        raise InputError("policy: a loaded model needs its tokenizer, passed as tokenizer=")
    return Policy(policy.name_or_path or type(policy).__name__, policy, tokenizer)


def context_of(config: PretrainedConfig) -> int | None:
    """The longest text in tokens that a model can read, if its config says so."""
    return getattr(config, "max_position_embeddings", None)


def context_length(policy: Policy, max_length: int) -> int:
    """The longest text in tokens that can be trained on."""
    return min(max_length, context_of(policy.model.config) or max_length)


def embedding_count(model: PreTrainedModel) -> int:
    """The number of token ids that a model knows."""
    embeddings: Any = model.get_input_embeddings()
    known = getattr(embeddings, "num_embeddings", None)  # the weights may be sharded
    return int(embeddings.weight.shape[0] if known is None else known)


@contextmanager
def evaluation_mode_after(policy: Policy) -> Iterator[None]:
    """Put a model back into evaluation mode after training, without gradient checkpointing."""
    model = policy.model
    before = checkpoints_activations(model)
    try:
        yield
    finally:
        model.train(False)
        if checkpoints_activations(model) and not before:
            disable_checkpointing(model)


@contextmanager
def without_dropout(model: torch.nn.Module) -> Iterator[None]:
    """Turn a model's dropout off, and back on at the end."""
    before: list[tuple[dict[str, Any], str, float]] = []
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            before.append((vars(module), "p", module.p))
        attention = getattr(module, "attention_dropout", None)
        if isinstance(attention, float):
            before.append((vars(module), "attention_dropout", attention))
    try:
        for owner, name, _ in before:
            owner[name] = 0.0
        yield
    finally:
        for owner, name, value in before:
            owner[name] = value
