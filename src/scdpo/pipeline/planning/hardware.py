"""What a machine offers, by its name on the command line: `8xH100`, `2xA100-40GB`, `cpu`."""

from __future__ import annotations

import os
import re

from scdpo.errors import InputError
from scdpo.records import Record

GB = 10**9
GIB = 2**30


class Hardware(Record):
    """Devices of one kind: memory of each (bytes), peak FLOP/s of dense matrix products in the
    format that training computes in, and memory bandwidth (bytes/s)."""

    name: str
    count: int
    memory: float
    flops: float
    bandwidth: float
    gpu: bool = True


GPUS: dict[str, tuple[float, float, float]] = {
    # memory in GiB, dense bf16 TFLOP/s, bandwidth in TB/s, as their makers state them
    "B200": (180, 2250, 8.0),
    "H200": (141 * GB / GIB, 989, 4.8),
    "H100": (80, 989, 3.35),
    "H100-PCIe": (80, 756, 2.0),
    "A100-80GB": (80, 312, 2.04),
    "A100-40GB": (40, 312, 1.555),
    "A800": (80, 312, 2.04),
    "MI300X": (192, 1307, 5.3),
    "L40S": (48, 362, 0.864),
    "A10": (24, 125, 0.6),
    "L4": (24, 121, 0.3),
    "RTX5090": (32, 209, 1.79),
    "RTX4090": (24, 165, 1.008),
    "RTX3090": (24, 71, 0.936),
}
ALIASES = {"A100": "A100-80GB", "A800-80GB": "A800", "H100-80GB": "H100"}
CORE_FLOPS = 115e9
"""fp32 FLOP/s of a core with AVX-512 in matrix products, measured where this was developed."""
CORE_BANDWIDTH = 10e9
"""Bytes/s of memory that a core gets, roughly."""


def hardware(text: str) -> Hardware:
    """The devices that a text such as `8xH100` names.

    `cpu` is this machine; `16xcpu` has as many cores and this machine's memory. Raises InputError
    for anything else, with the names that are known.
    """
    found = re.fullmatch(r"(?:(\d+)\s*[x×*])?\s*([\w-]+)", text.strip(), re.IGNORECASE)
    names = {name.lower(): name for name in (*GPUS, *ALIASES)}
    count = int(found[1] or 1) if found else 0
    kind = found[2].lower() if found else ""
    if count and kind == "cpu":
        cores = count if found and found[1] else len(os.sched_getaffinity(0))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Hardware(
            name=f"CPU, {cores} cores",
            count=1,
            memory=memory,
            flops=cores * CORE_FLOPS,
            bandwidth=cores * CORE_BANDWIDTH,
            gpu=False,
        )
    if not count or kind not in names:
        known = ", ".join([*GPUS, "cpu"])
        raise InputError(f"--gpus {text}: expected a number and a kind, such as 8xH100 ({known})")
    name = ALIASES.get(names[kind], names[kind])
    gib, tflops, bandwidth = GPUS[name]
    return Hardware(
        name=name,
        count=count,
        memory=gib * GIB,
        flops=tflops * 1e12,
        bandwidth=bandwidth * 1e12,
    )
