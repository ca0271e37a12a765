"""Preallocated keys and values for a batch of rows, written in place during decoding.

Shape legend: L layers, B rows, H key/value heads, C columns, D head dimension, q query tokens.
A token's column is its position, so rows of unequal length need no shifting; columns beyond a
row's own length are masked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import Cache, DynamicCache

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_GROWTH = 64
"""Columns added at a time: enough for a typical step, with little memory left unused."""


@dataclass(frozen=True, slots=True)
class KVShape:
    """Shape of one token's keys and values, the same in every layer."""

    layers: int
    heads: int
    dim: int
    dtype: torch.dtype
    device: torch.device

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's keys and values in all layers."""
        return 2 * self.layers * self.heads * self.dim * self.dtype.itemsize


def kv_shape(cache: DynamicCache) -> KVShape | None:
    """The shape of a filled cache, or None if its layers, or its keys and values, differ."""
    shapes = set()
    for layer in cache.layers:
        for tensor in (getattr(layer, "keys", None), getattr(layer, "values", None)):
            if tensor is None or tensor.ndim != 4:
                return None
            shapes.add((tensor.shape[1], tensor.shape[3], tensor.dtype, tensor.device))
    if len(shapes) != 1:
        return None
    heads, dim, dtype, device = shapes.pop()
    return KVShape(len(cache.layers), heads, dim, dtype, device)


class KVRows(Cache):
    """A transformers cache over rows of one preallocated tensor.

    `forward` selects the rows and columns that the model writes and reads; attention layers then
    call `update`, as with any cache.
    """

    def __init__(self, shape: KVShape, n_positions: int):
        super().__init__(layers=[])
        self.shape = shape
        self._last_position = n_positions - 1
        self.release()
        self._rows = slice(0, 0)
        self._columns = torch.empty(0, dtype=torch.long)
        self._width = 0

    def release(self) -> None:
        """Free the memory."""
        shape = self.shape
        self._buffer = torch.empty(0, dtype=shape.dtype, device=shape.device)
        self.data = self._buffer.view(2 * shape.layers, 0, shape.heads, 0, shape.dim)
        """All keys and values, [2L, B, H, C, D]; those of layer i are at 2i and 2i + 1."""

    def allocate(self, n_rows: int, n_columns: int) -> None:
        """Make room for `n_rows` rows of at least `n_columns` tokens; old content is lost.

        The memory is reused, with some to spare for the longer prompts of the next step. New
        memory is zeroed: attention multiplies masked values by zero, and raw memory may hold a
        NaN.
        """
        shape = self.shape
        n_columns = math.ceil(n_columns / _GROWTH) * _GROWTH
        size = (2 * shape.layers, n_rows, shape.heads, n_columns, shape.dim)
        needed = math.prod(size)
        if needed > self._buffer.numel():
            self.release()
            self._buffer = torch.zeros(needed * 5 // 4, dtype=shape.dtype, device=shape.device)
        self.data = self._buffer[:needed].view(size)

    def grow(self, n_rows: int, n_columns: int, *, keep: int | None = None) -> None:
        """Make room for `n_columns` tokens in `n_rows` rows, keeping the first `keep` (all) rows.

        Of a wider memory, the rest of the rows is given up.
        """
        n_kept = n_rows if keep is None else keep
        held, width = self.data.shape[1], self.data.shape[3]
        if n_columns <= width and n_rows <= held:
            return
        old = self.data[:, :n_kept, :, :width].clone()
        self.allocate(n_rows, max(n_columns, width))
        self.data[:, :n_kept, :, :width] = old

    def forward(
        self,
        model: PreTrainedModel,
        rows: slice,
        ids_Bq: torch.Tensor,
        columns_Bq: torch.Tensor,
        width: int,
        keep_q: torch.Tensor | int = 1,
    ) -> torch.Tensor:
        """Write keys and values of `ids_Bq` at `columns_Bq`; returns logits, [B, kept, V].

        A token attends to its row's columns up to its own. `width` is one more than the largest
        column. `keep_q` lists the query indices whose logits to return; a number means that many
        last ones.
        """
        self._rows, self._columns, self._width = rows, columns_Bq, width
        span = torch.arange(width, device=self.shape.device)
        hidden_BqC = span[None, None, :] > columns_Bq[:, :, None]
        mask_BqC = torch.zeros(hidden_BqC.shape, dtype=self.shape.dtype, device=span.device)
        mask_BqC.masked_fill_(hidden_BqC, torch.finfo(self.shape.dtype).min)
        output = model(
            input_ids=ids_Bq,
            attention_mask=mask_BqC[:, None],
            # Padding may lie beyond the model's last position.
            position_ids=columns_Bq.clamp(max=self._last_position),
            past_key_values=self,
            use_cache=True,
            logits_to_keep=keep_q,
        )
        logits = output.logits
        assert isinstance(logits, torch.Tensor)
        return logits

    def move(self, sources: list[int], targets: list[int], width: int) -> None:
        """Copy the first `width` columns of rows `sources` over rows `targets`."""
        if sources:
            self.data[:, targets, :, :width] = self.data[:, sources, :, :width]

    # The interface that transformers expects of a cache.

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new keys and values, [B, H, q, D]; return those of the rows, [B, H, width, D]."""
        keys, values = (self.data[2 * layer_idx + i, self._rows] for i in (0, 1))
        rows = torch.arange(keys.shape[0], device=keys.device)[:, None]
        keys.transpose(1, 2)[rows, self._columns] = key_states.transpose(1, 2)
        values.transpose(1, 2)[rows, self._columns] = value_states.transpose(1, 2)
        return keys[:, :, : self._width], values[:, :, : self._width]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns before those being written, in the longest row."""
        return self._width - self._columns.shape[-1]

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        """Number of allocated columns."""
        return self.data.shape[3]

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Number of columns to attend to, and the first of them."""
        return self._width, 0
