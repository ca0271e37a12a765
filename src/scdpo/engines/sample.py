"""Drawing tokens from logits, each row at its own temperature."""

from __future__ import annotations

import torch


def draw_tokens(
    logits_BV: torch.Tensor, temperature_B: torch.Tensor, uniform_B: torch.Tensor
) -> torch.Tensor:
    """Token ids, shape [B]: the argmax where the temperature is 0, otherwise a sample.

    Sampling inverts the CDF of softmax(logits / temperature) at `uniform_B` (float64, in (0, 1)),
    so that a row's token depends only on its own logits and uniform.
    """
    greedy_B = logits_BV.argmax(-1)
    warm_B = temperature_B > 0
    if not bool(warm_B.any()):
        return greedy_B
    scale_B = torch.where(warm_B, temperature_B, 1.0)
    cdf_BV = (logits_BV / scale_B[:, None]).softmax(-1).cumsum(-1, dtype=torch.float64)
    target_B1 = uniform_B[:, None] * cdf_BV[:, -1:]
    drawn_B = torch.searchsorted(cdf_BV, target_B1, right=True).squeeze(-1)
    return torch.where(warm_B, drawn_B.clamp_(max=logits_BV.shape[-1] - 1), greedy_B)
