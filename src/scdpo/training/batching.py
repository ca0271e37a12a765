"""The order in which examples are trained on: seeded, grouped by length, fixed beforehand.

The whole order of a training is computed before it starts, so that a resumed training sees
exactly what an undisturbed one would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def training_order(
    lengths: Sequence[int],
    *,
    batch_size: int,
    micro_batch_size: int,
    epochs: float,
    seed: int,
    group: int = 16,
) -> list[list[int]]:
    """Micro-batches of example indices for a whole training.

    Each epoch is shuffled, cut into groups of `group` batches, and sorted by length inside a
    group, so that batches hold sequences of similar length; the batches are shuffled again.
    Every batch of `batch_size` examples becomes `ceil(batch_size / micro_batch_size)`
    micro-batches that follow each other; examples that do not fill a batch at the end of an
    epoch are left for the epochs after it (another shuffle), never trained on with a
    smaller batch, unless there are fewer examples than one batch.
    """
    count = len(lengths)
    batch_size = min(batch_size, count)
    per_epoch = count // batch_size
    order: list[list[int]] = []
    for epoch in range(math.ceil(epochs)):
        batches = _epoch(
            np.asarray(lengths), batch_size, np.random.default_rng((seed, epoch)), group
        )
        share = min(1.0, epochs - epoch)
        for batch in batches[: round(per_epoch * share)]:
            order += _micro_batches(batch, micro_batch_size)
    return order


def _epoch(
    lengths: np.ndarray, batch_size: int, random: np.random.Generator, group: int
) -> list[list[int]]:
    shuffled = random.permutation(len(lengths))
    shuffled = shuffled[: len(lengths) // batch_size * batch_size]
    batches: list[list[int]] = []
    for start in range(0, len(shuffled), group * batch_size):
        part = shuffled[start : start + group * batch_size]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [
            [int(i) for i in part[b : b + batch_size]] for b in range(0, len(part), batch_size)
        ]
    return [batches[i] for i in random.permutation(len(batches))]


def _micro_batches(batch: list[int], size: int) -> list[list[int]]:
    """Parts of equal count (to one), so that accumulation weighs them alike."""
    parts = math.ceil(len(batch) / size)
    return [batch[i * len(batch) // parts : (i + 1) * len(batch) // parts] for i in range(parts)]
