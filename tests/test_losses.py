"""The preference loss and the log-probs it is made of."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from scdpo.training.losses import (
    SHARED_PREFIX_CANCELS,
    chosen_nll,
    dpo_loss,
    dpop_loss,
    ipo_loss,
    per_token,
    preference_loss,
    sequence_logps,
)
from scdpo.training.padding import SequenceBatch, pad_sequences
from scdpo.training.scoring import score_padded
from scdpo.training.tree import MaskedIds

finite = st.floats(-300, 0, width=32)


def tiny_model() -> LlamaForCausalLM:
    torch.manual_seed(3)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
        )
    )


def sequence(prefix: int, length: int, seed: int) -> MaskedIds:
    """Random ids whose first `prefix` are the same for every seed and do not count."""
    front = torch.randint(64, (prefix,), generator=torch.Generator().manual_seed(0)).tolist()
    rest = torch.randint(64, (length - prefix,), generator=torch.Generator().manual_seed(seed))
    ids = (*front, *rest.tolist())
    return ids, (False,) * prefix + (True,) * (length - prefix)


def test_sequence_logps_sum_the_log_prob_of_each_counted_token_given_those_before_it() -> None:
    torch.manual_seed(0)
    logits_btv, ids_bt = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
    mask_bt = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 1]], dtype=torch.bool)
    expected = [
        sum(
            math.log(torch.softmax(logits_btv[row, t - 1], 0)[ids_bt[row, t]].item())
            for t in range(1, 5)
            if mask_bt[row, t]
        )
        for row in range(2)
    ]
    assert sequence_logps(logits_btv, ids_bt, mask_bt).tolist() == pytest.approx(expected, rel=1e-5)


def test_log_probs_are_summed_in_fp64_whatever_the_logits_are() -> None:
    logits = torch.randn(1, 300, 8).bfloat16()
    ids, mask = torch.randint(8, (1, 300)), torch.ones(1, 300, dtype=torch.bool)
    logps = sequence_logps(logits, ids, mask)
    assert logps.dtype == torch.float64
    assert torch.equal(logps, sequence_logps(logits.float(), ids, mask))


def test_a_sequence_scores_the_same_alone_padded_and_with_partial_logits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model()
    positions: list[int] = []
    model.lm_head.register_forward_hook(lambda m, i, out: positions.append(out.shape[1]))
    sequences = [sequence(4, 20, 1), sequence(9, 12, 2), sequence(4, 5, 3)]
    batch = pad_sequences(sequences)
    with torch.no_grad():
        partial = score_padded(model, batch)
        kept = score_padded(model, SequenceBatch(**batch | {"keep": 20}))
        alone = torch.cat([score_padded(model, pad_sequences([s])) for s in sequences])
        monkeypatch.setattr("scdpo.training.scoring.takes_logits_to_keep", lambda model: False)
        whole = score_padded(model, batch)
    assert positions == [17, 20, 17, 4, 2, 20]
    torch.testing.assert_close(partial, kept, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(partial, whole, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(partial, alone, rtol=1e-6, atol=1e-5)


@given(finite, finite, finite, finite, st.floats(1 / 64, 1, width=32))
def test_dpo_loss_is_minus_log_sigmoid_of_the_margin(
    chosen: float, rejected: float, ref_chosen: float, ref_rejected: float, beta: float
) -> None:
    inputs = [torch.tensor([x]) for x in (chosen, rejected, ref_chosen, ref_rejected)]
    out = dpo_loss(*inputs, beta=beta)
    margin = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    softplus = max(-margin, 0) + math.log1p(math.exp(-abs(margin)))
    assert out.margin_B.item() == pytest.approx(margin, rel=1e-4, abs=1e-3)
    assert out.loss_B.item() == pytest.approx(softplus, rel=1e-4, abs=1e-3)


def test_a_policy_that_is_its_reference_has_loss_ln2_margin_0_and_counts_half() -> None:
    logps = torch.tensor([-3.0, -700.0])
    out = dpo_loss(logps, logps - 5, logps, logps - 5, beta=0.1)
    torch.testing.assert_close(out.loss_B, torch.full((2,), math.log(2)))
    assert out.margin_B.tolist() == [0, 0]
    assert out.won_B.tolist() == [0.5, 0.5]


def test_gradient_is_beta_sigma_of_minus_the_margin() -> None:
    chosen = torch.tensor([-10.0], requires_grad=True)
    rejected = torch.tensor([-20.0], requires_grad=True)
    out = dpo_loss(chosen, rejected, torch.tensor([-11.0]), torch.tensor([-18.0]), beta=0.5)
    out.loss_B.sum().backward()
    weight = 0.5 / (1 + math.exp(out.margin_B.item()))
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert (chosen.grad.item(), rejected.grad.item()) == pytest.approx((-weight, weight))
    assert not out.chosen_reward_B.requires_grad


def test_an_identical_shared_prefix_cancels_in_value_and_gradient() -> None:
    """Eq. 4 of the paper: counting the shared prefix or not is the same loss."""
    prefix = 9
    chosen, rejected = sequence(prefix, 24, 1), sequence(prefix, 18, 2)
    counts_all = [(ids, (False, *(True,) * (len(ids) - 1))) for ids, _ in (chosen, rejected)]
    reference = tiny_model()
    policy = tiny_model()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    results = []
    for sequences in ([chosen, rejected], counts_all):
        batch = pad_sequences(sequences)
        with torch.no_grad():
            ref = score_padded(reference, batch)
        policy.zero_grad()
        logps = score_padded(policy, batch)
        out = dpo_loss(logps[:1], logps[1:], ref[:1], ref[1:], beta=0.1)
        out.loss_B.mean().backward()
        gradient = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
        results.append((out.loss_B.item(), out.chosen_reward_B.item(), gradient))
    (masked, masked_reward, masked_grad), (whole, whole_reward, whole_grad) = results
    assert masked == pytest.approx(whole, abs=1e-6)
    torch.testing.assert_close(masked_grad, whole_grad, rtol=1e-4, atol=1e-6)
    assert abs(masked - math.log(2)) > 1e-3
    assert abs(masked_reward - whole_reward) > 1e-3


def four(*values: float) -> list[torch.Tensor]:
    return [torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in values]


def test_label_smoothing_mixes_the_loss_of_the_flipped_pair() -> None:
    logps = four(-10, -20, -11, -18)
    plain, flipped = dpo_loss(*logps, 0.5), dpo_loss(logps[1], logps[0], logps[3], logps[2], 0.5)
    smooth = dpo_loss(*logps, 0.5, label_smoothing=0.1)
    expected = 0.9 * plain.loss_B + 0.1 * flipped.loss_B
    assert smooth.loss_B.item() == pytest.approx(expected.item())
    assert smooth.margin_B == plain.margin_B
    assert dpo_loss(*logps, 0.5, label_smoothing=0.0).loss_B == plain.loss_B


def test_ipo_pulls_the_log_ratios_to_a_distance() -> None:
    beta = 0.25
    out = ipo_loss(*four(-10, -20, -11, -18), beta)
    assert out.loss_B.item() == pytest.approx((1 - (-2) - 2) ** 2)
    assert ipo_loss(*four(-10, -20, -11, -19), beta).loss_B.item() == pytest.approx(0)
    assert out.margin_B.item() == pytest.approx(beta * 3)


def test_dpop_penalises_a_chosen_one_that_has_become_less_likely() -> None:
    likelier, less_likely = four(-10, -20, -11, -18), four(-12, -22, -11, -18)
    assert dpop_loss(*likelier, 0.5, 5.0).loss_B == dpo_loss(*likelier, 0.5).loss_B
    margin = 0.5 * ((-12 + 11) - (-22 + 18)) - 0.5 * 5.0 * 1
    out = dpop_loss(*less_likely, 0.5, 5.0)
    assert out.loss_B.item() == pytest.approx(math.log1p(math.exp(-margin)))
    assert out.margin_B == dpo_loss(*less_likely, 0.5).margin_B


def test_nll_is_the_mean_over_the_chosen_tokens() -> None:
    nll = chosen_nll(torch.tensor([-10.0, -3.0]), torch.tensor([5, 2]))
    assert nll.tolist() == [2.0, 1.5]


VARIANTS: dict[str, Callable[..., torch.Tensor]] = {
    "sigmoid": lambda t, n: dpo_loss(*t, 0.1).loss_B,
    "sigmoid, label-smoothed (cDPO)": lambda t, n: dpo_loss(*t, 0.1, 0.2).loss_B,
    "ipo": lambda t, n: ipo_loss(*t, 0.1).loss_B,
    "dpop": lambda t, n: dpop_loss(*t, 0.1, 5.0).loss_B,
    "added NLL (RPO)": lambda t, n: dpo_loss(*t, 0.1).loss_B + chosen_nll(t[0], n[0]),
    "length-normalised": lambda t, n: (
        dpo_loss(*(per_token(x, n[i % 2]) for i, x in enumerate(t)), 0.1).loss_B
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_table_says_in_which_losses_a_shared_prefix_cancels(name: str) -> None:
    """A prefix adds the same policy log-prob to both sides, and the same reference log-prob."""
    lengths = torch.tensor([[7.0], [9.0]], dtype=torch.float64)
    found = []
    for policy_prefix, reference_prefix, n_prefix in ((0.0, 0.0, 0), (-6.0, -5.0, 4)):
        shared = torch.tensor([policy_prefix], dtype=torch.float64, requires_grad=True)
        chosen, rejected, ref_chosen, ref_rejected = four(-10, -20, -11, -18)
        terms = (chosen + shared, rejected + shared)
        references = (ref_chosen + reference_prefix, ref_rejected + reference_prefix)
        loss = VARIANTS[name]((*terms, *references), lengths + n_prefix)
        loss.backward()
        assert shared.grad is not None
        found.append((loss.item(), shared.grad.item()))
    without, with_prefix = found
    cancels = with_prefix == pytest.approx((without[0], 0), abs=1e-12)
    assert cancels == SHARED_PREFIX_CANCELS[name]


def test_the_table_is_complete() -> None:
    assert VARIANTS.keys() == SHARED_PREFIX_CANCELS.keys()


@pytest.mark.parametrize("normalised", [False, True])
def test_the_loss_by_name_is_the_loss_of_that_name(normalised: bool) -> None:
    logps = torch.tensor([-10.0, -20.0, -12.0, -9.0], dtype=torch.float64)
    reference = torch.tensor([-11.0, -18.0, -11.0, -9.5], dtype=torch.float64)
    lengths = torch.tensor([5, 8, 4, 3])
    scale = lengths if normalised else torch.ones(4)
    policy, ref = logps / scale, reference / scale
    terms = (policy[0::2], policy[1::2], ref[0::2], ref[1::2])
    expected = {
        "sigmoid": dpo_loss(*terms, 0.3, 0.1).loss_B,
        "ipo": ipo_loss(*terms, 0.3).loss_B,
        "dpop": dpop_loss(*terms, 0.3, 5.0).loss_B,
    }
    nll = -logps[0::2] / lengths[0::2]
    for name, loss_b in expected.items():
        smoothing = 0.1 if name == "sigmoid" else 0.0
        for weight in (0.0, 0.5):
            out = preference_loss(
                logps,
                reference,
                lengths,
                loss=name,  # type: ignore[arg-type]
                beta=0.3,
                label_smoothing=smoothing,
                dpop_penalty=5.0,
                nll_weight=weight,
                length_normalised=normalised,
            )
            torch.testing.assert_close(out.loss_B, loss_b + weight * nll)
