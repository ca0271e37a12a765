"""Memory of training and of sampling, per device, in bytes.

The terms follow from how this package trains: fp32 weights, autocast to bf16 on GPUs, AdamW, token
rows as micro-batches, logits in chunks. `benchmarks/memory.py` compares them with measurements.
"""

from __future__ import annotations

from typing import Literal

from scdpo.pipeline.planning.shapes import Shape
from scdpo.records import Record
from scdpo.training.config import Checkpointing

FP32, BF16 = 4, 2
ADAM_STATES = 2
NF4_BYTES = 0.53
"""Bytes of a weight in 4 bits, with its share of the quantisation constants."""
LOGITS_TOKENS = 256
LOGITS_KEPT = 256 * 2**20
"""As in `training.scoring`: tokens whose logits are computed at a time, and the logits of a row
that are kept for the backward pass."""

LINEARS = 7
"""Linear layers in a layer of the model."""

Launch = Literal["single", "replicated", "sharded"]


class Memory(Record):
    """What takes memory on one device, bytes."""

    weights: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    reference: float = 0.0
    activations: float = 0.0
    logits: float = 0.0
    cache: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return float(sum(self.model_dump().values()))


class Training(Record):
    """What decides the memory of a training. `row` is the tokens of a micro-batch; `whole_logits`
    is whether its logits exist all at once; `rank` is 0 without an adapter."""

    row: int
    checkpointing: Checkpointing = False
    whole_logits: bool = False
    bf16: bool = True
    rank: int = 0
    four_bits: bool = False
    online_reference: bool = False
    launch: Launch = "single"
    devices: int = 1


def layer_bytes(shape: Shape, bf16: bool, rank: int = 0) -> int:
    """Bytes per token that a layer keeps for its backward pass; `rank` is that of an adapter.

    In fp32: the inputs and results of both norms, queries, keys, values, the result of attention,
    and four tensors of the feed-forward part. Under autocast the residual stream and the norms stay
    in fp32, and every matrix product keeps its own copy of its input in bf16. With an adapter the
    norms have no gradient and keep their input alone.
    """
    h, q, kv, f = shape.hidden, shape.query, shape.kv, shape.intermediate
    per_head = FP32 * shape.heads + 2 * FP32
    norms = shape.qk_norm * ((FP32 + BF16 if bf16 else 2 * FP32) * (q + kv))
    norms += shape.qk_norm * FP32 * (shape.heads + shape.kv_heads)
    if rank:
        norms += (BF16 if bf16 else FP32) * LINEARS * rank - 2 * FP32 * h + BF16 * bf16 * q
    if bf16:
        return 26 * h + 4 * q + 4 * kv + 8 * f + per_head + norms
    return FP32 * (6 * h + 2 * q + 2 * kv + 4 * f) + per_head + norms


def training_memory(shape: Shape, training: Training) -> Memory:
    """Peak memory of a training on one device."""
    n, shards = shape.parameters, training.devices if training.launch == "sharded" else 1
    # The gradients of replicas are reduced from buckets of their own.
    buckets = 2 if training.launch == "replicated" and training.devices > 1 else 1
    trained = shape.adapter(training.rank) if training.rank else n
    base = _base_weights(shape, training)
    weights = (base + (FP32 * trained if training.rank else 0)) / shards
    if shards > 1:  # one layer is gathered at a time, the next one ahead of its use
        weights += 2 * FP32 * shape.layer_matrices
    return Memory(
        weights=weights + _working_copies(shape, training),
        gradients=FP32 * trained * buckets / shards,
        optimizer=ADAM_STATES * FP32 * trained / shards,
        reference=FP32 * n if training.online_reference and not training.rank else 0.0,
        activations=_activations(shape, training),
        logits=_logits(shape, training),
    )


def _base_weights(shape: Shape, training: Training) -> float:
    n = shape.parameters
    if not training.four_bits:
        return FP32 * n
    layers = shape.layers * shape.layer_matrices
    return NF4_BYTES * layers + FP32 * (n - layers)


def _working_copies(shape: Shape, training: Training) -> float:
    """bf16 copies of weights: autocast keeps those of trained weights until the forward pass ends,
    and the backward pass needs those of every layer that is not computed again."""
    if not training.bf16:
        return 0.0
    if training.rank and training.checkpointing:
        return BF16 * shape.layer_matrices
    return BF16 * shape.matrices


def _activations(shape: Shape, training: Training) -> float:
    """What the layers keep, and what a layer needs while it is computed backward."""
    layer = layer_bytes(shape, training.bf16, training.rank)
    number = BF16 if training.bf16 else FP32
    backward = FP32 * (2 * shape.hidden + 2 * shape.intermediate)
    kept = shape.layers * layer
    if training.checkpointing:
        kept = shape.layers * FP32 * shape.hidden + layer
        if training.checkpointing == "selective":
            kept += shape.layers * (number * shape.query + FP32 * shape.heads)
    return training.row * (kept + backward + 3 * FP32 * shape.hidden)


def _logits(shape: Shape, training: Training) -> float:
    """Logits, their log-softmax and gradient: in chunks for trees and packed rows."""
    number = BF16 if training.bf16 else FP32
    if training.whole_logits:
        return float(training.row * shape.vocab * (number + 2 * FP32))
    chunk = LOGITS_TOKENS * shape.vocab * (number + 2 * FP32)
    whole = training.row * shape.vocab * FP32
    return float(chunk + (whole if whole <= LOGITS_KEPT else 0))


class Sampling(Record):
    """What decides the memory of the engine in process; `number` is the bytes of a weight."""

    rows: int
    context: int
    number: int = FP32
    prefill: int = 4096
    prefix_bytes: int = 0


GROWTH = 1.25
"""How much more than needed is allocated for keys and values (`engines.kv`)."""


def kv_bytes(shape: Shape, number: int) -> int:
    """Bytes of a token's keys and values in all layers."""
    return 2 * shape.layers * shape.kv * number


def sampling_memory(shape: Shape, sampling: Sampling) -> Memory:
    """Peak memory of sampling on one device, if all rows reach the context's end."""
    number = sampling.number
    keys = sampling.rows * sampling.context * kv_bytes(shape, number) * GROWTH
    prefill = sampling.prefill * number * (4 * shape.hidden + 3 * shape.intermediate)
    return Memory(
        weights=number * shape.parameters,
        cache=keys + sampling.prefix_bytes,
        activations=prefill,
        logits=3 * FP32 * sampling.rows * shape.vocab,
    )
