"""Several solutions in one row, where they do not see each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from scdpo.training.collate import MaskedIds, SequenceBatch, pad_sequences


def pack(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Indices by row: first fit, longest first.

    Rows hold at most `row_length` tokens; a solution longer than that has a row of its own.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = next((r for r, free in enumerate(room) if free >= lengths[index]), len(rows))
        if place == len(rows):
            rows.append([])
            room.append(row_length)
        rows[place].append(index)
        room[place] -= lengths[index]
    return rows


def packed_batch(sequences: Sequence[MaskedIds], row_length: int) -> SequenceBatch:
    """A batch of packed rows.

    A token sees the earlier tokens of its own solution alone and positions count from its
    start; the first token of a solution never counts, as nothing of its own comes before it.
    """
    rows = [[sequences[i] for i in row] for row in pack([len(s[0]) for s in sequences], row_length)]
    batch = pad_sequences([_joined(row) for row in rows])
    shape_BT = batch["input_ids"].shape
    segments_BT = torch.full(shape_BT, -1)
    positions_BT = torch.zeros(shape_BT, dtype=torch.int64)
    for r, row in enumerate(rows):
        lengths = torch.tensor([len(ids) for ids, _ in row])
        size = int(lengths.sum())
        segments_BT[r, :size] = torch.arange(len(row)).repeat_interleave(lengths)
        starts = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        positions_BT[r, :size] = torch.arange(size) - starts
    same_BTT = segments_BT[:, :, None] == segments_BT[:, None, :]
    causal_TT = torch.ones(shape_BT[1], shape_BT[1], dtype=torch.bool).tril()
    batch["position_ids"] = positions_BT
    batch["attention_mask"] = (same_BTT & causal_TT)[:, None]
    return batch


def _joined(row: Sequence[MaskedIds]) -> MaskedIds:
    ids = tuple(token for sequence, _ in row for token in sequence)
    mask = tuple(counts and t > 0 for _, marks in row for t, counts in enumerate(marks))
    return ids, mask
