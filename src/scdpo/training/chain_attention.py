"""Attention of token trees on a CPU, piece by piece, as one operator with its own backward pass.

The queries of a chain attend to a few ranges of keys: those on the path to it, and its own. Flash
attention computes each of these pieces by itself; the results are combined by their log-sum-exps,
and the backward pass of a piece needs only the result of the whole (arXiv 2205.14135, Sec. 3 and
App. B). No mask is made, no key is copied, and nothing is computed that the tree forbids.

Shapes: query (1, H, N, d), key and value (1, G, N, d) with H a multiple of G.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scdpo.training.internals import private_part
from scdpo.training.tree import Chain

_NAME = "_scaled_dot_product_flash_attention_for_cpu"
_flash = private_part(torch.ops.aten, _NAME, "torch")
_flash_backward = private_part(torch.ops.aten, f"{_NAME}_backward", "torch")


class _Piece(NamedTuple):
    """Queries `start` to `stop`, keys `first` to `last`; causal where they are the same."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def causal(self) -> bool:
        return self.first == self.start


def pieces_of(chains: Sequence[Chain]) -> list[int]:
    """The pieces of a row, four numbers each, as an operator takes no structures."""
    flat: list[int] = []
    for chain in chains:
        for first, last in (*chain.before, (chain.start, chain.stop)):
            flat += [chain.start, chain.stop, first, last]
    return flat


def chain_attention(
    query: Tensor, key: Tensor, value: Tensor, pieces: Sequence[int], scale: float
) -> Tensor:
    """Attention of a row of trees, (1, H, N, d); `pieces` are those of `pieces_of`."""
    out: Tensor = torch.ops.scdpo.chain_attention(query, key, value, list(pieces), scale)[0]
    return out


@torch.library.custom_op("scdpo::chain_attention", mutates_args=(), device_types="cpu")
def _attend(
    query: Tensor, key: Tensor, value: Tensor, pieces: list[int], scale: float
) -> tuple[Tensor, Tensor]:
    """The attended values and the log-sum-exps, (1, H, N), of all scores of a query."""
    key, value = (_expanded(states, query.shape[1]) for states in (key, value))
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    lse = query.new_empty(query.shape[:3], dtype=_sums(query.dtype))
    for _, group in groupby(_pieces(pieces), key=lambda piece: piece.start):
        parts = list(group)
        here = slice(parts[0].start, parts[0].stop)
        outs, sums = zip(
            *(
                _flash(
                    query[:, :, here],
                    key[:, :, piece.first : piece.last],
                    value[:, :, piece.first : piece.last],
                    0.0,
                    piece.causal,
                    scale=scale,
                )
                for piece in parts
            ),
            strict=True,
        )
        if len(parts) == 1:
            out[:, :, here], lse[:, :, here] = outs[0], sums[0]
            continue
        whole = torch.stack(sums).logsumexp(0)
        shares = [(part - whole).exp_()[..., None] for part in sums]
        out[:, :, here] = sum(o * share for o, share in zip(outs, shares, strict=True))
        lse[:, :, here] = whole
    return out, lse


@_attend.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, pieces: list[int], scale: float) -> Any:
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    return out, query.new_empty(query.shape[:3], dtype=_sums(query.dtype))


@torch.library.custom_op("scdpo::chain_attention_backward", mutates_args=(), device_types="cpu")
def _attend_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    pieces: list[int],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    groups = key.shape[1]
    key, value = (_expanded(states, query.shape[1]) for states in (key, value))
    found = tuple(torch.zeros_like(t) for t in (query, key, value))
    for piece in _pieces(pieces):
        here, there = slice(piece.start, piece.stop), slice(piece.first, piece.last)
        parts = _flash_backward(
            gradient[:, :, here],
            query[:, :, here],
            key[:, :, there],
            value[:, :, there],
            out[:, :, here],
            lse[:, :, here],
            0.0,
            piece.causal,
            scale=scale,
        )
        for whole, part, where in zip(found, parts, (here, there, there), strict=True):
            whole[:, :, where] += part
    of_query, of_key, of_value = found
    return of_query, _summed(of_key, groups), _summed(of_value, groups)


@_attend_backward.register_fake
def _(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_others: Any) -> Any:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    query, key, value, ctx.pieces, ctx.scale = inputs
    ctx.save_for_backward(query, key, value, *output)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, of_out: Tensor, of_lse: Tensor | None) -> Any:
    found = torch.ops.scdpo.chain_attention_backward(
        of_out, *ctx.saved_tensors, ctx.pieces, ctx.scale
    )
    return (*found, None, None)


_attend.register_autograd(_backward, setup_context=_keep)

OPERATOR = torch.ops.scdpo.chain_attention.default
"""The operator, as `torch.utils.checkpoint` knows it."""


def _pieces(flat: Sequence[int]) -> Iterator[_Piece]:
    return (_Piece(*flat[n : n + 4]) for n in range(0, len(flat), 4))


def _sums(dtype: torch.dtype) -> torch.dtype:
    """The number format of flash attention's sums."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _expanded(states: Tensor, heads: int) -> Tensor:
    """(1, G, N, d) → (1, H, N, d)."""
    return states.repeat_interleave(heads // states.shape[1], dim=1)


def _summed(gradient: Tensor, groups: int) -> Tensor:
    """(1, H, N, d) → (1, G, N, d)."""
    _, _, n, d = gradient.shape
    return gradient.view(1, groups, -1, n, d).sum(2)
