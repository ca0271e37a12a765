"""Supervised fine-tuning of a tiny policy made from nothing."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from transformers import LlamaConfig, LlamaForCausalLM

from scdpo.errors import InputError, PolicyError, StoreError
from scdpo.formats import get_format
from scdpo.policies import Policy, load_policy, save_policy
from scdpo.records import Finish, Solution, Step, Verdict, VerdictName
from scdpo.training.batching import EpochOrder, epoch_order
from scdpo.training.examples import examples_from_solutions
from scdpo.training.fresh import FreshPolicyConfig, fresh_policy
from scdpo.training.optimizers import MuonWithAdamW, split_parameters
from scdpo.training.packing import pack
from scdpo.training.padding import pad_sequences
from scdpo.training.scoring import score_padded
from scdpo.training.sft_config import SFTConfig
from scdpo.training.supervised import sft
from scdpo.training.tree import MaskedIds

SHAPE = FreshPolicyConfig(
    vocab_size=300, hidden_size=32, layers=2, heads=4, kv_heads=2, intermediate_size=48
)
BLOCKS = get_format("blocks", system="")
TEXTS = ("A box holds 12 eggs, 3 boxes hold 36 eggs.", "She has 3 boxes of 12 eggs.")
CONFIG = SFTConfig(
    learning_rate=3e-3, epochs=2, batch_size=4, micro_batch_size=2, max_length=64, save_steps=2
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from threads that share busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fresh(**changes: object) -> Policy:
    shape = FreshPolicyConfig.model_validate(SHAPE.model_dump() | changes)
    return fresh_policy(TEXTS, BLOCKS.special_tokens, BLOCKS.end[0], shape)


def config(**changes: object) -> SFTConfig:
    return SFTConfig.model_validate(CONFIG.model_dump() | changes)


def example(seed: int, n: int) -> MaskedIds:
    """n random tokens of which the later ones count, a gap in the middle left out."""
    ids = torch.randint(1, 270, (n,), generator=torch.Generator().manual_seed(seed)).tolist()
    return ids, [t >= n // 3 and t != n // 2 for t in range(n)]


EXAMPLES = [example(i, 6 + (5 * i) % 17) for i in range(14)]


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def logged(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in logged(out)]


def mean_nll(model: LlamaForCausalLM, examples: Sequence[MaskedIds]) -> float:
    """Mean over all counted tokens, one example after another."""
    nll: list[float] = []
    with torch.no_grad():
        for ids, mask in examples:
            logp_TV = F.log_softmax(model(torch.tensor([list(ids)])).logits[0], dim=-1)
            nll += [-logp_TV[t - 1, ids[t]].item() for t in range(1, len(ids)) if mask[t]]
    return sum(nll) / len(nll)


# ---- order


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=60),
    st.integers(1, 12),
    st.integers(1, 4),
    st.booleans(),
)
def test_an_epoch_sees_every_example_at_most_once(
    lengths: list[int], batch_size: int, group: int, drop_last: bool
) -> None:
    order = EpochOrder(lengths, batch_size, 3, group=group, drop_last=drop_last)
    seen = list(order)
    assert len(seen) == len(set(seen)) == len(order)
    size = min(batch_size, len(lengths))
    assert len(seen) == (len(lengths) // size * size if drop_last else len(lengths))
    assert order.n_batches == -(-len(seen) // size)
    for start in range(0, len(seen), size):
        batch = [lengths[i] for i in seen[start : start + size]]
        assert batch == sorted(batch, reverse=True)


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    lengths = [(7 * i) % 23 for i in range(50)]
    orders = [
        tuple(epoch_order(lengths, 4, seed, epoch)) for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    assert len(set(orders)) == 3
    sampler = EpochOrder(lengths, 4, 0)
    sampler.set_epoch(1)
    assert tuple(sampler) == tuple(sampler) == orders[1]
    assert tuple(sampler.indices(0)) == orders[0]


def test_the_order_stays_what_published_policies_were_trained_in() -> None:
    lengths = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]
    order = epoch_order(lengths, 3, 0, 0, group=2, drop_last=True)
    assert order == [6, 1, 3, 8, 10, 0, 5, 11, 7, 4, 2, 9]


def test_groups_make_batches_of_similar_length() -> None:
    lengths = torch.randint(10, 300, (256,), generator=torch.Generator().manual_seed(0)).tolist()

    def padding(group: int) -> int:
        order = epoch_order(lengths, 8, 0, 0, group=group)
        batches = [[lengths[i] for i in order[b : b + 8]] for b in range(0, 256, 8)]
        return sum(8 * max(batch) - sum(batch) for batch in batches)

    assert padding(16) < padding(1) / 4


# ---- packing


@given(st.lists(st.integers(1, 20), max_size=40), st.integers(8, 30))
def test_rows_hold_every_solution_once_and_no_more_than_fits(
    lengths: list[int], row_length: int
) -> None:
    rows = pack(lengths, row_length)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    for row in rows:
        assert len(row) == 1 or sum(lengths[i] for i in row) <= row_length
    if rows and max(lengths) <= row_length:
        assert len(rows) <= 2 * sum(lengths) / row_length + 1


# ---- optimizer


@pytest.mark.parametrize("tied", [True, False])
def test_muon_takes_hidden_matrices_and_adamw_the_rest(tied: bool) -> None:
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            tie_word_embeddings=tied,
            attention_bias=True,
        )
    )
    names = {id(p): name for name, p in model.named_parameters()}
    model.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    matrices, rest = split_parameters(model)
    split = [names[id(p)] for p in matrices], [names[id(p)] for p in rest]
    assert sorted(split[0] + split[1] + ["model.layers.0.mlp.up_proj.weight"]) == sorted(
        names.values()
    )
    assert all("proj.weight" in name for name in split[0])
    assert len(split[0]) == 13
    assert not any("proj.weight" in name for name in split[1])
    assert ("lm_head.weight" in split[1]) is not tied
    optimizer = MuonWithAdamW(model, muon_lr=0.1, adamw_lr=0.2)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert [id(p) for p in held] == [id(p) for p in matrices + rest]


def test_muon_needs_both_kinds_of_parameters() -> None:
    with pytest.raises(InputError, match="no hidden weight matrices"):
        MuonWithAdamW(torch.nn.LayerNorm(4), muon_lr=0.1, adamw_lr=0.1)
    with pytest.raises(InputError, match="no other parameters"):
        MuonWithAdamW(torch.nn.Linear(4, 4, bias=False), muon_lr=0.1, adamw_lr=0.1)


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(seed))
    optimizer.step()


def test_the_optimizers_state_can_be_saved_and_put_back() -> None:
    model = fresh().model
    optimizer = MuonWithAdamW(model, muon_lr=0.02, adamw_lr=0.003, weight_decay=0.1)
    step(model, optimizer, 1)
    twin = copy.deepcopy(model)
    other = MuonWithAdamW(twin, muon_lr=1, adamw_lr=1)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for seed in (2, 3):
        step(model, optimizer, seed)
        step(twin, other, seed)
    assert torch.equal(weights(model), weights(twin))
    forgetful = MuonWithAdamW(copy.deepcopy(model), muon_lr=0.02, adamw_lr=0.003)
    assert optimizer.state_dict()["muon"]["state"] != forgetful.state_dict()["muon"]["state"]


def test_a_schedule_reaches_both_optimizers_also_after_loading() -> None:
    model = fresh().model
    optimizer = MuonWithAdamW(model, muon_lr=0.02, adamw_lr=0.003)
    schedule = LambdaLR(optimizer, lambda n: 1 / (n + 1))
    step(model, optimizer, 1)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    schedule.step()
    assert [g["lr"] for g in optimizer.muon.param_groups] == [0.01]
    assert [g["lr"] for g in optimizer.adamw.param_groups] == [0.0015]
    before = weights(model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    step(model, optimizer, 2)
    assert torch.equal(weights(model), before)


def test_the_optimizer_calls_a_closure_with_gradients() -> None:
    model = fresh().model
    optimizer = MuonWithAdamW(model, muon_lr=0.02, adamw_lr=0.003)
    batch = pad_sequences(EXAMPLES[:3])

    def closure() -> float:
        optimizer.zero_grad()
        loss = -score_padded(model, batch).sum()
        loss.backward()
        return loss.item()

    first = optimizer.step(closure)
    second = optimizer.step(closure)
    assert first is not None
    assert second is not None
    assert second < first


# ---- training


def test_the_first_loss_is_the_mean_over_the_counted_tokens_of_the_batch(tmp_path: Path) -> None:
    policy = fresh()
    lengths = [len(ids) for ids, _ in EXAMPLES]
    batch = [EXAMPLES[i] for i in epoch_order(lengths, 4, 0, 0, group=16, drop_last=True)[:4]]
    expected = mean_nll(policy.model, batch)
    report = sft(policy, EXAMPLES, tmp_path, config=CONFIG)
    assert report.first_loss == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_losses_do_not_depend_on_micro_batches_or_packing(tmp_path: Path, optimizer: str) -> None:
    curves = []
    ways = ({"micro_batch_size": 4}, {"micro_batch_size": 1}, {"pack_length": 40})
    for number, way in enumerate(ways):
        out = tmp_path / str(number)
        settings = config(optimizer=optimizer, learning_rate=1e-3, muon_learning_rate=1e-3, **way)
        sft(fresh(), EXAMPLES, out, config=settings)
        curves.append(losses(out))
    # Muon orthogonalises in bf16, so that a last bit of a gradient can become a visible one.
    close = 1e-5 if optimizer == "adamw" else 1e-3
    assert curves[1] == pytest.approx(curves[0], abs=close)
    assert curves[2] == pytest.approx(curves[0], abs=close)
    assert len(set(curves[0])) == len(curves[0]) == 6


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_learns_what_counts_alone(tmp_path: Path, optimizer: str) -> None:
    """Token 1 is always followed by 2 and 3 by 4, but only the 2 counts."""
    examples = [([1, 2, 3, 4] * 5, [False, True, False, False] * 5)] * 8
    policy = fresh()
    before = mean_nll(policy.model, examples)
    settings = config(optimizer=optimizer, epochs=4, learning_rate=0.01)
    report = sft(policy, examples, tmp_path, config=settings)
    assert report.final_loss < report.first_loss - 1
    trained = load_policy(tmp_path / "policy", device="cpu").model
    assert torch.equal(weights(trained), weights(policy.model))
    assert mean_nll(trained, examples) < before - 1
    ignored = [(examples[0][0], [False, False, False, True] * 5)]
    assert mean_nll(trained, ignored) > mean_nll(trained, examples) + 1


class Killed(Exception):
    """What a killed process looks like from inside."""


def kill_at(step: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == step:
            raise Killed

    return progress


@pytest.mark.parametrize(
    "changes",
    [{"optimizer": "muon", "weight_decay": 0.1}, {"pack_length": 40}],
    ids=["muon", "adamw packed"],
)
def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    settings = config(epochs=2.5, **changes)
    whole = sft(fresh(), EXAMPLES, tmp_path / "whole", config=settings)
    for killed_at in (1, 3, 6):
        with pytest.raises(Killed):
            sft(fresh(), EXAMPLES, tmp_path / "cut", config=settings, progress=kill_at(killed_at))
    policy = fresh()
    cut = sft(policy, EXAMPLES, tmp_path / "cut", config=settings)
    assert (whole.steps, cut.steps, cut.resumed_at_step) == (8, 8, 4)
    for out in ("whole", "cut"):
        model = load_policy(tmp_path / out / "policy", device="cpu").model
        assert torch.equal(weights(model), weights(policy.model))
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert not (tmp_path / "cut" / "checkpoints").exists()


def test_nothing_is_printed_and_progress_is_reported(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[int, int]] = []
    report = sft(
        fresh(), EXAMPLES, tmp_path, config=CONFIG, progress=lambda *done: seen.append(done)
    )
    assert seen == [(done, 6) for done in range(7)]
    assert capfd.readouterr() == ("", "")
    assert [row["step"] for row in logged(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert (report.first_loss, report.final_loss) == (losses(tmp_path)[0], losses(tmp_path)[-1])


def test_the_report_counts_examples_steps_and_tokens(tmp_path: Path) -> None:
    lengths = [len(ids) for ids, _ in EXAMPLES]
    report = sft(fresh(), EXAMPLES, tmp_path, config=config(epochs=1.34))
    assert (report.n_examples, report.steps, report.resumed_at_step) == (14, 4, 0)
    seen = epoch_order(lengths, 4, 0, 0, group=16, drop_last=True)
    seen += epoch_order(lengths, 4, 0, 1, group=16, drop_last=True)[:4]
    assert report.tokens == sum(lengths[i] for i in seen)


def test_fewer_examples_than_a_batch_are_one_batch(tmp_path: Path) -> None:
    report = sft(fresh(), EXAMPLES[:3], tmp_path, config=config(batch_size=64, epochs=0.1))
    assert (report.steps, report.tokens) == (1, sum(len(ids) for ids, _ in EXAMPLES[:3]))
    assert report.first_loss == pytest.approx(mean_nll(fresh().model, EXAMPLES[:3]), abs=1e-5)


def test_the_learning_rate_rises_stays_and_falls(tmp_path: Path) -> None:
    settings = config(epochs=4, batch_size=3, micro_batch_size=3, warmup_ratio=0.125)
    for ratio, expected in (
        (0.5, [0, 0.5, 1, 1, 1, 1, 1, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        (0.875, [0, 0.5, 1, 0.987, 0.95, 0.891, 0.812, 0.717]),
    ):
        out = tmp_path / str(ratio)
        sft(fresh(), EXAMPLES, out, config=settings.model_copy(update={"decay_ratio": ratio}))
        rates = [row["learning_rate"] / 3e-3 for row in logged(out)]
        assert rates[: len(expected)] == pytest.approx(expected, abs=1e-3)


def test_a_training_that_stops_early_is_the_beginning_of_the_whole_one(tmp_path: Path) -> None:
    settings = config(epochs=3, decay_ratio=0.5)
    sft(fresh(), EXAMPLES, tmp_path / "whole", config=settings)
    early = config(epochs=3, decay_ratio=0.5, stop_at_step=6)
    with pytest.raises(Killed):
        sft(fresh(), EXAMPLES, tmp_path / "early", config=early, progress=kill_at(6))
    report = sft(fresh(), EXAMPLES, tmp_path / "early", config=early)
    assert report.steps == 6
    for name in ("loss", "learning_rate"):
        whole, begun = ([row[name] for row in logged(tmp_path / out)] for out in ("whole", "early"))
        assert begun == whole[:6]
    assert len(logged(tmp_path / "whole")) == 9


def test_a_finished_training_returns_its_report_and_another_is_refused(tmp_path: Path) -> None:
    report = sft(fresh(), EXAMPLES, tmp_path, config=CONFIG)
    assert sft(fresh(), EXAMPLES, tmp_path, config=CONFIG, progress=kill_at(0)) == report
    reference = (fresh(), EXAMPLES, CONFIG)
    marked = [(ids, [True] * len(ids)) for ids, _ in EXAMPLES]
    for policy, examples, settings in (
        (fresh(seed=1), *reference[1:]),
        (reference[0], marked, CONFIG),
        (*reference[:2], config(epochs=3)),
    ):
        with pytest.raises(StoreError, match="other settings, examples or initial policy"):
            sft(policy, examples, tmp_path, config=settings)


def test_unusable_examples_are_dropped_and_counted(tmp_path: Path) -> None:
    only_first = ([5, 6], [True, False])
    over_context = example(1, 70)
    notes: list[str] = []
    report = sft(
        fresh(max_context=64),
        [*EXAMPLES, only_first, over_context],
        tmp_path,
        config=config(max_length=99),
        note=notes.append,
    )
    tokens = sum(len(ids) for ids, _ in EXAMPLES)
    assert notes == [
        f"trains on 14 of 16 solutions ({tokens:,} tokens), not on 1 with more than 64 tokens "
        "(the policy's context) and 1 without a token that counts"
    ]
    assert (report.n_examples, report.dropped) == (14, {"too_long": 1, "nothing_counts": 1})
    with pytest.raises(InputError, match="none of 2 solutions can be used: 1 too_long, 1 nothing"):
        sft(fresh(), [only_first, over_context], tmp_path / "none", config=CONFIG)
    with pytest.raises(InputError, match="token id 900, but fresh has 285 tokens"):
        sft(fresh(), [([900, 1], [True, True])], tmp_path / "foreign", config=CONFIG)
    with pytest.raises(ValueError, match="batch_size 4 is not a multiple of micro_batch_size 3"):
        config(micro_batch_size=3)


# ---- solutions


def solution(
    number: int,
    *,
    verdict: VerdictName = "correct",
    finish: Finish = "finished",
    flags: tuple[str, ...] = (),
    text: str = "",
) -> Solution:
    """A text step and a code step, sampled ids only for the first."""
    answer = Step(kind="text", text=text or f"It is {number}.{BLOCKS.end[0]}", token_ids=(9, 8))
    code = Step(
        kind="code",
        text="<|code|>a = 1<|endofblock|>",
        host_text="<|execution|>1<|endofblock|>",
        output="1",
    )
    return Solution(
        id=f"s{number}",
        problem_id="p",
        dataset="d",
        question="How many?",
        format="blocks",
        policy="fresh",
        prompt=BLOCKS.prompt("How many?"),
        steps=(code, answer),
        finish=finish,
        answer="1",
        verdict=Verdict(name=verdict),
        flags=flags,
        attempt=number,
        seed=0,
    )


SOLUTIONS = [
    solution(0),
    solution(1, verdict="wrong"),
    solution(2, verdict="undecided"),
    solution(3, finish="max_steps"),
    solution(4, flags=("error_word:apolog",)),
    solution(5),
    solution(6, text=solution(0).steps[1].text),
]


@pytest.mark.parametrize("score_output", [False, True])
def test_good_solutions_become_examples(score_output: bool) -> None:
    encode = fresh().encode
    examples = examples_from_solutions(SOLUTIONS, encode, score_output=score_output)
    assert len(examples) == 2
    prompt = encode(SOLUTIONS[0].prompt, start=True)
    code = encode("<|code|>a = 1<|endofblock|>")
    output = encode("<|execution|>1<|endofblock|>")
    ids, mask = examples[0]
    assert list(ids) == [*prompt, *code, *output, 9, 8]
    assert list(mask) == [
        *([False] * len(prompt)),
        *([True] * len(code)),
        *([score_output] * len(output)),
        *(True, True),
    ]


def test_a_policy_folder_is_trained_on_its_good_solutions(tmp_path: Path) -> None:
    save_policy(fresh(), tmp_path / "initial")
    settings = config(max_length=128, epochs=8)
    report = sft(tmp_path / "initial", SOLUTIONS, tmp_path / "out", config=settings)
    assert (report.n_examples, report.steps) == (2, 8)
    assert report.final_loss < report.first_loss
    trained = load_policy(report.policy, device="cpu")
    assert trained.encode("12 eggs") == fresh().encode("12 eggs")
    with pytest.raises(InputError, match="no correct, finished solution without a flag"):
        sft(tmp_path / "initial", SOLUTIONS[1:5], tmp_path / "none", config=settings)
    with pytest.raises(PolicyError):
        sft(tmp_path / "nowhere", SOLUTIONS, tmp_path / "none", config=settings)


# ---- fresh policies


def test_a_fresh_policy_is_a_function_of_its_texts_and_seed() -> None:
    one, same, other = fresh(), fresh(), fresh(seed=1)
    assert one.tokenizer.backend_tokenizer.to_str() == same.tokenizer.backend_tokenizer.to_str()
    assert torch.equal(weights(one.model), weights(same.model))
    assert not torch.equal(weights(one.model), weights(other.model))


POLICY = fresh()


@given(st.text())
def test_text_survives_the_tokenizer(text: str) -> None:
    assert POLICY.decode(POLICY.encode(text)) == text


def test_digits_and_markers_are_tokens_of_their_own() -> None:
    ids = POLICY.encode("<|code|>x = 1200 + 36<|endofblock|><|endofmessage|>")
    pieces = [POLICY.decode([i]) for i in ids]
    assert [p for p in pieces if any(c.isdigit() for c in p)] == list("120036")
    assert pieces[0] == "<|code|>"
    assert pieces[-2:] == ["<|endofblock|>", "<|endofmessage|>"]
    assert ids[-1] == POLICY.tokenizer.eos_token_id == POLICY.model.config.eos_token_id
    assert POLICY.tokenizer.pad_token_id not in (None, POLICY.tokenizer.eos_token_id)
    assert len(POLICY.encode("eggs")) < len("eggs")
    assert POLICY.encode("a", start=True) == POLICY.encode("a")
