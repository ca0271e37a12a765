"""Optimizers that the Transformers Trainer does not provide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from scdpo.errors import InputError


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon on hidden weight matrices, AdamW on everything else, as one optimizer.

    Muon (Jordan et al. 2024) orthogonalises the momentum of matrices. Embeddings, the output
    head, norms and biases are left to AdamW, without weight decay. Muon's
    updates are scaled to the size of AdamW's (arXiv 2502.16982). Learning-rate schedules scale
    both, since the parameter groups are shared with the two inner optimizers. Raises InputError
    for a model without one kind of parameter.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        muon_lr: float,
        adamw_lr: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.95),
    ):
        matrices, rest = split_parameters(model)
        if not (matrices and rest):
            missing = "other parameters" if matrices else "hidden weight matrices"
            raise InputError(f"optimizer 'muon': the model has no {missing}; take 'adamw'")
        self.muon = torch.optim.Muon(
            matrices, lr=muon_lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        self.adamw = torch.optim.AdamW(rest, lr=adamw_lr, betas=betas, weight_decay=0.0)
        super().__init__([*self.muon.param_groups, *self.adamw.param_groups], {})
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both; `closure` computes loss and gradients anew."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        self.muon.step()  # type: ignore[no-untyped-call]
        self.adamw.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The state of both."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of both."""
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Hidden weight matrices, and all other trained parameters, of a transformers model."""
    outside = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is not None:
        outside.add(id(head.weight))
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            hidden = parameter.ndim == 2 and id(parameter) not in outside
            (matrices if hidden else rest).append(parameter)
    return matrices, rest
