"""Preference training of a tiny policy: what the loss is, and that it can be stopped."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM, TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from marks import thorough
from scdpo.errors import DataError, InputError, PolicyError, ScdpoError, StoreError
from scdpo.policies import Policy, load_policy, save_policy
from scdpo.records import Step
from scdpo.training.dpo_config import DPOConfig, TrainingReport
from scdpo.training.padding import pad_sequences
from scdpo.training.preference import train
from scdpo.training.references import ReferenceCache, policy_key, sequence_key
from scdpo.training.scoring import score_padded
from scdpo.training.steps import by_question, plan_epochs
from tiny_pairs import WORDS, make_pair, make_policy, question_pairs, text

CONFIG = DPOConfig(learning_rate=1e-3, batch_size=4, micro_batch_size=2, checkpoint_steps=2)
LN2 = math.log(2)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from threads that share busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(tmp_path_factory.mktemp("policy"))


PAIRS = [make_pair(i, branch=i % 3) for i in range(10)]


def config(**changes: object) -> DPOConfig:
    return DPOConfig.model_validate(CONFIG.model_dump() | changes)


def weights(path: Path) -> torch.Tensor:
    model = load_policy(path, device="cpu").model
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def logged(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in logged(out)]


def test_loss_starts_at_ln2_with_fresh_and_with_cached_references(
    policy: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "references.npz"
    fresh = train(policy, PAIRS, tmp_path / "a", config=CONFIG, references=cache)
    written = cache.stat().st_mtime_ns
    cached = train(policy, PAIRS, tmp_path / "b", config=config(seed=1), references=cache)
    assert cache.stat().st_mtime_ns == written
    for report, out in ((fresh, tmp_path / "a"), (cached, tmp_path / "b")):
        assert report.first_loss == pytest.approx(LN2, abs=1e-6)
        assert logged(out)[0]["margin"] == pytest.approx(0, abs=1e-6)


def test_training_prefers_the_chosen_and_reports_it(policy: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = train(
        policy,
        PAIRS,
        tmp_path,
        config=config(epochs=4),
        heldout=PAIRS[:3],
        progress=lambda done, total: seen.append((done, total)),
    )
    assert (report.n_pairs, report.n_naive, report.n_step_controlled) == (10, 4, 6)
    assert report.steps == 12
    assert seen == [(done, 12) for done in range(13)]
    assert report.final_loss < report.first_loss - 0.05
    assert report.final_loss == losses(tmp_path)[-1]
    before, after = report.heldout_before, report.heldout_after
    assert before is not None
    assert after is not None
    assert (before.loss, before.margin, before.accuracy) == (pytest.approx(LN2), 0, 0.5)
    assert after.loss < LN2
    assert after.margin > 0
    assert after.accuracy == 1
    assert not (tmp_path / "checkpoints").exists()


def test_heldout_metrics_are_those_of_the_saved_policy(policy: Path, tmp_path: Path) -> None:
    held = PAIRS[1]
    report = train(policy, PAIRS, tmp_path, config=CONFIG, heldout=[held])
    assert report.heldout_after is not None
    margins = []
    for path in (policy, tmp_path / "policy"):
        loaded = load_policy(path, device="cpu")
        prefix = loaded.encode(held.prompt + "".join(step.text for step in held.shared))
        ends = [loaded.encode(side[0].text) for side in (held.chosen, held.rejected)]
        masked = [(prefix + end, (False,) * len(prefix) + (True,) * len(end)) for end in ends]
        with torch.no_grad():
            logps = score_padded(loaded.model, pad_sequences(masked))
        margins.append((logps[0] - logps[1]).item())
    expected = CONFIG.beta * (margins[1] - margins[0])
    assert report.heldout_after.margin == pytest.approx(expected, abs=1e-5)


def test_step_controlled_at_k_0_is_naive(policy: Path, tmp_path: Path) -> None:
    naive = [make_pair(i) for i in range(6)]
    at_zero = [pair.model_copy(update={"kind": "step_controlled"}) for pair in naive]
    train(policy, naive, tmp_path / "naive", config=CONFIG)
    train(policy, at_zero, tmp_path / "zero", config=CONFIG)
    assert torch.equal(weights(tmp_path / "naive/policy"), weights(tmp_path / "zero/policy"))


def test_weights_change_at_the_papers_learning_rate(policy: Path, tmp_path: Path) -> None:
    train(policy, PAIRS, tmp_path, config=config(learning_rate=1e-7))
    moved = (weights(tmp_path / "policy") - weights(policy)).abs()
    assert (moved > 0).float().mean() > 0.5
    assert moved.max() < 1e-6


def test_loss_does_not_depend_on_the_micro_batch_size(policy: Path, tmp_path: Path) -> None:
    curves = []
    for size in (1, 2, 8):
        train(policy, PAIRS, tmp_path / str(size), config=config(micro_batch_size=size))
        curves.append(losses(tmp_path / str(size)))
    assert curves[1] == pytest.approx(curves[0], abs=1e-5)
    assert curves[2] == pytest.approx(curves[0], abs=1e-5)
    assert len(set(curves[0])) > 3


QUESTIONS = [pair for i in range(6) for pair in question_pairs(i, branches=i % 4)]


def test_trees_train_what_pairs_do(policy: Path, tmp_path: Path) -> None:
    """Same seed, same order, same loss curve; and the trees compute fewer tokens."""
    ways = {
        "pairs": {"computation": "pairs"},
        "paths": {"computation": "tree", "attention": "paths"},
        "sdpa": {"computation": "tree", "attention": "sdpa"},
        "again": {"gradient_checkpointing": True},
        "selective": {"gradient_checkpointing": "selective"},
        "selective, mask": {"gradient_checkpointing": "selective", "attention": "sdpa"},
        "selective, pairs": {"gradient_checkpointing": "selective", "computation": "pairs"},
        "online": {"reference": "online"},
    }
    reports, curves = {}, {}
    for name, changes in ways.items():
        settings = config(learning_rate=3e-3, epochs=3, **changes)
        reports[name] = train(policy, QUESTIONS, tmp_path / name, config=settings)
        curves[name] = losses(tmp_path / name)
    for name in ways:
        assert curves[name][0] == pytest.approx(LN2, abs=1e-6), name
        assert curves[name] == pytest.approx(curves["pairs"], abs=1e-4), name
        moved = (weights(tmp_path / name / "policy") - weights(policy)).norm()
        apart = weights(tmp_path / name / "policy") - weights(tmp_path / "pairs" / "policy")
        assert apart.norm() < 1e-3 * moved
    assert max(curves["pairs"]) - min(curves["pairs"]) > 0.1
    assert reports["pairs"].computation == "pairs"
    assert reports["pairs"].tokens_saved == 0
    assert reports["paths"].computation == "tree, paths attention"
    assert 0.3 < reports["paths"].tokens_saved < 0.7


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own, which it hides elsewhere
# Each combination takes a compiler a minute and more.
@pytest.mark.parametrize(
    ("attention", "again"),
    [
        ("paths", "selective"),
        pytest.param("sdpa", False, marks=thorough),
        pytest.param("paths", False, marks=thorough),
        pytest.param("sdpa", "selective", marks=thorough),
    ],
)
def test_a_compiled_decoder_trains_the_same(
    attention: str, again: bool | str, policy: Path, tmp_path: Path
) -> None:
    options = {"epochs": 1, "attention": attention, "gradient_checkpointing": again}
    for compiled in (False, True):
        settings = config(compile=compiled, **options)
        train(policy, QUESTIONS, tmp_path / str(compiled), config=settings)
    curves = [losses(tmp_path / str(compiled)) for compiled in (False, True)]
    assert curves[1] == pytest.approx(curves[0], abs=1e-5)
    assert weights(tmp_path / "True" / "policy").shape == weights(policy).shape


def test_loss_does_not_depend_on_the_rows(policy: Path, tmp_path: Path) -> None:
    curves = []
    for size in (16, 64, 4096):  # a row a question (or less), some rows, one row
        train(policy, QUESTIONS, tmp_path / str(size), config=config(row_tokens=size))
        curves.append(losses(tmp_path / str(size)))
    assert curves[1] == pytest.approx(curves[0], abs=1e-5)
    assert curves[2] == pytest.approx(curves[0], abs=1e-5)
    assert len(set(curves[0])) > 3


def test_metrics_are_logged_for_each_kind_of_pair(policy: Path, tmp_path: Path) -> None:
    train(policy, QUESTIONS, tmp_path, config=config(learning_rate=3e-3))
    for row in logged(tmp_path):
        naive, controlled = row.get("naive/pairs", 0), row.get("step_controlled/pairs", 0)
        assert naive + controlled == row["pairs"]
        sums = naive * row.get("naive/margin", 0) + controlled * row.get(
            "step_controlled/margin", 0
        )
        assert sums == pytest.approx(row["margin"] * row["pairs"], abs=1e-5)
        assert row["chosen_reward"] - row["rejected_reward"] == pytest.approx(
            row["margin"], abs=1e-5
        )
        assert 0 <= row["accuracy"] <= 1
        assert row["tokens_per_second"] > 0
        assert row["tokens_saved"] > 0
    assert [row["epoch"] for row in logged(tmp_path)][-1] == CONFIG.epochs


def test_metrics_reach_the_trainers_loggers(policy: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    class Board(TrainerCallback):
        def on_log(self, *args: object, logs: dict[str, float], **_: object) -> None:
            seen.extend(logs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(INTEGRATION_TO_CALLBACK, "tensorboard", Board)
        train(policy, QUESTIONS, tmp_path, config=config(report_to=["tensorboard"]))
    assert {"loss", "margin", "naive/accuracy", "tokens_per_second", "tokens_saved"} <= set(seen)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "ipo"},
        {"loss": "ipo", "length_normalised": True},
        {"loss": "dpop", "dpop_penalty": 5},
        {"label_smoothing": 0.1},
        {"nll_weight": 0.5},
        {"length_normalised": True, "score_shared": True},
    ],
    ids=str,
)
def test_every_loss_is_the_same_for_trees_and_pairs(
    policy: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    for computation in ("tree", "pairs"):
        settings = config(epochs=1, computation=computation, **changes)
        train(policy, QUESTIONS, tmp_path / computation, config=settings)
    # DPOP's penalty begins exactly where the training does, so that the last bit of the first
    # log-probs decides whether the first step feels it.
    rel = 1e-2 if settings.loss == "dpop" else 1e-4
    assert losses(tmp_path / "tree") == pytest.approx(losses(tmp_path / "pairs"), rel=rel)


def test_a_model_that_cannot_score_trees_trains_on_pairs_and_says_so(
    policy: Path, tmp_path: Path
) -> None:
    shape = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    mamba = MambaForCausalLM(MambaConfig(**shape))
    save_policy(Policy("mamba", mamba, load_policy(policy).tokenizer), tmp_path / "mamba")
    said: list[str] = []
    report = train(tmp_path / "mamba", PAIRS, tmp_path / "out", config=CONFIG, note=said.append)
    assert report.computation == "pairs"
    assert report.first_loss == pytest.approx(LN2, abs=1e-5)
    assert len(said) == 1
    assert "cannot score token trees (paths: " in said[0]
    with pytest.raises(InputError, match=r"computation: .* cannot score token trees"):
        train(tmp_path / "mamba", PAIRS, tmp_path / "tree", config=config(computation="tree"))


def test_references_survive_another_shuffle_and_are_gone_when_deleted(
    policy: Path, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        train(policy, QUESTIONS, tmp_path, config=CONFIG, progress=kill_at(3))
    written = (tmp_path / "references.npz").read_bytes()
    train(
        policy,
        QUESTIONS[::-1],
        tmp_path / "other",
        config=config(seed=9),
        references=tmp_path / "references.npz",
    )
    assert (tmp_path / "references.npz").read_bytes() == written
    (tmp_path / "references.npz").unlink()
    with pytest.raises(ScdpoError, match="log-probs of the initial policy are gone"):
        train(policy, QUESTIONS, tmp_path, config=CONFIG)


class Killed(Exception):
    """What a killed process looks like from inside."""


def kill_at(step: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == step:
            raise Killed

    return progress


def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(
    policy: Path, tmp_path: Path
) -> None:
    whole = train(policy, PAIRS, tmp_path / "whole", config=CONFIG, heldout=PAIRS[:2])
    cut = tmp_path / "cut"
    resumed: TrainingReport | None = None
    for step in (1, 3, 5):
        with pytest.raises(Killed):
            train(policy, PAIRS, cut, config=CONFIG, heldout=PAIRS[:2], progress=kill_at(step))
    broken = cut / "checkpoints" / "checkpoint-999"
    broken.mkdir()
    (broken / "trainer_state.json").write_text('{"global_step": 9')
    resumed = train(policy, PAIRS, cut, config=CONFIG, heldout=PAIRS[:2])
    assert resumed.resumed_at_step == 4
    assert torch.equal(weights(cut / "policy"), weights(tmp_path / "whole/policy"))
    assert losses(cut) == losses(tmp_path / "whole")
    assert resumed.heldout_after == whole.heldout_after


def test_a_finished_training_returns_its_report_and_another_is_refused(
    policy: Path, tmp_path: Path
) -> None:
    report = train(policy, PAIRS, tmp_path, config=CONFIG)
    assert train(policy, PAIRS, tmp_path, config=CONFIG, progress=kill_at(0)) == report
    for pairs, settings in ((PAIRS[1:], CONFIG), (PAIRS, config(beta=0.2))):
        with pytest.raises(StoreError, match="other settings, examples or initial policy"):
            train(policy, pairs, tmp_path, config=settings)


def test_unusable_pairs_are_dropped_and_counted(policy: Path, tmp_path: Path) -> None:
    long = make_pair(90, rejected=(Step(kind="text", text=text(1, 60)),))
    over_context = make_pair(91, chosen=(Step(kind="text", text=text(2, 140)),))
    empty = make_pair(92, chosen=(Step(kind="code", text="", host_text="w1 w2"),))
    report = train(
        policy, [*PAIRS, long, over_context, empty], tmp_path, config=config(max_length=60)
    )
    assert (report.n_pairs, report.dropped) == (10, {"too_long": 2, "nothing_counts": 1})
    assert all(math.isfinite(loss) for loss in losses(tmp_path))
    with pytest.raises(InputError, match="none of 2 pairs can be trained on: 1 too_long, 1 noth"):
        train(policy, [over_context, empty], tmp_path / "none", config=CONFIG)
    with pytest.raises(InputError, match="no pairs"):
        train(policy, [], tmp_path / "none", config=CONFIG)


def test_wrong_input_is_one_line(policy: Path, tmp_path: Path) -> None:
    foreign = make_pair(3, prompt_ids=(900,))
    with pytest.raises(InputError, match=r"pair p3: token id 900, but .* has 64 tokens"):
        train(policy, [foreign], tmp_path / "out", config=CONFIG)
    with pytest.raises(PolicyError):
        train(tmp_path / "nowhere", PAIRS, tmp_path / "out", config=CONFIG)
    with pytest.raises(ValueError, match="batch_size 4 is not a multiple of micro_batch_size 3"):
        config(micro_batch_size=3)
    with pytest.raises(ValueError, match="should be False, True or 'selective'"):
        config(gradient_checkpointing="selectiv")
    with pytest.raises(ValueError, match="selective is for attention paths and sdpa"):
        config(attention="flex", gradient_checkpointing="selective")
    not_a_cache = tmp_path / "references.npz"
    not_a_cache.write_bytes(b"PK torn")
    with pytest.raises(DataError, match="not a reference cache"):
        train(policy, PAIRS, tmp_path / "out", config=CONFIG, references=not_a_cache)


def test_a_reference_is_not_reused_when_anything_it_depends_on_changed(policy: Path) -> None:
    model = load_policy(policy, device="cpu").model
    sequence = ((1, 2, 3), (False, True, True))
    same = policy_key(load_policy(policy, device="cpu").model, "fp32")
    assert policy_key(model, "fp32") == same
    original = sequence_key(sequence, same)
    other = [
        sequence_key(((1, 2, 4), sequence[1]), same),
        sequence_key((sequence[0], (False, False, True)), same),
        sequence_key(sequence, policy_key(model, "bf16 autocast")),
    ]
    model.config.rope_parameters["rope_theta"] = 7.0
    other.append(sequence_key(sequence, policy_key(model, "fp32")))
    model = load_policy(policy, device="cpu").model
    with torch.no_grad():
        model.get_input_embeddings().weight[5, 5] += 1e-6
    other.append(sequence_key(sequence, policy_key(model, "fp32")))
    assert len({original, *other}) == 6


def test_the_reference_cache_keeps_entries_and_computes_only_what_is_missing(
    policy: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "references.npz"
    train(policy, PAIRS[:4], tmp_path / "a", config=CONFIG, references=cache)
    before = dict(ReferenceCache(cache).logps)
    train(policy, PAIRS[:6], tmp_path / "b", config=CONFIG, references=cache)
    after = ReferenceCache(cache).logps
    assert (len(before), len(after)) == (8, 12)
    assert before.items() <= after.items()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "references.npz"]


def test_losses_agree_with_trl(policy: Path, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl", reason="trl is a development dependency")
    datasets = pytest.importorskip("datasets")
    pairs = [make_pair(i // 2, branch=i % 2 * 2) for i in range(30)]
    settings = config(epochs=1, micro_batch_size=4, learning_rate=3e-3)
    train(policy, pairs, tmp_path / "ours", config=settings)

    loaded = load_policy(policy, device="cpu")
    groups = by_question([pair.prompt for pair in pairs])
    steps = plan_epochs(groups, 4, 1, settings.seed)
    ordered = [pairs[i] for step in steps for i in step.examples]
    rows = [
        {
            "prompt": pair.prompt + "".join(step.text for step in pair.shared),
            "chosen": "".join(step.text for step in pair.chosen),
            "rejected": "".join(step.text for step in pair.rejected),
        }
        for pair in ordered
    ]
    trainer = trl.DPOTrainer(
        model=str(policy),
        args=trl.DPOConfig(
            output_dir=str(tmp_path / "trl"),
            beta=settings.beta,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=1,
            max_grad_norm=settings.max_grad_norm,
            weight_decay=0,
            num_train_epochs=1,
            per_device_train_batch_size=4,
            train_sampling_strategy="sequential",
            gradient_checkpointing=False,
            precompute_ref_log_probs=True,
            bf16=False,
            # TRL turns off dropout layers but not the attention's own.
            model_init_kwargs={"attention_dropout": 0.0},
            use_cpu=True,
            dataloader_pin_memory=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=loaded.tokenizer,
    )
    trainer.train()
    theirs = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(theirs) == 8
    assert losses(tmp_path / "ours") == pytest.approx(theirs, abs=1e-4)
    assert max(theirs) - min(theirs) > 0.02
