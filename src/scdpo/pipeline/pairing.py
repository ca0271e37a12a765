"""The stage that makes pairs: problem by problem, so that memory does not grow with the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from scdpo.pairs import PairConfig
from scdpo.pairs.candidates import in_order
from scdpo.pairs.naive import data_equal_of_groups, naive_of_groups
from scdpo.pairs.step_controlled import step_controlled_of_groups
from scdpo.pipeline.opened import manifest_of
from scdpo.records import Pair, Solution
from scdpo.store import RowGroups, Stage

PAIR_PARTS = ("naive", "step_controlled", "data_equal")
"""The sets of pairs, in the order in which they are made."""


def make_pairs(
    stages: Sequence[Stage],
    sources: Sequence[Stage],
    branched: Sequence[Stage],
    config: PairConfig,
) -> None:
    """Make the pairs of `PAIR_PARTS` from the solutions and branches in stages; those that are
    done stay. The control of equal size has as many training pairs as the others together."""
    with RowGroups(sources, Solution) as solutions, RowGroups(branched, Solution) as branches:

        def groups() -> Iterator[list[Solution]]:
            return map(in_order, solutions)

        def branch_groups() -> Iterator[tuple[dict[str, Solution], list[Solution]]]:
            for group in branches:
                parents = solutions.of(group[0].problem_id)
                yield {parent.id: parent for parent in parents}, in_order(group)

        def size() -> int:
            counts = [manifest_of(stage).counts for stage in stages[:2]]
            return int(sum(c["pairs"] - c["heldout_pairs"] for c in counts))

        makers: tuple[Callable[[Counter[str]], Iterator[Pair]], ...] = (
            lambda counts: naive_of_groups(groups, config, counts),
            lambda counts: step_controlled_of_groups(branch_groups(), config, counts),
            lambda counts: data_equal_of_groups(groups, size(), config, counts),
        )
        for stage, make in zip(stages, makers, strict=True):
            if not stage.done:
                counts: Counter[str] = Counter()
                stage.append_new(make(counts))
                stage.finish(dict(sorted(counts.items())))
