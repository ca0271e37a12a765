"""The random mixture that Step-Controlled DPO trains on (Eq. 5)."""

from __future__ import annotations

from collections.abc import Iterable

from scdpo.records import Pair
from scdpo.seeds import uniform


def mixture(naive: Iterable[Pair], step_controlled: Iterable[Pair], seed: int = 0) -> list[Pair]:
    """The union of both sets, each pair once, in an order drawn from the seed."""
    union = {pair.id: pair for pair in (*naive, *step_controlled)}
    return sorted(union.values(), key=lambda pair: (uniform(seed, "mixture", pair.id), pair.id))
