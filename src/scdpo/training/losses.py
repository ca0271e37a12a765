"""Preference losses as pure functions of tensors.

Shape suffixes: B rows (sequences, or pairs where said), T tokens, V vocabulary.

Inputs of the losses are summed log-probs (nats) of the tokens that count, of B pairs, under the
policy and the reference policy. Sums are in fp64, as losses are made of small differences of
them: in fp32 a sum of −5,000 is known to 2e-4 only. A step-controlled pair counts the steps after
k (arXiv 2407.00782, Eq. 4). If its shared steps counted too, then with the same token ids on both
sides they would add the same number to both sums, which cancels in some losses, value and gradient,
and in others not (`SHARED_PREFIX_CANCELS`). In rewards it never does.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_IGNORED = -100

SHARED_PREFIX_CANCELS = {
    "sigmoid": True,
    "sigmoid, label-smoothed (cDPO)": True,
    "ipo": True,
    "dpop": False,
    "added NLL (RPO)": False,
    "length-normalised": False,
}
"""Whether letting a pair's shared steps count would change the loss."""


def sequence_logps(logits_BTV: Tensor, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Summed log-prob of the tokens that count, per sequence: shape (B,), fp64, nats.

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
    return -nll.view_as(ids_BT).sum(dim=1, dtype=torch.float64)


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
    label_smoothing: float = 0.0,
) -> DPOOutput:
    """The DPO loss of B pairs, −log σ(margin) (arXiv 2305.18290, Eq. 7; 2407.00782, Eq. 5).

    When the steps up to k do not count, this is the step-controlled loss (2407.00782, Eq. 4).
    `label_smoothing` ε is the share of pairs that are taken to be labelled the wrong way round:
    −(1 − ε) log σ(margin) − ε log σ(−margin) (cDPO, Mitchell 2023). A shared prefix cancels.
    """
    chosen_B = beta * (policy_chosen_B - ref_chosen_B)
    rejected_B = beta * (policy_rejected_B - ref_rejected_B)
    margin_B = chosen_B - rejected_B
    loss_B = -F.logsigmoid(margin_B)
    if label_smoothing:
        flipped_B = -F.logsigmoid(-margin_B)
        loss_B = (1 - label_smoothing) * loss_B + label_smoothing * flipped_B
    return DPOOutput(loss_B, chosen_B.detach(), rejected_B.detach())


def ipo_loss(
    policy_chosen_B: Tensor,
    policy_rejected_B: Tensor,
    ref_chosen_B: Tensor,
    ref_rejected_B: Tensor,
    beta: float,
) -> DPOOutput:
    """The IPO loss of B pairs, (h − 1/(2β))² (arXiv 2310.12036, Eq. 17, its τ being β).

    h is the difference of the log ratios. On sums the target 1/(2β) means less the longer the
    solutions are; with log-probs per token (`per_token`) this is the form that TRL has. A shared
    prefix cancels in the form on sums.
    """
    chosen_B, rejected_B = policy_chosen_B - ref_chosen_B, policy_rejected_B - ref_rejected_B
    loss_B = (chosen_B - rejected_B - 1 / (2 * beta)) ** 2
    return DPOOutput(loss_B, beta * chosen_B.detach(), beta * rejected_B.detach())


def dpop_loss(
    policy_chosen_B: Tensor,
    policy_rejected_B: Tensor,
    ref_chosen_B: Tensor,
    ref_rejected_B: Tensor,
    beta: float,
    penalty: float,
) -> DPOOutput:
    """DPO-Positive of B pairs (arXiv 2402.13228, Eq. 3; `penalty` is its λ).

    −log σ(margin − β λ max(0, log π_ref/π_θ of the chosen one)): a policy is not to win by
    making both continuations less likely. A shared prefix does not cancel, as it would enter
    the penalty.
    """
    out = dpo_loss(policy_chosen_B, policy_rejected_B, ref_chosen_B, ref_rejected_B, beta)
    margin_B = beta * (policy_chosen_B - ref_chosen_B - policy_rejected_B + ref_rejected_B)
    lost_B = (ref_chosen_B - policy_chosen_B).clamp(min=0)
    return out._replace(loss_B=-F.logsigmoid(margin_B - beta * penalty * lost_B))


def chosen_nll(policy_chosen_B: Tensor, chosen_length_B: Tensor) -> Tensor:
    """Mean negative log-prob per counted token of the chosen continuations, (B,).

    Added with a weight to a preference loss this is RPO (arXiv 2404.19733, Eq. 1). A shared
    prefix does not cancel, as nothing stands against it.
    """
    return -per_token(policy_chosen_B, chosen_length_B)


def per_token(logps_B: Tensor, length_B: Tensor) -> Tensor:
    """Log-probs divided by the number of tokens that they sum.

    With these in place of sums any of the losses above is its length-normalised form (for DPO:
    arXiv 2411.15124, Sec. 5.1.2), in which a shared prefix does not cancel: it changes the
    divisors.
    """
    return logps_B / length_B
