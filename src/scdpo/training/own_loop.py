"""Token trees in one's own training loop: log-probs of sequences, what they share computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from scdpo.errors import InputError
from scdpo.policies import encode_text
from scdpo.records import Pair
from scdpo.training.attention import IMPLEMENTATIONS, Backend
from scdpo.training.loading import embedding_count
from scdpo.training.probe import candidates, find_scoring
from scdpo.training.recomputing import checkpoints_activations
from scdpo.training.scoring import (
    TreeScoring,
    attention_of,
    model_inside,
    score_tokens,
    score_tree,
    using_attention,
    using_implementation,
)
from scdpo.training.tokens import pair_tokens
from scdpo.training.tree import MaskedIds, Tree, grow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Attention: TypeAlias = Literal["auto", "paths", "sdpa", "flex"]

_scorings: WeakKeyDictionary[nn.Module, dict[Attention, TreeScoring]] = WeakKeyDictionary()
"""The scoring that was found for a model, by the attention that was asked for."""
_kept: WeakKeyDictionary[nn.Module, tuple[Backend, str]] = WeakKeyDictionary()
"""The models inside `tree_attention`: the backend that is kept on, and their own attention."""


def tree_logps(
    model: nn.Module, sequences: Sequence[MaskedIds], *, attention: Attention = "auto"
) -> Tensor:
    """Log-prob (S,) of the counted tokens of each sequence, fp64, nats; differentiable.

    `sequences` are S pairs of token ids and a mask, True where a token counts (see
    `pair_sequences`). They form one row, in which every prefix that several of them share is
    computed once. The first token of a sequence never counts, as nothing predicts it.

    `attention` is one of `paths`, `sdpa` and `flex` (docs/training.md), or `auto` for the fastest
    that works. The first call for a model finds out by scoring some of the sequences both ways.
    The model has that attention during the call and its own again afterwards. With gradient
    checkpointing the backward pass needs it too: call this inside `tree_attention`.

    Raises InputError for malformed sequences, for a model that cannot score trees, and where
    gradient checkpointing would compute layers again with the wrong attention.
    """
    return _scored(model, sequences, attention, score_tree)


def tree_token_logps(
    model: nn.Module, sequences: Sequence[MaskedIds], *, attention: Attention = "auto"
) -> list[Tensor]:
    """Log-prob of every counted token of each sequence, fp64, nats; `tree_logps` are their sums.

    Entry s has shape (counted tokens of sequence s,), in their order. See `tree_logps` for the
    arguments and for what is raised.
    """
    logps_E = _scored(model, sequences, attention, score_tokens)
    return list(logps_E.split([sum(map(bool, mask[1:])) for _, mask in sequences]))


def _scored(
    model: nn.Module,
    sequences: Sequence[MaskedIds],
    attention: Attention,
    score: Callable[[nn.Module, Tree, TreeScoring], Tensor],
) -> Tensor:
    _check(model, sequences)
    scoring = _scoring_of(model, sequences, attention)
    recomputes = model.training and torch.is_grad_enabled() and checkpoints_activations(model)
    if recomputes and attention_of(model_inside(model)) != IMPLEMENTATIONS[scoring.backend]:
        raise InputError(
            "tree_logps: gradient checkpointing computes layers again in the backward pass; put"
            " forward and backward inside `with tree_attention(model):`"
        )
    with using_attention(model, scoring.backend):
        try:
            return score(model, grow(sequences), scoring)
        except NotImplementedError as error:
            raise InputError(f"tree_logps: the model cannot score token trees ({error})") from error


@contextmanager
def tree_attention(model: nn.Module, *, attention: Attention = "auto") -> Iterator[None]:
    """Keep the attention that `tree_logps` needs, around forward and backward passes.

    Inside, the model can score token trees only; afterwards it has its own attention again.
    Raises InputError for an unknown attention.
    """
    backend = _backends(model, attention)[0]
    inner = model_inside(model)
    before = _kept.get(inner)
    _kept[inner] = backend, before[1] if before else attention_of(inner)
    try:
        with using_attention(model, backend):
            yield
    finally:
        if before is None:
            del _kept[inner]
        else:
            _kept[inner] = before


def pair_sequences(
    pairs: Iterable[Pair],
    tokenizer: PreTrainedTokenizerBase,
    *,
    score_output: bool = False,
    score_shared: bool = False,
) -> list[MaskedIds]:
    """Token ids and loss masks of pairs, in the order chosen, rejected, chosen, rejected, …

    Only the steps after the shared ones count, and of those only what the policy wrote; with
    `score_output` execution output counts too, with `score_shared` the shared steps.
    """

    def encode(text: str, /, *, start: bool = False) -> Sequence[int]:
        return encode_text(tokenizer, text, start=start)

    sequences: list[MaskedIds] = []
    for pair in pairs:
        tokens = pair_tokens(pair, encode, score_output=score_output, score_shared=score_shared)
        sequences += [tokens.chosen, tokens.rejected]
    return sequences


def _scoring_of(
    model: nn.Module, sequences: Sequence[MaskedIds], attention: Attention
) -> TreeScoring:
    inner = model_inside(model)
    backend, own = _kept.get(inner, (None, attention_of(inner)))
    wanted: Attention = backend or attention
    known = _scorings.setdefault(inner, {})
    if wanted not in known:
        training = model.training
        model.eval()  # dropout would make the two ways of scoring differ
        try:
            with using_implementation(model, own):
                backends = _backends(model, wanted)
                found, reason = find_scoring(model, [_scorable(sequences)], backends)
        finally:
            model.train(training)
        if found is None:
            raise InputError(f"tree_logps: the model cannot score token trees ({reason})")
        known[wanted] = found
    return known[wanted]


def _scorable(sequences: Sequence[MaskedIds]) -> list[MaskedIds]:
    """The sequences in which something counts; if there are none, all with every token counting."""
    some = [(ids, mask) for ids, mask in sequences if any(mask[1:])]
    return some or [(ids, [True] * len(ids)) for ids, _ in sequences if len(ids) > 1]


def _backends(model: nn.Module, attention: Attention) -> Sequence[Backend]:
    if attention != "auto" and attention not in IMPLEMENTATIONS:
        raise InputError(
            f"attention {attention!r}: accepted are auto, {', '.join(IMPLEMENTATIONS)}"
        )
    on_gpu = next(model.parameters()).device.type == "cuda"
    return candidates(attention, checkpoints_activations(model), on_gpu)


def _check(model: nn.Module, sequences: Sequence[MaskedIds]) -> None:
    if not sequences:
        raise InputError("tree_logps: no sequences")
    inner = model_inside(model)
    context = getattr(inner.config, "max_position_embeddings", None)
    size = embedding_count(inner)
    for n, (ids, mask) in enumerate(sequences):
        if not len(ids) or len(ids) != len(mask):
            fault = f"{len(ids)} token ids with a mask of {len(mask)}"
        elif context is not None and len(ids) > context:
            fault = f"{len(ids)} tokens, but the model's context is {context}"
        elif not 0 <= min(ids) <= max(ids) < size:
            fault = f"token ids from {min(ids)} to {max(ids)}, but the model has {size} tokens"
        else:
            continue
        raise InputError(f"tree_logps: sequence {n} has {fault}")
