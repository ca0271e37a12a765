"""Training on pairs and on solutions: `train` and `sft`, and their parts for one's own loop.

Names are loaded when they are first used; importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdpo.lazy import lazy_names

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

_NAMES = {
    "dpo_config": "DPOConfig LoraSettings PreferenceMetrics TrainingReport",
    "losses": "DPOOutput chosen_nll dpo_loss dpop_loss ipo_loss per_token preference_loss "
    "sequence_logps",
    "own_loop": "pair_sequences tree_attention tree_logps",
    "preference": "train",
    "preference_trainer": "PreferenceTrainer",
    "sft_config": "SFTConfig SFTReport",
    "sft_trainer": "SFTTrainer",
    "supervised": "sft",
    "tree": "Tree grow",
}

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

__getattr__, __dir__ = lazy_names(__name__, _NAMES)
