"""Which pairs an optimizer step sees: a function of seed and epoch only.

A resumed training therefore sees exactly what an uninterrupted one would have seen, and the
batches are the same for trees and for pairs, on one process and on many.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

LOOKAHEAD = 64
"""Number of groups that a step may pass over because they do not fit."""


@dataclass(frozen=True, slots=True)
class OptimizerStep:
    """The examples of an optimizer step, and how many epochs are done after it."""

    examples: tuple[int, ...]
    epochs: float


def by_question(keys: Sequence[Hashable], most: int | None = None) -> list[list[int]]:
    """Indices grouped by key, in order of first occurrence; groups of at most `most`."""
    groups: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    size = most or max(len(keys), 1)
    return [g[start : start + size] for g in groups.values() for start in range(0, len(g), size)]


def plan_epochs(
    groups: Sequence[Sequence[int]], batch_size: int, epochs: int, seed: int
) -> list[OptimizerStep]:
    """The optimizer steps of a training: every example once per epoch, groups never split.

    In each epoch the groups are shuffled and taken in order; a group that would make a step larger
    than `batch_size` waits for the next. A step may therefore be a few examples short, and the
    last of an epoch has what is left. No group may be larger than `batch_size`.
    """
    steps: list[OptimizerStep] = []
    for epoch in range(epochs):
        order = np.random.default_rng((seed, epoch)).permutation(len(groups))
        batches = _fill([groups[i] for i in order], batch_size)
        steps += [
            OptimizerStep(tuple(batch), epoch + (n + 1) / len(batches))
            for n, batch in enumerate(batches)
        ]
    return steps


def _fill(groups: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    batches: list[list[int]] = []
    waiting: list[Sequence[int]] = []
    left = list(groups[::-1])
    while left or waiting:
        batch: list[int] = []
        passed: list[Sequence[int]] = []
        while len(batch) < batch_size and len(passed) < LOOKAHEAD and (waiting or left):
            group = waiting.pop(0) if waiting else left.pop()
            if len(batch) + len(group) <= batch_size:
                batch += group
            else:
                passed.append(group)
        waiting = passed + waiting
        batches.append(batch)
    return batches
