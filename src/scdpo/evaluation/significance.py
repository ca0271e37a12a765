"""Intervals and paired tests for accuracies measured on a fixed set of questions.

With greedy decoding, the only source of chance is which questions were asked. Two policies that
answered the same questions are compared question by question, never as independent samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scdpo.errors import InputError

BoolArray = NDArray[np.bool_]


class ConfidenceInterval(NamedTuple):
    """Lower and upper limit, as fractions of 1."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class BootstrapResult:
    """Accuracy of a minus accuracy of b, with its interval; fractions of 1."""

    difference: float
    low: float
    high: float


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> ConfidenceInterval:
    """Score interval of a binomial proportion (Wilson 1927, JASA 22:209-212, no continuity
    correction).

    It inverts the test |p̂ − p| <= z · sqrt(p (1 − p) / n), so it stays inside [0, 1] and keeps
    its coverage near 0 and 1, where p̂ ± z · sqrt(p̂ (1 − p̂) / n) does not. Raises InputError if
    `n` is not positive, `successes` is outside 0..n or `confidence` is outside (0, 1).
    """
    if n < 1:
        raise InputError(f"an interval needs at least one question, found n = {n}")
    if not 0 <= successes <= n:
        raise InputError(f"successes must be between 0 and {n}, found {successes}")
    z = NormalDist().inv_cdf(0.5 + _checked(confidence) / 2)
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At 0 and n successes one limit is exactly 0 or 1; rounding must not shift it.
    low = 0.0 if successes == 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if successes == n else min(1.0, (centre + half) / scale)
    return ConfidenceInterval(low, high)


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided p-value of the exact McNemar test (McNemar 1947, Psychometrika 12:153-157).

    `only_a` and `only_b` count the questions that only that policy answered correctly. If neither
    policy is better, each such question falls to either side like a fair coin. The p-value is
    therefore twice the smaller tail of Binomial(only_a + only_b, 1/2), at most 1; it is 1 if no
    question tells the policies apart. The tail is computed in exact integer arithmetic. Raises
    InputError for a negative count.
    """
    if only_a < 0 or only_b < 0:
        raise InputError(f"counts cannot be negative, found {only_a} and {only_b}")
    n = only_a + only_b
    term = tail = 1
    for i in range(1, min(only_a, only_b) + 1):
        term = term * (n - i + 1) // i
        tail += term
    return min(1.0, 2 * tail / (1 << n))


def paired_bootstrap(
    a: BoolArray,
    b: BoolArray,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> BootstrapResult:
    """Percentile interval of the accuracy difference a − b (Efron 1979, Annals of Statistics
    7:1-26; Efron & Tibshirani 1993, ch. 13).

    `a` and `b`, both of shape (questions,), say whether each policy answered each question
    correctly. Questions are resampled with replacement, keeping both answers of a question
    together. A resample's difference depends only on how many of its questions are in each of
    the cells *only a correct*, *only b correct* and *both or neither*. These counts are
    multinomial and are drawn directly, which gives the same distribution at a cost that does not
    grow with the number of questions.

    Raises InputError if the arrays are not one-dimensional booleans over the same non-empty set
    of questions, or if `resamples` or `confidence` is out of range.
    """
    right_a, right_b = _outcomes("a", a), _outcomes("b", b)
    if right_a.size != right_b.size:
        raise InputError(
            "a paired comparison needs the same questions on both sides, "
            f"found {right_a.size} and {right_b.size}"
        )
    if resamples < 1:
        raise InputError(f"resamples must be at least 1, found {resamples}")
    tail = (1 - _checked(confidence)) / 2
    n = right_a.size
    only_a = int(np.count_nonzero(right_a & ~right_b))
    only_b = int(np.count_nonzero(right_b & ~right_a))
    cells = np.array([only_a, only_b, n - only_a - only_b]) / n
    counts = np.random.default_rng(seed).multinomial(n, cells, size=resamples)
    differences = (counts[:, 0] - counts[:, 1]) / n
    low, high = np.quantile(differences, [tail, 1 - tail])
    return BootstrapResult((only_a - only_b) / n, float(low), float(high))


def _outcomes(name: str, values: Any) -> BoolArray:
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0 or array.dtype != np.bool_:
        raise InputError(
            f"{name} must be a non-empty one-dimensional array of booleans, "
            f"found shape {array.shape} of {array.dtype}"
        )
    return array


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InputError(f"confidence must be between 0 and 1, found {confidence}")
    return confidence
