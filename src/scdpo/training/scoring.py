"""Log-probs of sequences under a model: over token trees, or each sequence by itself.

The same code scores for training, for the reference and for metrics, whatever wraps the model
(DistributedDataParallel, FSDP, DeepSpeed, an adapter).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from scdpo.errors import InputError
from scdpo.training.attention import IMPLEMENTATIONS, Backend, attention_inputs
from scdpo.training.internals import private_part
from scdpo.training.losses import sequence_logps
from scdpo.training.padding import SequenceBatch
from scdpo.training.tree import Tree

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK_TOKENS = 256
"""Number of tokens whose logits are computed at a time."""
LOGITS_BYTES = 256 * 2**20
"""Logits of a row up to this size are kept for the backward pass; larger ones are recomputed."""

Head = Literal["chunked", "own"]


@dataclass(frozen=True, slots=True)
class TreeScoring:
    """How trees are scored with a model: the attention, and how logits are made.

    `head` is `chunked` (the output embeddings alone, in chunks) or `own` (the model's own logits
    at the positions that count, for models that transform them further).
    """

    backend: Backend
    head: Head = "chunked"


def model_inside(model: nn.Module) -> PreTrainedModel:
    """The transformers or peft model in what the Trainer wrapped."""
    from accelerate.utils import extract_model_from_parallel

    return cast("PreTrainedModel", extract_model_from_parallel(model))


def decoder_of(model: PreTrainedModel) -> nn.Module:
    """The part of a causal model before its output embeddings."""
    return cast(nn.Module, cast(Any, model).get_decoder())


def takes_logits_to_keep(model: nn.Module) -> bool:
    """Whether the model can leave out the logits of leading positions."""
    inner = getattr(model, "get_base_model", lambda: model)()
    return "logits_to_keep" in inspect.signature(type(inner).forward).parameters


def score_padded(model: nn.Module, batch: SequenceBatch) -> Tensor:
    """Log-prob (B,) of what counts in each padded sequence, fp64, nats.

    No attention mask is passed: padding is on the right, where no real token attends to it, and
    without a mask the fused causal attention can be used.
    """
    inner = model_inside(model)
    device = next(inner.parameters()).device
    ids_BT, mask_BT = batch["input_ids"].to(device), batch["mask"].to(device)
    inputs: dict[str, Any] = {"input_ids": ids_BT, "use_cache": False}
    if takes_logits_to_keep(inner):
        keep = batch["keep"]
        logits_BTV = model(**inputs, logits_to_keep=keep).logits
        return sequence_logps(logits_BTV, ids_BT[:, -keep:], mask_BT[:, -keep:])
    return sequence_logps(model(**inputs).logits, ids_BT, mask_BT)


def score_tree(model: nn.Module, tree: Tree, scoring: TreeScoring) -> Tensor:
    """Log-prob (S,) of what counts in each sequence of a row of trees, fp64, nats.

    A sequence without counted tokens has log-prob 0. Raises InputError unless the model has the
    attention of `scoring` (`using_attention`; `tree_logps` sees to it).
    """
    logps_E = score_tokens(model, tree, scoring)
    sums_S = torch.zeros(tree.n_sequences, device=logps_E.device, dtype=torch.float64)
    sequence_E = torch.from_numpy(tree.sequence_E).to(logps_E.device)
    return sums_S.index_add(0, sequence_E, logps_E)


def score_tokens(model: nn.Module, tree: Tree, scoring: TreeScoring) -> Tensor:
    """Log-prob (E,) of every counted token, sequence by sequence (see `Tree`), fp64, nats.

    Raises InputError as `score_tree` does.
    """
    inner = model_inside(model)
    if attention_of(inner) != IMPLEMENTATIONS[scoring.backend]:
        raise InputError(
            f"score_tree: the model's attention is {attention_of(inner)}, not that of backend"
            f" {scoring.backend}; use tree_logps, or using_attention around forward and backward"
        )
    device = next(inner.parameters()).device
    token_C, slot_E = np.unique(tree.token_E, return_inverse=True)
    source_C = torch.from_numpy(tree.parent_N[token_C]).to(device)
    target_C = torch.from_numpy(tree.ids_N[token_C]).to(device)
    inputs: dict[str, Any] = {
        "input_ids": torch.from_numpy(tree.ids_N)[None].to(device),
        "position_ids": torch.from_numpy(tree.position_N)[None].to(device),
        "use_cache": False,
        **attention_inputs(tree, scoring.backend, inner.config, device),
    }
    if scoring.head == "own":
        logits_CV = model(**inputs, logits_to_keep=source_C).logits[0]
        logps_C = -F.cross_entropy(logits_CV.float(), target_C, reduction="none")
    else:

        def logps() -> Tensor:
            hidden_NH = decoder_of(inner)(**inputs).last_hidden_state[0]
            head = cast(nn.Module, cast(Any, inner).get_output_embeddings())
            return token_logps(hidden_NH[source_C], target_C, head, tree.n_scored)

        logps_C = _in_place_of_forward(model, inner, logps)
    return logps_C.double()[torch.from_numpy(slot_E).to(device)]


def token_logps(
    hidden_CH: Tensor, target_C: Tensor, head: nn.Module, n_scored: int | None = None
) -> Tensor:
    """Log-prob (C,) of each target token, fp32, from the state that predicts it.

    Computed in chunks of `CHUNK_TOKENS`, as many as `n_scored` tokens take; the logits of all C
    tokens are kept only where they are small (`LOGITS_BYTES`).
    """
    vocabulary = getattr(head, "out_features", None) or cast(Tensor, head.weight).shape[0]
    n_tokens = n_scored or len(target_C)
    n_chunks = max(-(-n_tokens // CHUNK_TOKENS), 1)
    again = 4 * int(vocabulary) * n_tokens > LOGITS_BYTES
    score = partial(checkpoint, _logps, use_reentrant=False) if again else _logps
    chunks = zip(hidden_CH.tensor_split(n_chunks), target_C.tensor_split(n_chunks), strict=True)
    return torch.cat([score(h, t, head) for h, t in chunks])


def _logps(hidden_CH: Tensor, target_C: Tensor, head: nn.Module) -> Tensor:
    return -F.cross_entropy(head(hidden_CH).float(), target_C, reduction="none")


def _in_place_of_forward(
    wrapped: nn.Module, inner: nn.Module, compute: Callable[[], Tensor]
) -> Tensor:
    """`compute`, called by the wrapped model where it would call the inner model's forward.

    What a wrapper does around a forward pass (gathering sharded weights, preparing the reduction
    of gradients) is thus done around this one.
    """
    own = inner.__dict__.get("forward")

    def forward(*args: Any, **options: Any) -> Tensor:
        restore()
        return compute()

    def restore() -> None:
        inner.__dict__.pop("forward", None)
        if own is not None:
            inner.forward = own

    inner.forward = forward
    try:
        return cast(Tensor, wrapped())
    finally:
        restore()


def attention_of(model: nn.Module) -> str:
    """What transformers calls the attention that a model computes with."""
    config = cast(Any, model).config
    return cast(str, private_part(config, "_attn_implementation", "transformers"))


@contextmanager
def using_attention(model: nn.Module, backend: Backend | None) -> Iterator[None]:
    """The model with the attention of a backend; None leaves its own, for padded sequences.

    Layers that are computed again in the backward pass (gradient checkpointing) need it too.
    """
    own = attention_of(model_inside(model))
    with using_implementation(model, own if backend is None else IMPLEMENTATIONS[backend]):
        yield


@contextmanager
def using_implementation(model: nn.Module, wanted: str) -> Iterator[None]:
    """The model with an attention by its name in transformers (`attention_of`)."""
    inner: Any = model_inside(model)
    inner = getattr(inner, "get_base_model", lambda: inner)()
    before = attention_of(inner)
    try:
        if wanted != before:
            inner.set_attn_implementation(wanted)
        yield
    finally:
        if wanted != before:
            inner.set_attn_implementation(before)
