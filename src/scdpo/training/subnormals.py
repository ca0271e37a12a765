"""Floating-point mode of a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def subnormals_as_zero() -> Iterator[None]:
    """Treat numbers below the normal range as zero, and restore the former mode at the end.

    A saturated preference loss makes subnormal gradients, which slow a CPU's matrix products
    down many times.
    """
    # There is no getter for the mode; 1e-39 is subnormal in fp32.
    before = bool((torch.tensor(1e-39) * 1.0 == 0).item())
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
