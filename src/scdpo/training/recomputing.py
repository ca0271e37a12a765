"""Gradient checkpointing: which activations are kept, and which are computed again.

Full checkpointing keeps the inputs of layers. `selective` also keeps the results of attention,
which cost the most to compute for the memory that they take; everything else in a layer that the
backward pass needs is computed again from them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import create_selective_checkpoint_contexts
from transformers import PreTrainedModel

from scdpo.errors import InputError
from scdpo.training.chain_attention import OPERATOR
from scdpo.training.config import Checkpointing
from scdpo.training.internals import private_part

KEPT = (
    OPERATOR,
    *(
        private_part(torch.ops.aten, f"{name}.default", "torch")
        for name in (
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
        )
    ),
)
"""Operators whose results `selective` keeps."""


def enable_checkpointing(model: PreTrainedModel, what: Checkpointing) -> None:
    """Let a model keep fewer activations in training.

    Raises InputError for a model that cannot compute its layers again.
    """
    if not what:
        return
    options: dict[str, Any] = {"use_reentrant": False}
    if what == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, list(KEPT))
    try:
        _method(model, "enable")(options)
    except ValueError as error:
        raise InputError(f"gradient_checkpointing: {' '.join(str(error).split())[:200]}") from error


def checkpoints_activations(model: torch.nn.Module) -> bool:
    """Whether gradient checkpointing is enabled in any part of a model."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def disable_checkpointing(model: PreTrainedModel) -> None:
    """Let a model keep all activations in training."""
    _method(model, "disable")()


def _method(model: PreTrainedModel, verb: str) -> Any:
    """The method by its name in newer releases of transformers, or by its former name."""
    newer = getattr(model, f"activation_checkpointing_{verb}", None)
    return newer or getattr(model, f"gradient_checkpointing_{verb}")
