"""What to change where something does not fit."""

from __future__ import annotations

from typing import Any

from scdpo.pipeline.planning.memory import (
    BF16,
    Sampling,
    Training,
    sampling_memory,
    training_memory,
)
from scdpo.pipeline.planning.shapes import Shape
from scdpo.records import Record

RANK = 16
MOST_DEVICES = 1024


class Advice(Record):
    """A change and the peak memory per device (bytes) that it leads to."""

    change: str
    total: float


def placed(shape: Shape, training: Training, usable: float) -> Training:
    """A training with the launch that fits it: whole on every device, or else sharded."""
    if training.devices == 1:
        return training.model_copy(update={"launch": "single"})
    whole = training.model_copy(update={"launch": "replicated"})
    if training_memory(shape, whole).total <= usable:
        return whole
    return training.model_copy(update={"launch": "sharded"})


def advise_training(
    shape: Shape, training: Training, usable: float, section: str, key: str, longest: int
) -> tuple[Advice, ...]:
    """The smallest changes under which a training fits: of all weights, with an adapter, with more
    devices. `key` is the recipe key of the size of a micro-batch, which holds at least `longest`
    tokens."""
    less: list[tuple[str, dict[str, Any]]] = []
    if not training.checkpointing:
        less.append((f"{section}.gradient_checkpointing: true", {"checkpointing": True}))
    if training.row > longest:
        size = 1 if key.endswith("micro_batch_size") else longest
        less.append((f"{key}: {size}", {"row": longest}))
    full = [()] if not less else [(change,) for change in less] + [tuple(less)]
    lora = (f"{section}.lora: {{rank: {RANK}}}", {"rank": RANK})
    four = (f"{section}.lora: {{rank: {RANK}, quantize: true}}", {"rank": RANK, "four_bits": True})
    adapters = [four] if training.rank else [lora, four]
    # A quantised adapter only where a plain one does not do.
    adapted = [[(adapter, *c) for c in ((), *full)] for adapter in adapters]
    found = [advice for advice in (_first(shape, training, usable, full),) if advice]
    with_adapter = (_first(shape, training, usable, way) for way in adapted)
    found += [advice for advice in with_adapter if advice][:1]
    if not training.rank and (more := _devices(shape, training, usable, less)):
        found.append(more)
    return tuple(found)


def _first(shape: Shape, training: Training, usable: float, ways: list[Any]) -> Advice | None:
    """The first of several combinations of changes that fits."""
    for changes in ways:
        update = {key: value for _, change in changes for key, value in change.items()}
        changed = placed(shape, training.model_copy(update=update), usable)
        if changed.four_bits and changed.launch == "sharded":
            continue  # 4-bit weights are not sharded
        total = training_memory(shape, changed).total
        if changes and total <= usable:
            return Advice(change=", ".join(text for text, _ in changes), total=total)
    return None


def _devices(
    shape: Shape, training: Training, usable: float, less: list[tuple[str, dict[str, Any]]]
) -> Advice | None:
    """How many such devices the training of all weights needs, sharded."""
    update = {key: value for _, change in less for key, value in change.items()}
    count = max(training.devices, 1) + 1
    while count <= MOST_DEVICES:
        changed = training.model_copy(update=update | {"launch": "sharded", "devices": count})
        total = training_memory(shape, changed).total
        if total <= usable:
            texts = [f"{count} devices, sharded", *(text for text, _ in less)]
            return Advice(change=", ".join(texts), total=total)
        count += 1
    return None


def advise_sampling(shape: Shape, sampling: Sampling, usable: float) -> tuple[Advice, ...]:
    """Weights in bf16, fewer rows side by side, or both, whatever fits first."""
    numbers = [sampling.number] if sampling.number == BF16 else [sampling.number, BF16]
    for number in reversed(numbers):
        rows = sampling.rows
        while rows >= 1:
            changed = sampling.model_copy(update={"number": number, "rows": rows})
            total = sampling_memory(shape, changed).total
            if total <= usable:
                texts = ["engine.dtype: bfloat16"] if number != sampling.number else []
                texts += [f"engine.max_rows: {rows}"] if rows != sampling.rows else []
                return (Advice(change=", ".join(texts), total=total),)
            rows //= 2
    return ()
