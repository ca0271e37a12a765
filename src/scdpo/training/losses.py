"""The preference loss as pure functions of tensors.

Shape suffixes: B rows (sequences, or pairs where said), T tokens, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_IGNORED = -100


def sequence_logps(logits_BTV: Tensor, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Summed log-prob of the tokens that count, per sequence: shape (B,), fp32, nats.

    The logits at position t predict the token at t + 1, so the first token has no prediction
    and never counts. `mask_BT` is boolean, True where a token counts; whatever stands at other
    positions (padding included) changes neither value nor gradient.
    """
    targets_BT = torch.full_like(ids_BT, _IGNORED)
    targets_BT[:, :-1] = ids_BT[:, 1:].masked_fill(~mask_BT[:, 1:], _IGNORED)
    nll = F.cross_entropy(
        logits_BTV.float().flatten(0, 1),
        targets_BT.flatten(),
        ignore_index=_IGNORED,
        reduction="none",
    )
    return -nll.view_as(ids_BT).sum(dim=1)


class DPOOutput(NamedTuple):
    """Per pair, shape (B,): the loss, and the implicit rewards β log π_θ/π_ref (no gradient)."""

    loss_B: Tensor
    chosen_reward_B: Tensor
    rejected_reward_B: Tensor

    @property
    def margin_B(self) -> Tensor:
        """Chosen minus rejected reward."""
        return self.chosen_reward_B - self.rejected_reward_B

    @property
    def won_B(self) -> Tensor:
        """1 where the margin is positive, 0 where it is negative, a half where it is zero."""
        return (self.margin_B.sign() + 1) / 2


def dpo_loss(
    policy_chosen_B: Tensor,
    policy_rejected_B: Tensor,
    ref_chosen_B: Tensor,
    ref_rejected_B: Tensor,
    beta: float,
) -> DPOOutput:
    """The DPO loss of B pairs, −log σ(margin) (arXiv 2407.00782, Eq. 5).

    Inputs are summed log-probs of the tokens that count, under the policy and the reference
    policy. When the steps up to k do not count, this is the step-controlled loss (Eq. 4); as
    the chosen and rejected sums enter only through their difference, a shared prefix with the
    same token ids cancels in value and gradient whether it counts or not (in the rewards it
    does not cancel).
    """
    chosen_B = beta * (policy_chosen_B - ref_chosen_B)
    rejected_B = beta * (policy_rejected_B - ref_rejected_B)
    return DPOOutput(-F.logsigmoid(chosen_B - rejected_B), chosen_B.detach(), rejected_B.detach())
