"""From solutions to training pairs in one call, without anything on disk."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scdpo.errors.validation import settings_from_keywords
from scdpo.pairs.config import PairConfig
from scdpo.pairs.mixture import mixture
from scdpo.pairs.naive import naive_pairs
from scdpo.pairs.step_controlled import step_controlled_pairs
from scdpo.records import Pair, Solution


def pair(
    solutions: Iterable[Solution],
    branches: Iterable[Solution] = (),
    *,
    config: PairConfig | None = None,
    **settings: Any,
) -> list[Pair]:
    """The mixture of naive and step-controlled pairs (arXiv 2407.00782, Eq. 1, 2 and 5).

    Without `branches`, only naive pairs are made. Pairs of held-out questions have the split
    `heldout`, and `scdpo.train` does not train on them. `settings` are fields of `PairConfig`,
    such as `heldout_share=0`, which override those of `config`. Raises InputError for an unknown
    setting.
    """
    config = settings_from_keywords(PairConfig, config, settings)
    solutions = list(solutions)
    naive = naive_pairs(solutions, config)
    controlled = step_controlled_pairs(solutions, branches, config)
    return mixture(naive.pairs, controlled.pairs, config.seed)
