"""Pairs in the form that goes through a model: token trees in rows, or padded sequences.

The sequences of n pairs are in the order chosen, rejected, chosen, rejected …
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scdpo.training.packing import pack
from scdpo.training.padding import SequenceBatch, pad_sequences
from scdpo.training.planned_trainer import Work, shard
from scdpo.training.steps import by_question
from scdpo.training.tokens import PairTokens
from scdpo.training.tree import MaskedIds, Tree, equalise_chunks, grow, join


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Pairs, by their indices, whose sequences go through the model together."""

    pairs: tuple[int, ...]
    sequences: Tree | SequenceBatch
    n_tokens: int
    n_separate: int


def tree_batches(
    pairs: Sequence[PairTokens], chosen: Sequence[int], row_tokens: int, processes: int = 1
) -> list[PairBatch]:
    """The pairs with the indices in `chosen`, as trees in rows of at most `row_tokens` tokens.

    The pairs of a question with a larger tree are split over several trees, down to single pairs;
    a single pair with a larger tree has a row of its own. The number of rows is a multiple of
    `processes` if there are enough trees.
    """
    groups = by_question([pairs[index].prompt_ids for index in chosen])
    grown = [t for g in groups for t in _grown(pairs, [chosen[i] for i in g], row_tokens)]
    rows = pack([len(tree) for _, tree in grown], row_tokens, processes)
    trees = equalise_chunks([join([grown[index][1] for index in row]) for row in rows], processes)
    numbers = [tuple(number for index in row for number in grown[index][0]) for row in rows]
    return [
        PairBatch(n, tree, len(tree), tree.n_separate)
        for n, tree in zip(numbers, trees, strict=True)
    ]


def padded_batches(
    pairs: Sequence[PairTokens], chosen: Sequence[int], size: int, processes: int = 1
) -> list[PairBatch]:
    """The pairs with the indices in `chosen`, `size` at a time, the longest first."""
    size = max(min(size, -(-len(chosen) // processes)), 1)
    by_length = sorted(chosen, key=lambda index: -pairs[index].length)
    batches: list[PairBatch] = []
    for start in range(0, len(by_length), size):
        numbers = tuple(by_length[start : start + size])
        sequences = _sequences(pairs, numbers)
        batch = pad_sequences(sequences)
        batches.append(PairBatch(numbers, batch, batch["n_tokens"], batch["n_tokens"]))
    return batches


def shard_pairs(
    batches: Sequence[PairBatch], n_items: int, process: int = 0, processes: int = 1
) -> Work[PairBatch]:
    """A process's share of the batches of an optimizer step with `n_items` pairs."""
    mine, idle = shard(batches, process, processes)
    counted = mine[: len(mine) - idle]
    return Work(
        micro_batches=tuple(mine),
        n_items=n_items,
        idle=idle,
        n_tokens=sum(batch.n_tokens for batch in counted),
        n_separate=sum(batch.n_separate for batch in counted),
    )


def _grown(
    pairs: Sequence[PairTokens], numbers: list[int], row_tokens: int
) -> list[tuple[list[int], Tree]]:
    tree = grow(_sequences(pairs, numbers))
    if len(tree) <= row_tokens or len(numbers) == 1:
        return [(numbers, tree)]
    half = len(numbers) // 2
    parts = (numbers[:half], numbers[half:])
    return [grown for part in parts for grown in _grown(pairs, part, row_tokens)]


def _sequences(pairs: Sequence[PairTokens], numbers: Sequence[int]) -> list[MaskedIds]:
    return [side for n in numbers for side in (pairs[n].chosen, pairs[n].rejected)]
