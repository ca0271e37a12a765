"""Token trees: what is in them, who sees whom, and that they score what sequences score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    CTRLConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
)

from scdpo.errors import InputError
from scdpo.training.attention import Backend, PathPlan, _gathered_attention
from scdpo.training.chain_attention import OPERATOR, chain_attention, pieces_of
from scdpo.training.config import Checkpointing
from scdpo.training.packing import pack
from scdpo.training.padding import pad_sequences
from scdpo.training.probe import candidates, find_scoring
from scdpo.training.recomputing import enable_checkpointing
from scdpo.training.scoring import TreeScoring, score_padded, score_tree, using_attention
from scdpo.training.tree import MaskedIds, Tree, equalise_chunks, grow, join, visible

SMALL = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = LlamaConfig(**SMALL, intermediate_size=48, num_key_value_heads=2)
MISTRAL = MistralConfig(**SMALL, intermediate_size=48, num_key_value_heads=2, sliding_window=5)
QWEN2 = Qwen2Config(
    **SMALL,
    intermediate_size=48,
    num_key_value_heads=2,
    use_sliding_window=True,
    sliding_window=4,
    max_window_layers=1,
)
GEMMA2 = Gemma2Config(
    **SMALL,
    intermediate_size=48,
    num_key_value_heads=2,
    head_dim=8,
    sliding_window=4,
    final_logit_softcapping=2.0,
    attn_logit_softcapping=None,
)
GPT2 = GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=64)
MAMBA = MambaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, state_size=4)

sequences = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=8).flatmap(
        lambda ids: st.tuples(
            st.just(ids), st.lists(st.booleans(), min_size=len(ids), max_size=len(ids))
        )
    ),
    min_size=1,
    max_size=7,
)


def path(tree: Tree, token: int) -> list[int]:
    """Ids from the beginning of the text to a token."""
    ids: list[int] = []
    while token >= 0:
        ids.append(int(tree.ids_N[token]))
        token = int(tree.parent_N[token])
    return ids[::-1]


@given(sequences)
def test_every_prefix_is_in_the_tree_once(some: list[MaskedIds]) -> None:
    tree = grow(some)
    prefixes = {tuple(ids[: n + 1]) for ids, _ in some for n in range(len(ids))}
    paths = [tuple(path(tree, token)) for token in range(len(tree))]
    assert sorted(paths) == sorted(prefixes)
    assert [len(p) - 1 for p in paths] == tree.position_N.tolist()


@given(sequences)
def test_every_counted_token_is_counted_once_but_a_texts_first(some: list[MaskedIds]) -> None:
    tree = grow(some)
    for number, (ids, mask) in enumerate(some):
        found = [path(tree, int(t)) for t in tree.token_E[tree.sequence_E == number]]
        expected = [list(ids[: n + 1]) for n in range(1, len(ids)) if mask[n]]
        assert found == expected


@given(sequences, st.integers(1, 9))
def test_a_token_sees_what_is_on_its_path_alone(some: list[MaskedIds], window: int) -> None:
    tree = join([grow(some), grow(some[:1])])
    seen, near = visible(tree), visible(tree, window)
    for token in range(len(tree)):
        on_path, step = [], token
        while step >= 0:
            on_path.append(step)
            step = int(tree.parent_N[step])
        assert np.flatnonzero(seen[token]).tolist() == on_path[::-1]
        assert np.flatnonzero(near[token]).tolist() == on_path[:window][::-1]


@given(sequences)
def test_chains_cover_a_row_and_name_the_path_before_them(some: list[MaskedIds]) -> None:
    tree = join([grow(some), grow(some)])
    covered = [t for chain in tree.chains for t in range(chain.start, chain.stop)]
    assert covered == list(range(len(tree)))
    for chain in tree.chains:
        before = [t for a, b in chain.before for t in range(a, b)]
        assert before == np.flatnonzero(visible(tree)[chain.start])[:-1].tolist()
        inner = tree.parent_N[chain.start + 1 : chain.stop].tolist()
        assert inner == list(range(chain.start, chain.stop - 1))


def test_a_preferred_solution_is_one_chain_before_its_branches() -> None:
    trunk = list(range(10, 20))
    some = [(trunk, [True] * 10), ([*trunk[:3], 1, 2], [True] * 5)]
    some += [(trunk, [True] * 10), ([*trunk[:6], 3], [True] * 7)]
    tree = grow(some)
    assert tree.ids_N.tolist() == [*trunk, 3, 1, 2]
    assert [(c.start, c.stop, c.before) for c in tree.chains] == [
        (0, 10, ()),
        (10, 11, ((0, 6),)),
        (11, 13, ((0, 3),)),
    ]
    assert (tree.n_separate, tree.n_sequences, tree.n_scored) == (32, 4, 12)


def test_rows_that_are_scored_side_by_side_go_through_as_many_chunks() -> None:
    trees = [grow([([1] * n, [True] * n)]) for n in (3, 9, 5, 2, 7)]
    assert [tree.n_scored for tree in trees] == [2, 8, 4, 1, 6]
    assert [tree.n_scored for tree in equalise_chunks(trees, 2)] == [8, 8, 4, 4, 6]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=30), st.integers(8, 30), st.integers(1, 4))
def test_rows_are_whole_shares_for_every_process(
    lengths: list[int], row_length: int, multiple: int
) -> None:
    rows = pack(lengths, row_length, multiple)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(rows)
    assert len(rows) % multiple == 0 or len(rows) == len(lengths)
    assert all(len(row) == 1 or sum(lengths[i] for i in row) <= row_length for row in rows)


# ---- scoring


def question(seed: int) -> list[MaskedIds]:
    """A preferred solution in three pairs: against a naive negative and two branches."""
    draw = torch.Generator().manual_seed(seed)
    ids = [torch.randint(50, (n,), generator=draw).tolist() for n in (5, 9, 7, 6, 4)]
    prompt, chosen = ids[0], ids[1]
    some: list[MaskedIds] = []
    for k, rejected in zip((0, 3, 6), ids[2:], strict=True):
        front = prompt + chosen[:k]
        for end in (chosen[k:], rejected):
            counts = [t != 2 for t in range(len(end))]
            some.append((front + end, [False] * len(front) + counts))
    return some


QUESTIONS = [question(seed) for seed in range(3)]


def model_of(config: PretrainedConfig) -> torch.nn.Module:
    """A model with weights large enough that every token it sees matters."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return model


