"""Preference losses as pure functions of tensors.

Shape suffixes: B rows (sequences, or pairs where said), T tokens, V vocabulary.

Inputs of the losses are summed log-probs (nats) of the tokens that count, of B pairs, under the
policy and the reference policy. Sums are in fp64 because losses are small differences of them: in
fp32 a sum of −5,000 is only known to 2e-4. In a step-controlled pair only the steps after k count
(arXiv 2407.00782, Eq. 4). If its shared steps counted too, they would add the same number to both
sums, as their token ids are the same on both sides. This cancels in some losses, in value and
gradient, and does not in others (`SHARED_PREFIX_CANCELS`). It never cancels in the rewards.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

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
"""Whether the loss stays the same when a pair's shared steps count."""


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
    `label_smoothing` ε is the assumed share of pairs that are labelled the wrong way round:
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

    −log σ(margin − β λ max(0, log π_ref/π_θ of the chosen one)): the penalty keeps the policy
    from winning by making both continuations less likely. A shared prefix does not cancel, as it
    would enter the penalty.
    """
    out = dpo_loss(policy_chosen_B, policy_rejected_B, ref_chosen_B, ref_rejected_B, beta)
    margin_B = beta * (policy_chosen_B - ref_chosen_B - policy_rejected_B + ref_rejected_B)
    lost_B = (ref_chosen_B - policy_chosen_B).clamp(min=0)
    return out._replace(loss_B=-F.logsigmoid(margin_B - beta * penalty * lost_B))


def preference_loss(
    logps_S: Tensor,
    reference_S: Tensor,
    length_S: Tensor,
    *,
    loss: Literal["sigmoid", "ipo", "dpop"] = "sigmoid",
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    dpop_penalty: float = 50.0,
    nll_weight: float = 0.0,
    length_normalised: bool = False,
) -> DPOOutput:
    """The loss of n pairs by name, from S = 2n log-probs in the order chosen, rejected, chosen, …

    `logps_S` and `reference_S` are summed log-probs (nats) under the policy and the reference,
    `length_S` the numbers of tokens that they sum. `loss` is `sigmoid` (`dpo_loss`), `ipo` or
    `dpop`; with `length_normalised` it is computed on log-probs per token. `nll_weight` adds that
    much of `chosen_nll`.
    """
    nll_B = chosen_nll(logps_S[0::2], length_S[0::2])
    if length_normalised:
        logps_S, reference_S = per_token(logps_S, length_S), per_token(reference_S, length_S)
    terms = (logps_S[0::2], logps_S[1::2], reference_S[0::2], reference_S[1::2])
    if loss == "ipo":
        out = ipo_loss(*terms, beta)
    elif loss == "dpop":
        out = dpop_loss(*terms, beta, dpop_penalty)
    else:
        out = dpo_loss(*terms, beta, label_smoothing)
    if nll_weight:
        out = out._replace(loss_B=out.loss_B + nll_weight * nll_B)
    return out


def chosen_nll(policy_chosen_B: Tensor, chosen_length_B: Tensor) -> Tensor:
    """Mean negative log-prob per counted token of the chosen continuations, (B,).

    A preference loss plus a multiple of this is RPO (arXiv 2404.19733, Eq. 1). A shared prefix
    does not cancel, as the rejected side has no such term.
    """
    return -per_token(policy_chosen_B, chosen_length_B)


def per_token(logps_B: Tensor, length_B: Tensor) -> Tensor:
    """Log-probs divided by the number of tokens that they sum.

    With these in place of sums, each loss becomes its length-normalised form (for DPO: arXiv
    2411.15124, Sec. 5.1.2). A shared prefix does not cancel there, as it changes the divisors.
    """
    return logps_B / length_B
