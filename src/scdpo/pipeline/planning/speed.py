"""Floating-point operations and seconds, from stated shares of what the hardware can do."""

from __future__ import annotations

from scdpo.pipeline.planning.config import PlanConfig
from scdpo.pipeline.planning.hardware import Hardware
from scdpo.pipeline.planning.memory import kv_bytes
from scdpo.pipeline.planning.shapes import Shape
from scdpo.training.config import Checkpointing

SHARES = {"training": (0.35, 0.55), "decoding": (0.6, 0.18)}
"""Shares of the peak that are reached, on GPUs and on CPUs, where the recipe does not say."""


def share(kind: str, hardware: Hardware, config: PlanConfig) -> float:
    """The share of the peak that `training` or `decoding` is taken to reach."""
    given: float | None = getattr(config, f"{kind}_share")
    on_gpu, on_cpu = SHARES[kind]
    return given or (on_gpu if hardware.gpu else on_cpu)


def forward_flops(shape: Shape, tokens: float, length: float) -> float:
    """FLOPs of a forward pass over `tokens` in causal sequences of mean length `length`."""
    attention = 2 * shape.layers * shape.query * length
    return tokens * (2 * shape.matrices + attention)


def training_seconds(
    shape: Shape,
    tokens: float,
    length: float,
    hardware: Hardware,
    config: PlanConfig,
    checkpointing: Checkpointing = False,
    *,
    backward: bool = True,
) -> float:
    """Seconds of a training over `tokens`, on all devices; without `backward`, of scoring them."""
    passes = (4 if checkpointing else 3) if backward else 1
    reached = hardware.flops * hardware.count * share("training", hardware, config)
    return passes * forward_flops(shape, tokens, length) / reached


def decoding_rate(
    shape: Shape, rows: int, length: float, number: int, hardware: Hardware, config: PlanConfig
) -> float:
    """Tokens per second that one device decodes in `rows` rows with `length` tokens before them.

    A token step reads all weights and the rows' keys and values, or computes, whichever is slower;
    on a GPU the host also has to start every layer.
    """
    read = number * shape.matrices + rows * length * kv_bytes(shape, number)
    computed = forward_flops(shape, rows, 2 * length)
    step = max(read / hardware.bandwidth, computed / hardware.flops)
    started = shape.layers * config.layer_ms / 1000 if hardware.gpu else 0.0
    return rows / (step / share("decoding", hardware, config) + started)
