"""Log-probs of token trees for one's own training loop."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

from scdpo.errors import InputError
from scdpo.training import dpo_loss, pair_sequences, tree_attention, tree_logps
from scdpo.training.padding import pad_sequences
from scdpo.training.recomputing import enable_checkpointing
from scdpo.training.scoring import TreeScoring, attention_of, score_padded, score_tree
from scdpo.training.tree import MaskedIds, grow

SMALL = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
TRUNK = [7, 8, 9, 10, 11, 12, 13]
SEQUENCES: list[MaskedIds] = [
    (TRUNK, [False] * 3 + [True] * 4),
    ([*TRUNK[:3], 20, 21], [False] * 3 + [True] * 2),
    (TRUNK, [False] * 5 + [True] * 2),
    ([*TRUNK[:5], 30], [False] * 5 + [True]),
]


def llama(**changes: object) -> LlamaForCausalLM:
    torch.manual_seed(0)
    settings = SMALL | {"intermediate_size": 48, "max_position_embeddings": 32} | changes
    return LlamaForCausalLM(LlamaConfig(**settings))


def loss_of(logps: torch.Tensor) -> torch.Tensor:
    reference = torch.linspace(-9, -3, len(logps), dtype=torch.float64)
    out = dpo_loss(logps[0::2], logps[1::2], reference[0::2], reference[1::2], beta=0.1)
    return out.loss_B.mean()


def gradient(model: torch.nn.Module) -> torch.Tensor:
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return found


def test_log_probs_and_gradients_are_those_of_sequences_alone() -> None:
    model = llama()
    before = attention_of(model)
    alone = torch.cat([score_padded(model, pad_sequences([s])) for s in SEQUENCES])
    loss_of(alone).backward()
    expected = gradient(model)
    for attention in ("auto", "paths", "sdpa"):
        logps = tree_logps(model, SEQUENCES, attention=attention)
        assert attention_of(model) == before
        assert logps.dtype == torch.float64
        assert logps.tolist() == pytest.approx(alone.tolist(), rel=1e-5)
        loss_of(logps).backward()
        assert (gradient(model) - expected).norm() < 1e-5 * expected.norm()
    assert model.training


@pytest.mark.parametrize("kind", [True, "selective"])
def test_gradient_checkpointing_needs_the_attention_in_the_backward_pass(kind: bool | str) -> None:
    model = llama()
    loss_of(tree_logps(model, SEQUENCES)).backward()
    expected = gradient(model)
    enable_checkpointing(model, kind)  # type: ignore[arg-type]
    before = attention_of(model)
    with pytest.raises(InputError, match=r"inside `with tree_attention\(model\):`"):
        tree_logps(model, SEQUENCES)
    with torch.no_grad():
        tree_logps(model, SEQUENCES)  # nothing is computed again without a backward pass
    with tree_attention(model):
        loss_of(tree_logps(model, SEQUENCES)).backward()
    assert (gradient(model) - expected).norm() < 1e-5 * expected.norm()
    assert attention_of(model) == before


def test_what_cannot_be_scored_is_one_line() -> None:
    model = llama()
    faults = {
        "no sequences": [],
        r"sequence 1 has 0 token ids": [SEQUENCES[0], ([], [])],
        r"sequence 0 has 2 token ids with a mask of 1": [([1, 2], [True])],
        r"token ids from 3 to 99, but the model has 50 tokens": [([3, 99], [True] * 2)],
        r"40 tokens, but the model's context is 32": [([1] * 40, [True] * 40)],
    }
    for message, sequences in faults.items():
        with pytest.raises(InputError, match=message):
            tree_logps(model, sequences)
    with pytest.raises(InputError, match="attention 'fast': accepted are auto, paths, sdpa, flex"):
        tree_logps(model, SEQUENCES, attention="fast")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="attention is sdpa, not that of backend paths"):
        score_tree(model, grow(SEQUENCES), TreeScoring("paths"))
    with pytest.raises(InputError, match="dropout"):
        tree_logps(llama(attention_dropout=0.1).train(), SEQUENCES, attention="paths")
    mamba = MambaForCausalLM(MambaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1))
    with pytest.raises(InputError, match="the model cannot score token trees"):
        tree_logps(mamba, SEQUENCES)


def test_sequences_that_count_nothing_score_zero_and_another_model_can_be_scored() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=2)).eval()
    nothing = [(ids, [False] * len(ids)) for ids, _ in SEQUENCES]
    assert tree_logps(model, nothing).tolist() == [0] * 4
    assert (tree_logps(model, SEQUENCES) < 0).all()
    assert tree_logps(model, [([4], [True])]).tolist() == [0]


def test_pairs_become_sequences() -> None:
    from scdpo.policies import load_tokenizer
    from tiny_pairs import make_pair

    tokenizer = load_tokenizer("embedded")
    pairs = [make_pair(1), make_pair(2, branch=2)]
    sequences = pair_sequences(pairs, tokenizer)
    assert len(sequences) == 4
    for pair, (ids, mask) in zip([pairs[0]] * 2 + [pairs[1]] * 2, sequences, strict=True):
        text = tokenizer.decode([i for i, counts in zip(ids, mask, strict=True) if counts])
        assert text in (pair.chosen[0].text, pair.rejected[0].text)
    whole = pair_sequences(pairs, tokenizer, score_shared=True)
    assert sum(whole[2][1]) > sum(sequences[2][1])
