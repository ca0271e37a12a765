"""Bootstrap intervals of measures over questions, whose solutions are alike and stay together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scdpo.records import Record

RESAMPLES = 1000

Floats = NDArray[np.float64]


class Estimate(Record):
    """A measure with its 95 % bootstrap interval; shares are fractions of 1."""

    value: float
    low: float
    high: float


def resample_weights(size: int, rng: np.random.Generator, resamples: int = RESAMPLES) -> Floats:
    """How often each of `size` questions is drawn, of shape (1 + resamples, size).

    Row 0 has every question once; each other row is a draw with replacement (Efron 1979).
    """
    draws = rng.multinomial(size, np.full(size, 1 / size), size=resamples)
    return np.concatenate([np.ones((1, size)), draws]).astype(np.float64)


def estimate(values_R: Floats) -> Estimate:
    """The first value, with the interval of the others.

    Resamples without a value (NaN) are left out; if none has one, the interval has no width.
    """
    first = float(values_R[0])
    known = values_R[1:][~np.isnan(values_R[1:])]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (first, first)
    return Estimate(value=first, low=float(low), high=float(high))


def divided(above: Floats, below: Floats, otherwise: float = 0.0) -> Floats:
    """Quotients, and `otherwise` where the denominator is 0."""
    out: Floats = np.full(np.broadcast(above, below).shape, otherwise)
    np.divide(above, below, out=out, where=below > 0)
    return out
