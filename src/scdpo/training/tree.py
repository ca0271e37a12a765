"""Token trees: sequences that begin alike, with every shared token once.

A causal model's state at a token depends only on the tokens before it, so sequences that begin
with the same ids share those states exactly, and a question's preferred solution, its naive
negative and its step-controlled negatives form one tree. A tree is laid out depth first, so that
one number per token says who sees whom: token i sees token j if and only if `j <= i <= last[j]`,
where `last[j]` is the last token of j's subtree. By the same rule, several trees side by side do
not see each other, so a packed row needs nothing more.

Shape suffixes: N tokens of a row, S sequences, C tokens that some sequence counts, E pairs
(sequence, token that it counts).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

MaskedIds: TypeAlias = tuple[Sequence[int], Sequence[bool]]
"""Ids of a whole sequence, and a mask that is True where a token counts in the loss."""
Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Chain:
    """Tokens `start` to `stop` of a row, each of which continues the token before it.

    `before` are the ranges of tokens on the path to the chain, in order; it is empty for a chain
    that begins a text.
    """

    start: int
    stop: int
    before: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Tree:
    """One token tree, or several side by side in a row.

    `ids_N`, `position_N` (counted along each path from 0), `parent_N` (the token before, -1 at
    the beginning of a text) and `last_N` (the last token of the subtree) describe the tokens;
    `chains` cut them into runs that continue each other. Sequence `sequence_E[e]` counts token
    `token_E[e]`; the first token of a text never counts. `n_separate` is the number of tokens if
    the S sequences shared nothing; `n_scored` is C, or more where all processes have to compute
    equally many chunks (`equalise_chunks`).
    """

    ids_N: Ints
    position_N: Ints
    parent_N: Ints
    last_N: Ints
    chains: tuple[Chain, ...]
    sequence_E: Ints
    token_E: Ints
    n_sequences: int
    n_separate: int
    n_scored: int

    def __len__(self) -> int:
        return len(self.ids_N)


@dataclass(slots=True)
class _Segment:
    """Tokens `start` to `stop` of the layout, between two branchings."""

    start: int
    stop: int
    parent: int


def grow(sequences: Sequence[MaskedIds]) -> Tree:
    """The tree of non-empty sequences, whatever they share.

    Where sequences part, the branch with the most of them comes first, so that a question's
    preferred solution (which is in all its pairs) is one chain from end to end.
    """
    ids = [np.asarray(s[0], dtype=np.int64) for s in sequences]
    nodes: list[_Segment] = []
    pieces: list[Ints] = []
    paths: list[list[int]] = [[] for _ in sequences]
    size = 0
    # Each entry is a set of sequences that agree up to `depth`, below a node.
    stack: list[tuple[list[int], int, int]] = [(part, 0, -1) for part in _parted(ids, 0)[::-1]]
    while stack:
        members, depth, parent = stack.pop()
        stop = _agreement([ids[s] for s in members], depth)
        for s in members:
            paths[s].append(len(nodes))
        pieces.append(ids[members[0]][depth:stop])
        nodes.append(_Segment(size, size + stop - depth, parent))
        size += stop - depth
        here = len(nodes) - 1
        longer = [s for s in members if len(ids[s]) > stop]
        parted = _parted([ids[s] for s in longer], stop)
        stack += [([longer[m] for m in part], stop, here) for part in parted[::-1]]
    counted = [_counted(path, nodes, s[1]) for path, s in zip(paths, sequences, strict=True)]
    token_E = np.concatenate(counted)
    return Tree(
        ids_N=np.concatenate(pieces),
        **_layout(nodes, size),
        sequence_E=np.repeat(np.arange(len(counted)), [len(c) for c in counted]),
        token_E=token_E,
        n_sequences=len(sequences),
        n_separate=sum(len(i) for i in ids),
        n_scored=len(np.unique(token_E)),
    )


def join(trees: Sequence[Tree]) -> Tree:
    """Trees side by side, their sequences in order."""
    tokens = np.cumsum([0, *(len(tree) for tree in trees)])
    before = np.cumsum([0, *(tree.n_sequences for tree in trees)])
    parts = list(zip(trees, tokens.tolist(), before.tolist(), strict=False))
    return Tree(
        ids_N=np.concatenate([tree.ids_N for tree in trees]),
        position_N=np.concatenate([tree.position_N for tree in trees]),
        parent_N=np.concatenate(
            [np.where(t.parent_N < 0, -1, t.parent_N + n) for t, n, _ in parts]
        ),
        last_N=np.concatenate([t.last_N + n for t, n, _ in parts]),
        chains=tuple(
            Chain(c.start + n, c.stop + n, tuple((a + n, b + n) for a, b in c.before))
            for t, n, _ in parts
            for c in t.chains
        ),
        sequence_E=np.concatenate([t.sequence_E + s for t, _, s in parts]),
        token_E=np.concatenate([t.token_E + n for t, n, _ in parts]),
        n_sequences=int(before[-1]),
        n_separate=sum(tree.n_separate for tree in trees),
        n_scored=sum(tree.n_scored for tree in trees),
    )


def equalise_chunks(trees: Sequence[Tree], processes: int) -> list[Tree]:
    """Rows in which every `processes` consecutive ones have the same `n_scored`, their largest.

    These are scored at the same time, and the processes of a sharded model have to call its parts
    equally often.
    """
    return [
        replace(
            tree,
            n_scored=max(
                other.n_scored for other in trees[index // processes * processes :][:processes]
            ),
        )
        for index, tree in enumerate(trees)
    ]


def visible(tree: Tree, window: int | None = None) -> NDArray[np.bool_]:
    """The attention mask (N, N): row i is True at the tokens that token i attends to.

    A sliding `window` is counted along the path, as it is for a single sequence.
    """
    index = np.arange(len(tree))
    seen = (index[None, :] <= index[:, None]) & (index[:, None] <= tree.last_N[None, :])
    if window is not None:
        seen &= tree.position_N[:, None] - tree.position_N[None, :] < window
    return seen


def _parted(ids: Sequence[Ints], depth: int) -> list[list[int]]:
    """Indices of sequences by their token at `depth`, the largest group first."""
    parts: dict[int, list[int]] = {}
    for index, sequence in enumerate(ids):
        parts.setdefault(int(sequence[depth]), []).append(index)
    return sorted(parts.values(), key=len, reverse=True)


def _agreement(ids: Sequence[Ints], depth: int) -> int:
    """The length of the common beginning of sequences that agree up to and including `depth`."""
    first = ids[0]
    stop = len(first)
    for other in ids[1:]:
        stop = min(stop, len(other))
        differ = np.flatnonzero(first[depth:stop] != other[depth:stop])
        if len(differ):
            stop = depth + int(differ[0])
    return stop


def _counted(path: Sequence[int], nodes: Sequence[_Segment], mask: Sequence[bool]) -> Ints:
    """The tokens of a path that count."""
    tokens = np.concatenate([np.arange(nodes[n].start, nodes[n].stop) for n in path])
    counts = np.asarray(mask, dtype=np.bool_).copy()
    counts[0] = False  # nothing comes before it
    return tokens[counts]


class _Layout(TypedDict):
    position_N: Ints
    parent_N: Ints
    last_N: Ints
    chains: tuple[Chain, ...]


def _layout(nodes: Sequence[_Segment], size: int) -> _Layout:
    position = np.zeros(size, dtype=np.int64)
    parent = np.arange(-1, size - 1)
    last = np.zeros(size, dtype=np.int64)
    ends = [node.stop - 1 for node in nodes]
    for index in range(len(nodes) - 1, -1, -1):
        node = nodes[index]
        last[node.start : node.stop] = ends[index]
        if node.parent >= 0:
            ends[node.parent] = max(ends[node.parent], ends[index])
    chains: list[Chain] = []
    chain_of: list[int] = []
    for index, node in enumerate(nodes):
        above = nodes[node.parent].stop - 1 if node.parent >= 0 else -1
        parent[node.start] = above
        first = position[above] + 1 if node.parent >= 0 else 0
        position[node.start : node.stop] = first + np.arange(node.stop - node.start)
        if node.parent >= 0 and node.parent == index - 1:
            chain_of.append(chain_of[-1])
            chains[-1] = Chain(chains[-1].start, node.stop, chains[-1].before)
            continue
        before: tuple[tuple[int, int], ...] = ()
        if node.parent >= 0:
            trunk = chains[chain_of[node.parent]]
            before = (*trunk.before, (trunk.start, above + 1))
        chain_of.append(len(chains))
        chains.append(Chain(node.start, node.stop, before))
    return _Layout(position_N=position, parent_N=parent, last_N=last, chains=tuple(chains))
