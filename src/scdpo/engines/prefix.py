"""A radix tree over token ids that caches the keys and values of earlier sequences."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(slots=True, eq=False)
class _Node:
    ids: tuple[int, ...]
    kv: torch.Tensor | None
    parent: _Node | None
    used: int = 0
    children: dict[int, _Node] = field(default_factory=dict)


class PrefixCache:
    """Keys and values by token-id prefix, each token of a shared prefix stored once.

    Every node holds the ids of a segment and its tensor, [2 * layers, heads, tokens, dim]. Above
    `budget` bytes, the least recently used leaves are evicted first. What is kept depends only
    on the sequence of calls.
    """

    def __init__(self, budget: int):
        self.budget = budget
        self.held = 0
        self._clock = 0
        self._root = _Node((), None, None)

    def match(self, ids: Sequence[int]) -> list[torch.Tensor]:
        """The tensors, in order, of the segments of the longest cached prefix of `ids`."""
        self._clock += 1
        segments = []
        for node, shared in self._walk(tuple(ids)):
            node.used = self._clock
            assert node.kv is not None
            segments.append(node.kv[:, :, :shared])
        return segments

    def insert(self, ids: Sequence[int], kv: torch.Tensor) -> None:
        """Cache the keys and values of `ids`; only the new part of `kv` is copied.

        `kv` is [2 * layers, heads, at least len(ids), dim]. A budget of 0 caches nothing.
        """
        ids = tuple(ids)
        if self.budget <= 0 or not ids:
            return
        self._clock += 1
        path = list(self._walk(ids))
        depth = sum(shared for _, shared in path)
        for node, _ in path:
            node.used = self._clock
        if depth == len(ids):
            return
        last, shared = path[-1] if path else (self._root, 0)
        if shared < len(last.ids):
            last = self._split(last, shared)
        part = kv[:, :, depth : len(ids)].clone()
        last.children[ids[depth]] = _Node(ids[depth:], part, last, self._clock)
        self.held += part.nbytes
        self._evict()

    def clear(self) -> None:
        """Discard everything."""
        self._root = _Node((), None, None)
        self.held = 0

    def _walk(self, ids: tuple[int, ...]) -> Iterator[tuple[_Node, int]]:
        """Nodes along `ids`, each with how many of its tokens match (all, except in the last)."""
        node, depth = self._root, 0
        while depth < len(ids) and (child := node.children.get(ids[depth])) is not None:
            shared = _shared(child.ids, ids, depth)
            yield child, shared
            if shared < len(child.ids):
                return
            node, depth = child, depth + shared

    def _split(self, node: _Node, at: int) -> _Node:
        """Cut `node` after `at` tokens and return the upper part.

        Each part owns its memory, so that evicting it frees the memory.
        """
        assert node.kv is not None
        assert node.parent is not None
        upper = _Node(node.ids[:at], node.kv[:, :, :at].clone(), node.parent, node.used)
        node.parent.children[node.ids[0]] = upper
        upper.children[node.ids[at]] = node
        node.ids, node.kv, node.parent = node.ids[at:], node.kv[:, :, at:].clone(), upper
        return upper

    def _evict(self) -> None:
        if self.held <= self.budget:
            return
        # The serial number breaks ties in the order of insertion.
        order = enumerate(self._leaves())
        heap = [(node.used, serial, node) for serial, node in order]
        heapq.heapify(heap)
        serial = len(heap)
        while self.held > self.budget and heap:
            _, _, node = heapq.heappop(heap)
            assert node.kv is not None
            assert node.parent is not None
            self.held -= node.kv.nbytes
            parent = node.parent
            del parent.children[node.ids[0]]
            if not parent.children and parent.parent is not None:
                heapq.heappush(heap, (parent.used, serial, parent))
                serial += 1

    def _leaves(self) -> Iterator[_Node]:
        stack = [self._root]
        while stack:
            node = stack.pop()
            if node.children:
                stack.extend(node.children.values())
            elif node.parent is not None:
                yield node


def _shared(segment: tuple[int, ...], ids: tuple[int, ...], start: int) -> int:
    """How many leading tokens of `segment` match `ids` from `start` on."""
    part = ids[start : start + len(segment)]
    if part == segment:
        return len(segment)
    pairs = zip(segment, part, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), len(part))
