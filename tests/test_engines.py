"""The engines: what a row samples depends on its own request and on nothing else."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from scdpo.engines import (
    CodePoints,
    Completion,
    EngineProtocol,
    LocalEngine,
    LocalEngineConfig,
    Request,
    ScriptedEngine,
    open_engine,
)
from scdpo.engines.draws import seed_words, uniforms
from scdpo.engines.prefix import PrefixCache
from scdpo.engines.sample import draw_tokens
from scdpo.engines.stops import StopWatches
from scdpo.errors import EngineError, PolicyError
from scdpo.policies import Policy, save_policy

MARKERS = ["<|endofblock|>", "<|endofmessage|>", "<|eos|>"]
SIZES = {
    "vocab_size": 260,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": 258,
    # Far from uniform, so that greedy choices do not hang on rounding.
    "initializer_range": 0.3,
}
MODELS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "mistral": MistralConfig(**SIZES, sliding_window=None),
    "qwen2": Qwen2Config(**SIZES),
}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and three markers."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: i for i, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(m, special=True, normalized=False) for m in MARKERS])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|eos|>")


def make_policy(kind: str = "llama", seed: int = 0) -> Policy:
    torch.manual_seed(seed)
    config = type(MODELS[kind])(**MODELS[kind].to_dict())
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    return Policy(f"tiny-{kind}", model.eval(), byte_tokenizer())


@pytest.fixture(scope="module")
def policy() -> Iterator[Policy]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield make_policy()
    torch.set_num_threads(threads)


def ask(engine: EngineProtocol, requests: Sequence[Request]) -> list[Completion]:
    return asyncio.run(engine.generate(requests))


def request(prompt: Sequence[int], temperature: float = 1.0, seed: int = 0, **more) -> Request:
    fields = {"stop": (), "end": (), "max_tokens": 12, **more}
    return Request(tuple(prompt), temperature=temperature, seed=seed, **fields)


def prompts(n: int, low: int = 3, high: int = 40, seed: int = 1) -> list[tuple[int, ...]]:
    draw = np.random.default_rng(seed)
    return [tuple(draw.integers(0, 256, draw.integers(low, high)).tolist()) for _ in range(n)]


def local(policy: Policy, **config) -> LocalEngine:
    return LocalEngine(policy, config=LocalEngineConfig(**config))


def host_turn(requests: Sequence[Request], done: Sequence[Completion]) -> list[Request]:
    """The next step of the same rollouts, after the host appended a few tokens."""
    return [
        replace(
            r,
            prompt_ids=(*r.prompt_ids, *c.token_ids, *range(10, 14 + i % 3)),
            position=r.position + len(c.token_ids),
        )
        for i, (r, c) in enumerate(zip(requests, done, strict=True))
    ]


# The in-process engine against transformers.


@pytest.mark.parametrize("kind", MODELS)
def test_greedy_equals_transformers(kind: str) -> None:
    policy = make_policy(kind)
    asked = [request(p, temperature=0.0, max_tokens=16) for p in prompts(7)]
    for one, got in zip(asked, ask(local(policy), asked), strict=True):
        ids = torch.tensor([one.prompt_ids])
        want = policy.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False
        )
        assert got.token_ids == tuple(want[0, ids.shape[1] :].tolist())


@pytest.mark.parametrize("kind", MODELS)
def test_logps_equal_a_full_forward_pass(kind: str) -> None:
    policy = make_policy(kind)
    engine = local(policy)
    asked = [request(p, temperature=1.3, seed=i) for i, p in enumerate(prompts(6))]
    first = ask(engine, asked)
    second = host_turn(asked, first)
    for one, got in zip([*asked, *second], [*first, *ask(engine, second)], strict=True):
        ids = torch.tensor([[*one.prompt_ids, *got.token_ids]])
        with torch.no_grad():
            logps = policy.model(ids).logits[0].log_softmax(-1)
        n = len(one.prompt_ids)
        want = [float(logps[n - 1 + i, t]) for i, t in enumerate(got.token_ids)]
        assert got.logps == pytest.approx(want, abs=2e-4)


# What a row depends on.


def test_a_row_is_the_same_alone_and_in_a_batch(policy: Policy) -> None:
    asked = [request(p, temperature=0.5 + 0.1 * i, seed=i) for i, p in enumerate(prompts(9))]
    together = ask(local(policy), asked)
    reverse = ask(local(policy, max_rows=4, prefill_tokens=16), asked[::-1])[::-1]
    alone = [ask(local(policy, cache_mb=0), [one])[0] for one in asked]
    ids = [c.token_ids for c in together]
    assert ids == [c.token_ids for c in reverse] == [c.token_ids for c in alone]
    assert len(set(ids)) == len(ids)


def test_nothing_else_draws_and_nothing_else_is_drawn_from(policy: Policy) -> None:
    engine = local(policy)
    asked = [request(p, seed=i) for i, p in enumerate(prompts(4))]
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    first = ask(engine, asked)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(4)
    engine.clear()
    assert ask(engine, asked) == first
    assert [c.token_ids for c in ask(engine, [replace(r, seed=99) for r in asked])] != [
        c.token_ids for c in first
    ]


def test_position_continues_the_stream_of_draws(policy: Policy) -> None:
    engine = local(policy)
    whole = ask(engine, [request(range(9), seed=5, max_tokens=10)])[0]
    head = ask(engine, [request(range(9), seed=5, max_tokens=4)])[0]
    rest = request((*range(9), *head.token_ids), seed=5, max_tokens=6, position=4)
    assert head.token_ids + ask(engine, [rest])[0].token_ids == whole.token_ids


def test_temperature_is_each_rows_own(policy: Policy) -> None:
    asked = [request(range(8), temperature=t, seed=s) for s in range(40) for t in (0.0, 1.0, 4.0)]
    done = ask(local(policy), [replace(r, max_tokens=1) for r in asked])
    kinds = [len({c.token_ids for c in done[i::3]}) for i in range(3)]
    assert kinds[0] == 1 < kinds[1] < kinds[2]
    means = [np.mean([c.logps[0] for c in done[i::3]]) for i in range(3)]
    assert means[0] > means[1] > means[2]


def test_draws_follow_the_softmax(policy: Policy) -> None:
    n, temperature = 3000, 1.5
    prompt = (7, 3, 11)
    asked = [request(prompt, temperature, seed=s, max_tokens=1) for s in range(n)]
    counts = Counter(c.token_ids[0] for c in ask(local(policy, max_rows=n), asked))
    with torch.no_grad():
        logits = policy.model(torch.tensor([prompt])).logits[0, -1]
    expected = (logits / temperature).softmax(-1).double().numpy() * n
    common = expected >= 5
    observed = np.array([counts[i] for i in range(len(expected))])
    chi2 = ((observed - expected)[common] ** 2 / expected[common]).sum()
    rest = expected[~common].sum()
    chi2 += (observed[~common].sum() - rest) ** 2 / rest
    degrees = int(common.sum())
    assert degrees >= 10
    # Five standard deviations of the chi-square distribution.
    assert chi2 < degrees + 5 * np.sqrt(2 * degrees)


def test_a_token_without_probability_is_never_drawn() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 1.0, -torch.inf]]).repeat(4, 1)
    uniform = torch.tensor([2.0**-49, 0.2, 0.9, 1 - 2.0**-49], dtype=torch.float64)
    assert draw_tokens(logits, torch.ones(4), uniform).tolist() == [1, 1, 3, 3]


def test_uniforms_are_uniform_and_apart() -> None:
    seeds = [0, 1, -1, 2**63, 2**200 + 7]
    words = np.repeat(seed_words(seeds), 2000)
    drawn = uniforms(words, np.tile(np.arange(2000), len(seeds))).reshape(len(seeds), 2000)
    assert np.all((drawn > 0) & (drawn < 1))
    assert np.abs(drawn.mean(axis=1) - 0.5).max() < 0.03
    assert np.abs(drawn.std(axis=1) - 12**-0.5).max() < 0.01
    off_diagonal = np.corrcoef(drawn) - np.eye(len(seeds))
    assert np.abs(off_diagonal).max() < 0.1
    assert np.abs(np.corrcoef(drawn[:, :-1].ravel(), drawn[:, 1:].ravel())[0, 1]) < 0.05
    assert len(np.unique(drawn)) == drawn.size


# The prefix cache.


def rollouts(engine: LocalEngine, n_steps: int = 4) -> list[list[Completion]]:
    """A step loop over repeated prompts, with branches off finished rows."""
    base = prompts(5, high=20)
    asked = [
        request(base[i % 5], 0.9, seed=i, max_tokens=5 + i % 7, stop=("<|endofblock|>",))
        for i in range(12)
    ]
    steps = []
    for _ in range(n_steps):
        steps.append(ask(engine, asked))
        asked = host_turn(asked, steps[-1])
        asked = [*asked[1:], replace(asked[3], seed=asked[3].seed + 100)]
    return steps


def same(a: list[list[Completion]], b: list[list[Completion]]) -> bool:
    """Equal but for rounding of the log-probs."""
    pairs = [(x, y) for s, t in zip(a, b, strict=True) for x, y in zip(s, t, strict=True)]
    return all(
        x.token_ids == y.token_ids
        and x.finish == y.finish
        and x.logps == pytest.approx(y.logps, abs=2e-4)
        for x, y in pairs
    )


def test_the_prefix_cache_changes_nothing(policy: Policy) -> None:
    engine = local(policy)
    kept = rollouts(engine)
    assert engine._decoder.prefixes.held > 0
    assert same(kept, rollouts(local(policy, cache_mb=0)))
    assert same(kept, rollouts(local(policy, max_rows=3)))
    assert rollouts(local(policy)) == kept
    engine.clear()
    assert rollouts(engine) == kept


def test_the_prefix_cache_saves_the_prompt(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = local(policy)
    fed: list[int] = []
    forward = engine._decoder.kv.forward

    def counting(model, rows, ids, *rest):
        fed.append(ids.numel())
        return forward(model, rows, ids, *rest)

    monkeypatch.setattr(engine._decoder.kv, "forward", counting)
    first = [request(range(40), seed=s, max_tokens=3) for s in range(6)]
    done = ask(engine, first)
    assert fed == [40, 6, 6], "six equal prompts are computed once"
    fed.clear()
    ask(engine, host_turn(first, done))
    # The last sampled token and 4 to 6 host tokens a row.
    assert fed == [6 * 7, 6, 6]


def test_prefix_tree_matches_splits_and_forgets() -> None:
    def keys(*ids: int) -> torch.Tensor:
        return torch.tensor(ids, dtype=torch.float32).view(1, 1, -1, 1).expand(4, 2, -1, 8)

    def found(ids: tuple[int, ...]) -> list[float]:
        return [float(x) for part in tree.match(ids) for x in part[0, 0, :, 0]]

    per_token = 4 * 2 * 8 * 4
    tree = PrefixCache(9 * per_token)
    tree.insert((1, 2, 3, 4, 5), keys(1, 2, 3, 4, 5))
    tree.insert((1, 2, 3), keys(9, 9, 9))
    tree.insert((1, 2, 7, 8), keys(1, 2, 7, 8))
    assert tree.held == 7 * per_token, "shared tokens are kept once"
    assert found((1, 2, 3, 4, 6)) == [1, 2, 3, 4]
    assert found((1, 2, 7, 8, 9)) == [1, 2, 7, 8]
    assert found((2, 1)) == []
    tree.insert((5, 5, 5), keys(5, 5, 5))
    assert tree.held <= tree.budget
    assert found((1, 2, 3, 4, 5)) == [1, 2], "the leaf unused for longest goes first"
    assert found((1, 2, 7, 8)) == [1, 2, 7, 8]
    tree.insert(tuple(range(20)), keys(*range(20)))
    assert tree.held == 0, "what exceeds the budget is not kept"
    tree.clear()
    assert found((5, 5)) == []


# How completions end.


def test_stop_and_end_markers(policy: Policy) -> None:
    block, message, eos = (policy.encode(m)[0] for m in MARKERS)
    watch = StopWatches(policy.tokenizer, 260, [eos]).of((MARKERS[0], "\n\n"), (MARKERS[1], "#é"))
    cases = [
        ((5, block), "stop"),
        ((5, message), "end"),
        ((5, eos), "end"),
        (policy.encode("a\n"), None),
        (policy.encode("a\n\n"), "stop"),
        (policy.encode("#é"), "end"),
        (policy.encode("#é")[:-1], None),
        (policy.encode("<|endofmessage|x"), None),
        (policy.encode("a\n\n")[:2] + policy.encode("é\n"), None),
    ]
    for ids, finish in cases:
        last = ids[-1]
        assert (watch.finish(ids) if last in watch.may_end else None) == finish, ids


def test_an_end_string_wins_over_a_stop_string_and_both_over_eos(policy: Policy) -> None:
    eos = policy.encode("<|eos|>")[0]
    watches = StopWatches(policy.tokenizer, 260, [eos])
    assert watches.of(("<|eos|>",), ()).finish((1, eos)) == "stop"
    assert watches.of(("<|eos|>",), ("<|eos|>",)).finish((1, eos)) == "end"
    assert watches.of(("b",), ("ab",)).finish(policy.encode("ab")) == "end"


def test_a_row_stops_at_its_strings_and_keeps_them(policy: Policy) -> None:
    engine = local(policy)
    free = ask(engine, [request(p, 1.5, i, max_tokens=30) for i, p in enumerate(prompts(8))])
    texts = [c.text for c in free]
    # Each row gets two neighbouring characters of its own free text as its stop string.
    stops = [next(t[i : i + 2] for i in range(5, 20) if t[i : i + 2].isascii()) for t in texts]
    asked = [
        request(p, 1.5, i, max_tokens=30, stop=(s,))
        for i, (p, s) in enumerate(zip(prompts(8), stops, strict=True))
    ]
    for text, stop, got in zip(texts, stops, ask(engine, asked), strict=True):
        assert got.finish == "stop"
        assert got.text == policy.decode(got.token_ids)
        assert text.startswith(got.text)
        assert stop in got.text
        assert stop not in policy.decode(got.token_ids[:-1])
        assert len(got.logps) == len(got.token_ids)


def test_a_marker_ends_a_row_of_the_engine(policy: Policy) -> None:
    first = ask(local(policy), [request(range(6), seed=2, temperature=2.0)])[0]
    target = first.token_ids[4]
    other = make_policy()
    # The token drawn fifth is named as the model's EOS.
    other.model.generation_config.eos_token_id = [target]
    got = ask(local(other), [request(range(6), seed=2, temperature=2.0)])[0]
    assert got.finish == "end"
    assert got.token_ids == first.token_ids[: first.token_ids.index(target) + 1]


def test_lengths(policy: Policy) -> None:
    engine = local(policy, max_context=30)
    done = ask(
        engine,
        [
            request(range(10), max_tokens=5),
            request(range(27), max_tokens=5),
            request(range(30)),
            request(range(50)),
        ],
    )
    assert [(len(c.token_ids), c.finish) for c in done] == [
        (5, "length"),
        (3, "length"),
        (0, "length"),
        (0, "length"),
    ]
    assert done[3].text == ""
    assert ask(engine, []) == []


def test_rows_grow_past_the_first_allocation(policy: Policy) -> None:
    asked = [request(p, 0.0, max_tokens=80) for p in prompts(5, low=3, high=14)]
    for one, got in zip(asked, ask(local(policy), asked), strict=True):
        ids = torch.tensor([one.prompt_ids])
        want = policy.model.generate(ids, max_new_tokens=80, do_sample=False)
        assert got.token_ids == tuple(want[0, ids.shape[1] :].tolist())


# Wrong input.


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prompt_ids": ()}, "request 1: prompt_ids is empty"),
        ({"prompt_ids": (3, 260)}, "token id 260 is not in 0..259"),
        ({"prompt_ids": (-1,)}, "token id -1"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"stop": ("",)}, "string is empty"),
    ],
)
def test_a_wrong_request_is_refused(policy: Policy, wrong: dict, message: str) -> None:
    good = request(range(4))
    with pytest.raises(EngineError, match=message):
        ask(local(policy), [good, replace(good, **wrong)])


def test_models_that_cannot_be_used_are_refused() -> None:
    policy = make_policy("mistral")
    policy.model.config.sliding_window = 32
    with pytest.raises(EngineError, match="window is 32 tokens, shorter than the context of 96"):
        local(policy)
    assert ask(local(policy, max_context=32), [request(range(5))])[0].token_ids
    with pytest.raises(EngineError, match="max_context 97 exceeds the model's limit 96"):
        local(policy, max_context=97)


def test_a_model_that_ignores_the_mask_is_refused(policy: Policy) -> None:
    model = make_policy().model
    forward = model.forward

    def maskless(**inputs):
        return forward(**{**inputs, "attention_mask": None})

    model.forward = maskless
    with pytest.raises(EngineError, match="does not support 4-D attention masks"):
        local(Policy("maskless", model, policy.tokenizer))


def test_broken_weights_are_an_error() -> None:
    policy = make_policy()
    engine = local(policy)
    asked = [request(range(4)), request(range(20))]
    before = ask(engine, asked)
    weight = policy.model.model.layers[0].self_attn.v_proj.weight
    with torch.no_grad():
        sound = weight.clone()
        weight.fill_(float("nan"))
        engine.clear()
        with pytest.raises(EngineError, match="tiny-llama: the policy's logits are not finite"):
            ask(engine, asked)
        weight.copy_(sound)
    assert ask(engine, asked) == before


def test_a_cancelled_call_stops_and_the_engine_goes_on(policy: Policy) -> None:
    engine = local(policy)

    async def cancel() -> Completion:
        call = asyncio.create_task(engine.generate([request(range(4), max_tokens=80)] * 50))
        await asyncio.sleep(0.02)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return (await engine.generate([request(range(4), max_tokens=3)]))[0]

    assert len(asyncio.run(cancel()).token_ids) == 3
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        ask(engine, [request(range(4))])


def test_open_engine_reads_a_policy_folder(policy: Policy, tmp_path) -> None:
    save_policy(policy, tmp_path / "p")
    engine = open_engine(tmp_path / "p", LocalEngineConfig(device="cpu", max_rows=8))
    assert engine.name == str(tmp_path / "p")
    assert engine.max_context == 96
    assert engine.encode("a<|endofblock|>") == policy.encode("a<|endofblock|>")
    asked = [request(range(9), seed=1)]
    # Weights read from a file may lie elsewhere in memory, which changes the rounding.
    assert same([ask(engine, asked)], [ask(local(policy), asked)])
    with pytest.raises(PolicyError):
        open_engine(tmp_path)
    with pytest.raises(ValidationError, match="max_row"):
        LocalEngineConfig(max_row=3)


def test_importing_the_room_imports_no_torch() -> None:
    code = (
        "import sys; from scdpo.engines import LocalEngineConfig, ScriptedEngine; "
        "print('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# The scripted engine.


def scripted_request(engine: ScriptedEngine, prompt: str, **more) -> Request:
    return request(engine.encode(prompt), **{"max_tokens": 100, "stop": ("\n",), **more})


def test_code_points_are_reversible() -> None:
    tokens = CodePoints(["<|a|>", "<|a|>b"])
    text = "é<|a|>b<|a|>c\n😀"
    assert tokens.decode(tokens.encode(text)) == text
    assert len(tokens.encode(text)) == 6
    with pytest.raises(EngineError):
        tokens.decode([0x110000 + 2])


def test_a_script_is_followed_step_by_step() -> None:
    steps = ["x = 3\n", "so 3<end>"]
    engine = ScriptedEngine({"Q1": [steps], "Q12": [["no\n"]]}, special_tokens=["<end>"], logp=-1.0)
    one = ask(engine, [scripted_request(engine, "ask Q1?\n", end=("<end>",))])[0]
    assert (one.text, one.finish, one.logps) == ("x = 3\n", "stop", (-1.0,) * 6)
    two = scripted_request(engine, "ask Q1?\nx = 3\noutput: 3\n", end=("<end>",))
    assert [(c.text, c.finish) for c in ask(engine, [two])] == [("so 3<end>", "end")]
    assert ask(engine, [scripted_request(engine, "ask Q12?\n")])[0].text == "no\n"
    done = scripted_request(engine, "ask Q1?\nx = 3\noutput: 3\nso 3<end>")
    assert [(c.text, c.finish) for c in ask(engine, [done])] == [("", "end")]


def test_the_seed_chooses_among_alternatives_that_fit_the_prompt() -> None:
    engine = ScriptedEngine({"Q": [["a\n", "1\n"], ["a\n", "2\n"], ["b\n", "3\n"]]})

    def texts(prompt: str, temperature: float = 1.0) -> set[str]:
        asked = [
            scripted_request(engine, prompt, temperature=temperature, seed=s) for s in range(30)
        ]
        done = ask(engine, asked)
        assert done == ask(engine, asked)
        return {c.text for c in done}

    assert texts("Q: ") == {"a\n", "b\n"}
    assert texts("Q: ", temperature=0.0) == {"a\n"}
    assert texts("Q: a\n") == {"1\n", "2\n"}
    assert texts("Q: b\n") == {"3\n"}


def test_a_script_can_be_a_function_and_is_cut_as_a_policy_would_be() -> None:
    engine = ScriptedEngine(lambda r: f"{len(r.prompt_ids)} tokens; seed {r.seed}", max_context=12)
    done = ask(
        engine,
        [
            scripted_request(engine, "abc", seed=4, max_tokens=5),
            scripted_request(engine, "abc", stop=(";",), end=("ens;",)),
            scripted_request(engine, "abc", stop=("tok",)),
            scripted_request(engine, "abcdefghijkl"),
        ],
    )
    assert [(c.text, c.finish) for c in done] == [
        ("3 tok", "length"),
        ("3 tokens;", "end"),
        ("3 tok", "stop"),
        ("", "length"),
    ]
    with pytest.raises(EngineError, match="no script for the prompt 'Q9'"):
        ask(ScriptedEngine({"Q1": [["a"]]}), [scripted_request(engine, "Q9")])