def gradient(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def both_ways(
    model: torch.nn.Module, some: Sequence[Sequence[MaskedIds]], way: TreeScoring
) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Log-probs and gradient of a weighted sum of them: each sequence by itself, and as trees."""
    flat = [s for question in some for s in question]
    weight = torch.linspace(-1, 1, len(flat))
    alone = torch.cat([score_padded(model, pad_sequences([s])) for s in flat])
    (alone * weight).sum().backward()
    expected = gradient(model)
    model.zero_grad()
    with using_attention(model, way.backend):
        together = score_tree(model, join([grow(question) for question in some]), way)
        (together * weight).sum().backward()
    found = gradient(model)
    return (alone.detach(), expected), (together.detach(), found)


@pytest.mark.parametrize("backend", ["paths", "sdpa"])
@pytest.mark.parametrize("config", [LLAMA, MISTRAL, QWEN2, GPT2], ids=lambda c: c.model_type)
def test_trees_give_the_log_probs_and_gradients_of_sequences(
    config: PretrainedConfig, backend: Backend
) -> None:
    (alone, expected), (together, found) = both_ways(
        model_of(config), QUESTIONS, TreeScoring(backend, "chunked")
    )
    assert together.tolist() == pytest.approx(alone.tolist(), rel=1e-5)
    assert (found - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize(("most", "times"), [(2**30, 1), (0, 2)], ids=["kept", "made again"])
def test_chunks_give_the_same_and_never_hold_all_logits(
    most: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    model = model_of(LLAMA)
    model.get_output_embeddings().register_forward_hook(lambda m, i, out: seen.append(len(out)))
    monkeypatch.setattr("scdpo.training.scoring.CHUNK_TOKENS", 2)
    monkeypatch.setattr("scdpo.training.scoring.LOGITS_BYTES", most)
    (alone, expected), (together, found) = both_ways(model, QUESTIONS, TreeScoring("paths"))
    assert together.tolist() == pytest.approx(alone.tolist(), rel=1e-5)
    assert (found - expected).norm() < 1e-5 * expected.norm()
    in_chunks = seen[len(alone) :]
    assert max(in_chunks) == 2
    tree = join([grow(question) for question in QUESTIONS])
    assert sum(in_chunks) == times * tree.n_scored


@pytest.mark.parametrize(
    ("config", "way"),
    [
        (LLAMA, TreeScoring("paths")),
        (MISTRAL, TreeScoring("paths")),
        (GPT2, TreeScoring("paths")),
        (GEMMA2, TreeScoring("paths", "own")),  # it bends the logits after the output embeddings
        (MAMBA, None),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_the_probe_finds_what_a_model_can_do(
    config: PretrainedConfig, way: TreeScoring | None
) -> None:
    model = model_of(config)
    found, reason = find_scoring(model, QUESTIONS, ("paths", "sdpa"))
    assert found == way
    assert (way == TreeScoring("paths")) == (reason == "")
    assert model.config._attn_implementation != "scdpo_paths"


def test_the_probe_refuses_a_model_that_ignores_what_it_is_given() -> None:
    model = model_of(LLAMA)
    decoder = model.get_decoder()
    honest = decoder.forward

    def careless(**inputs: object) -> object:
        return honest(**inputs | {"position_ids": None})

    decoder.forward = careless
    found, reason = find_scoring(model, QUESTIONS, ("paths", "sdpa"))
    assert found is None
    assert "differ" in reason


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["paths", "sdpa"]))
def test_neighbours_and_siblings_are_not_seen(seed: int, backend: Backend) -> None:
    """Other tokens in one branch of one question change nothing anywhere else."""
    model = model_of(MISTRAL)
    draw = np.random.default_rng(seed)
    changed = [list(question) for question in QUESTIONS]
    at = int(draw.integers(3))
    side = 2 * int(draw.integers(3)) + 1
    ids, mask = changed[at][side]
    first = mask.index(True)
    changed[at][side] = ([*ids[:first], *((t + 1) % 50 for t in ids[first:])], mask)
    scores = []
    with torch.no_grad(), using_attention(model, backend):
        for some in (QUESTIONS, changed):
            scores.append(score_tree(model, join([grow(q) for q in some]), TreeScoring(backend)))
    differ = (scores[0] - scores[1]).abs() > 1e-5
    assert differ.nonzero().flatten().tolist() == [6 * at + side]


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(sequences, st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_chain_by_chain_attention_is_that_of_the_whole_row(
    dtype: torch.dtype, kv_heads: int, some: list[MaskedIds], seed: int
) -> None:
    tree = join([grow(some), grow(some[:1])])
    generator = torch.Generator().manual_seed(seed)
    states = [
        torch.randn(1, heads, len(tree), 8, dtype=dtype, generator=generator, requires_grad=True)
        for heads in (4, kv_heads, kv_heads)
    ]
    found = chain_attention(*states, pieces_of(tree.chains), 0.3)
    gathered = _gathered_attention(*states, PathPlan(tree), None, 0.3).transpose(1, 2)
    query, *others = states
    expected = F.scaled_dot_product_attention(
        query,
        *(s.repeat_interleave(4 // kv_heads, dim=1) for s in others),
        attn_mask=torch.from_numpy(visible(tree)),
        scale=0.3,
    )
    weight = torch.randn(found.shape, dtype=dtype, generator=generator)
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {}
    wanted = (expected, *torch.autograd.grad((expected * weight).sum(), states))
    for way in (found, gathered):
        got = (way, *torch.autograd.grad((way * weight).sum(), states))
        for one, other in zip(got, wanted, strict=True):
            torch.testing.assert_close(one, other, **close)


@pytest.mark.parametrize(
    ("attention", "checkpointing", "on_gpu", "expected"),
    [
        ("auto", False, False, ("paths", "sdpa")),
        ("auto", "selective", False, ("paths", "sdpa")),
        ("auto", True, True, ("flex", "sdpa", "paths")),
        ("auto", "selective", True, ("sdpa", "paths")),
        ("sdpa", "selective", True, ("sdpa",)),
    ],
)
def test_attention_is_tried_where_it_runs_and_can_be_kept(
    attention: str, checkpointing: Checkpointing, on_gpu: bool, expected: tuple[str, ...]
) -> None:
    assert candidates(attention, checkpointing, on_gpu) == expected


@pytest.mark.parametrize("what", [True, "selective"])
def test_a_model_that_cannot_compute_its_layers_again_is_one_line(what: Checkpointing) -> None:
    model = model_of(CTRLConfig(vocab_size=50, n_embd=32, dff=48, n_layer=2, n_head=4))
    with pytest.raises(InputError, match=r"gradient_checkpointing: CTRL.* does not support"):
        enable_checkpointing(model, what)


def test_the_operator_of_pieces_keeps_torchs_rules() -> None:
    tree = grow(QUESTIONS[0])
    states = [torch.randn(1, heads, len(tree), 8, requires_grad=True) for heads in (4, 2, 2)]
    torch.library.opcheck(OPERATOR, (*states, pieces_of(tree.chains), 0.3))


def test_flex_attention_sees_the_same_as_the_dense_mask() -> None:
    """Forward only: FlexAttention has no backward on a CPU."""
    model = model_of(MISTRAL)
    row = join([grow(question) for question in QUESTIONS])
    with torch.no_grad():
        with using_attention(model, "sdpa"):
            dense = score_tree(model, row, TreeScoring("sdpa"))
        with using_attention(model, "flex"):
            flex = score_tree(model, row, TreeScoring("flex"))
    assert flex.tolist() == pytest.approx(dense.tolist(), rel=1e-4)


def test_a_sequence_that_counts_nothing_scores_zero() -> None:
    model = model_of(LLAMA)
    with torch.no_grad(), using_attention(model, "paths"):
        scores = score_tree(
            model, grow([([1, 2, 3], [False] * 3), ([1, 4], [True] * 2)]), TreeScoring("paths")
        )
        nothing = score_tree(model, grow([([1, 2], [False] * 2)]), TreeScoring("paths"))
    assert scores[0] == 0
    assert scores[1] < 0
    assert nothing.tolist() == [0]
