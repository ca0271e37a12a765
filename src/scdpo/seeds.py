"""Random choices that depend only on a seed and names, and are the same on every machine.

The two functions join their parts differently, to stay compatible with rows of earlier versions.
"""

from __future__ import annotations

import hashlib


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from a run's seed, the name of a row and an attempt."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def uniform(seed: int, *names: str) -> float:
    """A number in [0, 1) that depends only on the seed and the names."""
    digest = hashlib.sha256("\0".join((str(seed), *names)).encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48
