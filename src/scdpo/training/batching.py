"""The order in which examples are trained on: a function of seed and epoch only.

A resumed training therefore sees exactly what an uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


def epoch_order(
    lengths: Sequence[int],
    batch_size: int,
    seed: int,
    epoch: int,
    *,
    group: int = 1,
    drop_last: bool = False,
) -> list[int]:
    """The order of one epoch, batch after batch: shuffled, and sorted by length within a batch.

    With `group` 1 an optimizer step sees a random batch; sorting inside it only decides which
    examples share a micro-batch, which reduces padding and does not change the loss. A larger
    `group` sorts the examples of that many batches before cutting them, and shuffles the batches:
    there is even less padding, but a batch then holds examples of similar length. The longest
    examples of a batch come first, so that running out of memory shows at once. Examples that do
    not fill a batch come last, or with `drop_last` are left for other epochs (other shuffles),
    unless there are fewer examples than one batch.
    """
    sizes = np.asarray(lengths)
    batch_size = min(batch_size, len(sizes))
    random = np.random.default_rng((seed, epoch))
    shuffled = random.permutation(len(sizes))
    whole, rest = np.split(shuffled, [len(sizes) // batch_size * batch_size])
    batches: list[np.ndarray] = []
    for start in range(0, len(whole), group * batch_size):
        part = _shortest_first(whole[start : start + group * batch_size], sizes)
        batches += [part[b : b + batch_size] for b in range(0, len(part), batch_size)]
    batches = [batches[i] for i in random.permutation(len(batches))]
    if len(rest) and not drop_last:
        batches.append(_shortest_first(rest, sizes))
    return [int(index) for batch in batches for index in batch[::-1]]


def _shortest_first(indices: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return indices[np.argsort(sizes[indices], kind="stable")]


class EpochOrder(Sampler[int]):
    """`epoch_order` as a sampler."""

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int,
        *,
        group: int = 1,
        drop_last: bool = False,
    ):
        self.lengths = lengths
        self.batch_size = min(batch_size, len(lengths))
        self.seed = seed
        self.group = group
        self.drop_last = drop_last
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (from 0) that the next iteration runs through."""
        self.epoch = epoch

    def indices(self, epoch: int) -> list[int]:
        """The examples of an epoch in order."""
        return epoch_order(
            self.lengths,
            self.batch_size,
            self.seed,
            epoch,
            group=self.group,
            drop_last=self.drop_last,
        )

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices(self.epoch))

    def __len__(self) -> int:
        n = len(self.lengths)
        return n // self.batch_size * self.batch_size if self.drop_last else n

    @property
    def n_batches(self) -> int:
        """Batches of one epoch, which are its optimizer steps."""
        return -(-len(self) // self.batch_size)
