"""Training on pairs and on solutions: `train` and `sft`, and their parts for one's own loop.

Names are loaded when they are first used; importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scdpo.training.dpo_config import (
        DPOConfig,
        LoraSettings,
        PreferenceMetrics,
        TrainingReport,
    )
    from scdpo.training.losses import (
        DPOOutput,
        chosen_nll,
        dpo_loss,
        dpop_loss,
        ipo_loss,
        per_token,
        preference_loss,
        sequence_logps,
    )
    from scdpo.training.own_loop import pair_sequences, tree_attention, tree_logps
    from scdpo.training.preference import train
    from scdpo.training.preference_trainer import PreferenceTrainer
    from scdpo.training.sft_config import SFTConfig, SFTReport
    from scdpo.training.sft_trainer import SFTTrainer
    from scdpo.training.supervised import sft
    from scdpo.training.tree import Tree, grow

_MODULES = {
    "dpo_config": ("DPOConfig", "LoraSettings", "PreferenceMetrics", "TrainingReport"),
    "losses": (
        "DPOOutput",
        "chosen_nll",
        "dpo_loss",
        "dpop_loss",
        "ipo_loss",
        "per_token",
        "preference_loss",
        "sequence_logps",
    ),
    "own_loop": ("pair_sequences", "tree_attention", "tree_logps"),
    "preference": ("train",),
    "preference_trainer": ("PreferenceTrainer",),
    "sft_config": ("SFTConfig", "SFTReport"),
    "sft_trainer": ("SFTTrainer",),
    "supervised": ("sft",),
    "tree": ("Tree", "grow"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "DPOConfig",
    "DPOOutput",
    "LoraSettings",
    "PreferenceMetrics",
    "PreferenceTrainer",
    "SFTConfig",
    "SFTReport",
    "SFTTrainer",
    "TrainingReport",
    "Tree",
    "chosen_nll",
    "dpo_loss",
    "dpop_loss",
    "grow",
    "ipo_loss",
    "pair_sequences",
    "per_token",
    "preference_loss",
    "sequence_logps",
    "sft",
    "train",
    "tree_attention",
    "tree_logps",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
