"""Random numbers that depend only on a rollout's seed and the index of the token drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MASK = (1 << 64) - 1
_WEYL = np.uint64(0x9E3779B97F4A7C15)


def seed_words(seeds: list[int]) -> NDArray[np.uint64]:
    """Seeds of any size and sign as 64-bit words (the low 64 bits, two's complement)."""
    return np.array([seed & _MASK for seed in seeds], dtype=np.uint64)


def uniforms(words: NDArray[np.uint64], positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """Uniform draws from (0, 1), one per (seed, token index) pair; all arrays are [N].

    SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) as a counter-based generator: the mixed seed
    starts the stream and the token index is the counter, so draws can be made in any order and
    any batch.
    """
    counters = (positions.astype(np.uint64) + np.uint64(1)) * _WEYL
    bits = _mix(_mix(words + _WEYL) + counters)
    return (bits >> np.uint64(16)).astype(np.float64) * 2.0**-48 + 2.0**-49


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
