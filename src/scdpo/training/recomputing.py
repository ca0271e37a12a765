"""Gradient checkpointing: what of a forward pass is kept, and what is computed again.

Whole checkpointing keeps the inputs of layers. `selective` keeps the results of attention too,
which cost the most to compute for the memory that they take; everything else in a layer that the
backward pass needs is computed again from them.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch.utils.checkpoint import create_selective_checkpoint_contexts
from transformers import PreTrainedModel

from scdpo.errors import InputError
from scdpo.training.chain_attention import OPERATOR
from scdpo.training.config import Checkpointing

_aten = torch.ops.aten
KEPT = (
    OPERATOR,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
)
"""Operators whose results `selective` keeps."""


def recompute(model: PreTrainedModel, what: Checkpointing) -> None:
    """Have a model keep fewer activations in training.

    Raises InputError for a model that cannot compute its layers again.
    """
    if not what:
        return
    options: dict[str, Any] = {"use_reentrant": False}
    if what == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, list(KEPT))
    try:
        cast(Any, model).gradient_checkpointing_enable(options)
    except ValueError as error:
        raise InputError(f"gradient_checkpointing: {' '.join(str(error).split())[:200]}") from error
