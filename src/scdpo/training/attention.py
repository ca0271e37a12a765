"""Attention over token trees: each token attends to its ancestors and itself.

There are three backends:

- `paths`: chain by chain, each against the tokens on its path (on a CPU `chain_attention`).
  Little is computed that the tree forbids, so a row may be as long as memory allows. Any device.
- `sdpa`: one masked product over the whole row, quadratic in its length. Any device.
- `flex`: FlexAttention, which skips the blocks that the tree forbids. GPU only, as it has no
  backward pass on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface

from scdpo.training.chain_attention import chain_attention, pieces_of
from scdpo.training.tree import Chain, Ints, Tree, visible

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Backend = Literal["paths", "sdpa", "flex"]
IMPLEMENTATIONS: Mapping[Backend, str] = {
    "paths": "scdpo_paths",
    "sdpa": "sdpa",
    "flex": "flex_attention",
}
"""The name of each backend's attention in transformers."""
_REFUSED = ("softcap", "s_aux", "position_bias")
"""Options that some models pass to their attention and `paths` does not compute."""


class PathPlan:
    """How `paths` goes over a row: the keys of a chain are those on the path to it and its own.

    `pieces` are for `chain_attention`, which needs paths (`longest`) no longer than a layer's
    window. The rest is for other devices and windows: `lengths` of the chains; `key_index` (K,)
    of all their keys, `key_lengths` for each chain. Masks are made when first needed. (Not a
    dataclass, as wrappers of models copy those field by field.)
    """

    def __init__(self, tree: Tree, device: torch.device | str = "cpu"):
        self._tree = tree
        self.pieces = pieces_of(tree.chains)
        self.longest = int(tree.position_N.max()) + 1
        self._keys = [
            np.concatenate([np.arange(a, b) for a, b in (*c.before, (c.start, c.stop))])
            for c in tree.chains
        ]
        self.lengths = [chain.stop - chain.start for chain in tree.chains]
        self.key_index = torch.from_numpy(np.concatenate(self._keys)).to(device)
        self.key_lengths = [len(keys) for keys in self._keys]
        self._masks: dict[tuple[int | None, torch.dtype], list[Tensor | None]] = {}

    def masks(self, window: int | None, dtype: torch.dtype) -> list[Tensor | None]:
        """Additive masks (queries, keys) of all chains; None is causal."""
        if (window, dtype) not in self._masks:
            chains = zip(self._tree.chains, self._keys, strict=True)
            self._masks[window, dtype] = [
                self._mask(chain, keys, window, dtype) for chain, keys in chains
            ]
        return self._masks[window, dtype]

    def _mask(
        self, chain: Chain, keys: Ints, window: int | None, dtype: torch.dtype
    ) -> Tensor | None:
        if window is not None and len(keys) <= window:
            window = None
        if window is None and not chain.before:
            return None
        position = self._tree.position_N
        apart = position[chain.start : chain.stop, None] - position[keys][None, :]
        seen = (apart >= 0) if window is None else (apart >= 0) & (apart < window)
        mask = torch.zeros(seen.shape, dtype=dtype)
        mask.masked_fill_(torch.from_numpy(~seen), float("-inf"))
        return mask.to(self.key_index.device)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def paths_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    tree_paths: PathPlan | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of one row chain by chain, as transformers calls it.

    `query` (1, heads, N, d), `key` and `value` (1, key/value heads, N, d); returns
    (1, N, heads, d). Raises NotImplementedError for what it does not compute.
    """
    refused = [name for name in _REFUSED if options.get(name) is not None]
    refused += ["attention dropout"] * bool(dropout) + ["a mask"] * (attention_mask is not None)
    if tree_paths is None or refused:
        raise NotImplementedError(f"paths attention: {', '.join(refused) or 'no tree'}")
    whole = tree_paths.longest <= (sliding_window or math.inf)
    if whole and query.device.type == "cpu" and value.shape[-1] == query.shape[-1]:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        attended = chain_attention(query, key, value, tree_paths.pieces, scale)
        return attended.transpose(1, 2), None
    return _gathered_attention(query, key, value, tree_paths, sliding_window, scaling), None


def _gathered_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plan: PathPlan,
    window: int | None,
    scaling: float | None,
) -> Tensor:
    """Each chain against a copy of the keys on its path, masked."""
    groups = query.shape[1] // key.shape[1]
    keys = torch.split(_gathered(key, plan.key_index), plan.key_lengths)
    values = torch.split(_gathered(value, plan.key_index), plan.key_lengths)
    queries = torch.split(query, plan.lengths, dim=2)
    out: list[Tensor] = []
    for q, k, v, mask in zip(queries, keys, values, plan.masks(window, query.dtype), strict=True):
        attended = F.scaled_dot_product_attention(
            q,
            _heads_first(k, groups),
            _heads_first(v, groups),
            attn_mask=mask,
            is_causal=mask is None,
            scale=scaling,
        )
        out.append(attended.transpose(1, 2))
    return torch.cat(out, dim=1)


def _gathered(states: Tensor, index: Tensor) -> Tensor:
    """(1, heads, N, d) → the tokens of `index`, (K, heads, d)."""
    return states[0].transpose(0, 1).index_select(0, index)


def _heads_first(states: Tensor, groups: int) -> Tensor:
    """(K, heads, d) → (1, heads · groups, K, d)."""
    if groups > 1:
        n, heads, d = states.shape
        states = states[:, :, None, :].expand(n, heads, groups, d).reshape(n, heads * groups, d)
    return states.transpose(0, 1)[None]


def attention_inputs(
    tree: Tree, backend: Backend, config: PretrainedConfig, device: torch.device | str
) -> dict[str, Any]:
    """Model inputs that let each token of a row see only its ancestors and itself.

    Layers with a sliding window see that much of their path. Raises NotImplementedError for
    layers that are neither full nor sliding attention.
    """
    if backend == "paths":
        return {"tree_paths": PathPlan(tree, device)}
    make = _dense_mask if backend == "sdpa" else _block_mask
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if unknown := kinds - {"full_attention", "sliding_attention"}:
        raise NotImplementedError(f"layers of kind {', '.join(sorted(unknown))}")
    if not kinds:
        return {"attention_mask": make(tree, window, device)}
    windows = {"full_attention": None, "sliding_attention": window}
    return {"attention_mask": {kind: make(tree, windows[kind], device) for kind in kinds}}


def _dense_mask(tree: Tree, window: int | None, device: torch.device | str) -> Tensor:
    return torch.from_numpy(visible(tree, window))[None, None].to(device)


def _block_mask(tree: Tree, window: int | None, device: torch.device | str) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    last_N = torch.from_numpy(tree.last_N).to(device)
    position_N = torch.from_numpy(tree.position_N).to(device)

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        inside = (key <= query) & (query <= last_N[key])
        if window is not None:
            inside = inside & (position_N[query] - position_N[key] < window)
        return inside

    n = len(tree)
    return create_block_mask(seen, None, None, n, n, device=str(device))


AttentionInterface.register(IMPLEMENTATIONS["paths"], paths_attention)
