"""Packing texts or trees into rows."""

from __future__ import annotations

from collections.abc import Sequence


def pack(lengths: Sequence[int], row_length: int, multiple: int = 1) -> list[list[int]]:
    """Indices by row, in evenly filled rows of at most `row_length` tokens.

    A text that is longer has a row of its own. The number of rows is a multiple of `multiple`,
    the number of processes that share them, if there are enough texts; no row is empty.
    """
    longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    n_rows = len(_first_fit(longest_first, lengths, row_length))
    n_rows = min(-(-n_rows // multiple) * multiple, len(lengths))
    while True:
        rows: list[list[int]] = [[] for _ in range(n_rows)]
        sizes = [0] * n_rows
        for index in longest_first:
            emptiest = sizes.index(min(sizes))
            rows[emptiest].append(index)
            sizes[emptiest] += lengths[index]
        fits = all(
            size <= row_length or len(row) == 1 for row, size in zip(rows, sizes, strict=True)
        )
        if fits or n_rows == len(lengths):
            return rows
        n_rows = min(n_rows + multiple, len(lengths))


def _first_fit(order: Sequence[int], lengths: Sequence[int], row_length: int) -> list[list[int]]:
    rows: list[list[int]] = []
    room: list[int] = []
    for index in order:
        place = next((r for r, free in enumerate(room) if free >= lengths[index]), len(rows))
        if place == len(rows):
            rows.append([])
            room.append(row_length)
        rows[place].append(index)
        room[place] -= lengths[index]
    return rows
