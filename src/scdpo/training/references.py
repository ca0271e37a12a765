"""Log-probs under the reference policy, computed once per sequence and cached on disk.

An entry's key is a hash of everything that its value depends on: the token ids, the mask, the
reference policy's weights and configuration, and the number format of the computation. Sequences
whose key is not in the file are computed, so a stale file does no harm, and one file can serve
several trainings of the same policy.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from scdpo.errors import DataError, ScdpoError
from scdpo.store import replacing
from scdpo.training.tree import MaskedIds

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_VOLATILE = ("transformers_version", "dtype", "use_cache")


def policy_key(
    model: PreTrainedModel, dtype: str, weights: Mapping[str, Tensor] | None = None
) -> str:
    """Hash of a model's weights, its configuration and the number format it computes in.

    `weights` are those to hash instead, such as gathered ones of a sharded model.
    """
    settings = {
        name: value
        for name, value in model.config.to_dict().items()
        if not name.startswith("_") and name not in _VOLATILE
    }
    digest = hashlib.sha256(dtype.encode())
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted((weights or model.state_dict()).items()):
        data = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {data.dtype} {tuple(data.shape)}".encode())
        digest.update(data.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def sequence_key(sequence: MaskedIds, policy: str) -> str:
    """Hash of token ids, mask and `policy_key`."""
    ids, mask = sequence
    digest = hashlib.sha256(policy.encode())
    digest.update(np.asarray(ids, dtype=np.int64).tobytes())
    digest.update(np.asarray(mask, dtype=np.bool_).tobytes())
    return digest.hexdigest()


class ReferenceCache:
    """Reference log-probs by sequence key, kept in a file or, with `path` None, in memory.

    The file need not exist yet. `computed` and `reused` count the log-probs that
    `reference_logps` had to compute and those that it found. Raises DataError for a file that is
    not a reference cache.
    """

    def __init__(self, path: Path | None = None):
        self.path = path
        self.logps = _read(path) if path is not None and path.exists() else {}
        self.computed = self.reused = 0

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The keys that are not in the cache, each once, in order."""
        return [key for key in dict.fromkeys(keys) if key not in self.logps]

    def add(self, logps: dict[str, float], *, write: bool = True) -> None:
        """Add entries and replace the file as a whole. Raises StorageFull or StoreError."""
        self.logps.update(logps)
        if not write or self.path is None:
            return
        with replacing(self.path) as file:
            np.savez(
                file,
                keys=np.asarray(list(self.logps), dtype=np.str_),
                logps=np.asarray(list(self.logps.values()), dtype=np.float64),
            )


def _read(path: Path) -> dict[str, float]:
    try:
        with np.load(path, allow_pickle=False) as file:
            keys, logps = file["keys"].tolist(), file["logps"].tolist()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError("not a reference cache; delete it to compute it again", path) from error
    return dict(zip(keys, logps, strict=True))


def reference_logps(
    score: Callable[[Sequence[int]], Sequence[float]],
    sequences: Sequence[MaskedIds],
    policy: str,
    cache: ReferenceCache,
    *,
    write: bool = True,
) -> list[float]:
    """Log-prob (nats) of every sequence under the reference policy, from the cache where possible.

    `score` computes the sequences with the given indices under the reference policy, whose
    `policy_key` is `policy`; a sequence that occurs several times is computed once. Without
    `write` the file is left as it is, as another process writes it. Raises ScdpoError when a
    log-prob is not finite.
    """
    keys = [sequence_key(sequence, policy) for sequence in sequences]
    number = dict(zip(keys, range(len(keys)), strict=True))
    missing = cache.missing(keys)
    cache.computed += len(missing)
    cache.reused += len(number) - len(missing)
    if missing:
        logps = score([number[key] for key in missing])
        if not np.isfinite(logps).all():
            raise ScdpoError("the reference policy gives log-probs that are not finite")
        cache.add(dict(zip(missing, logps, strict=True)), write=write)
    return [cache.logps[key] for key in keys]
