"""What `train` and `sft` take: loaded models, callbacks, settings; and trainers by themselves."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

import scdpo.training
from scdpo.errors import InputError
from scdpo.policies import Policy, load_policy
from scdpo.training import DPOConfig, PreferenceTrainer, SFTConfig, sft, train
from scdpo.training.config import TrainingConfig
from scdpo.training.dpo_config import LoraSettings
from scdpo.training.fresh import FreshPolicyConfig
from scdpo.training.preference_trainer import pair_sides
from scdpo.training.tokens import tokenise
from scdpo.training.tree import MaskedIds
from tiny_pairs import make_pair, make_policy, question_pairs

PAIRS = [pair for i in range(4) for pair in question_pairs(i, branches=i % 3)]
SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "batch_size": 4,
    "micro_batch_size": 2,
    "checkpoint_steps": 1,
}
EXAMPLES: list[MaskedIds] = [
    ([1 + (7 * i + t) % 50 for t in range(6 + i)], [t > 1 for t in range(6 + i)]) for i in range(9)
]
SFT_SETTINGS: dict[str, Any] = {"learning_rate": 1e-3, "batch_size": 3, "micro_batch_size": 3}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from threads that share busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(tmp_path_factory.mktemp("policy"), hidden_size=64, intermediate_size=64)


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def saved(path: Path) -> torch.Tensor:
    return weights(load_policy(path, device="cpu").model)


class Killed(Exception):
    """What a killed process looks like from inside."""


class KillAtSave(TrainerCallback):
    """Kills a training once the checkpoint of a step is whole."""

    def __init__(self, step: int):
        self.step = step

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise Killed


# ---- what is trained


def test_a_loaded_model_is_trained_in_place_like_a_folder(policy: Path, tmp_path: Path) -> None:
    train(policy, PAIRS, tmp_path / "folder", **SETTINGS)
    expected = saved(tmp_path / "folder/policy")
    loaded = load_policy(policy, device="cpu")
    model: Any = loaded.model
    with pytest.raises(InputError, match="a loaded model needs its tokenizer"):
        train(model, PAIRS, tmp_path / "none")
    settings = SETTINGS | {"gradient_checkpointing": True}
    seen: list[int] = []

    class Steps(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seen.append(state.global_step)

    report = train(
        model,
        PAIRS,
        tmp_path / "model",
        tokenizer=loaded.tokenizer,
        callbacks=[Steps()],
        **SETTINGS,
    )
    assert seen == list(range(1, report.steps + 1))
    assert torch.equal(weights(model), expected)
    assert torch.equal(saved(tmp_path / "model/policy"), expected)
    assert report.first_loss == pytest.approx(math.log(2), abs=1e-6)
    assert not model.training
    assert model.model.layers[0].self_attn.attention_dropout == 0.1
    assert model.config._attn_implementation == "sdpa"

    again = load_policy(policy, device="cpu")
    train(again, PAIRS, tmp_path / "policy", **settings)
    assert not any(getattr(m, "gradient_checkpointing", False) for m in again.model.modules())
    with pytest.raises(InputError, match="policy: a folder, a hub name, a Policy or a tr"):
        train(3, PAIRS, tmp_path / "none")  # type: ignore[arg-type]


def test_an_adapter_of_a_loaded_model_is_merged_in_place(policy: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="peft is an extra")
    settings = SETTINGS | {"lora": {"rank": 2}}
    train(policy, PAIRS, tmp_path / "folder", **settings)
    loaded = load_policy(policy, device="cpu")
    train(loaded, PAIRS, tmp_path / "loaded", **settings)
    expected = saved(tmp_path / "folder/policy")
    assert not torch.equal(expected, saved(policy))
    torch.testing.assert_close(saved(tmp_path / "loaded/policy"), expected)
    torch.testing.assert_close(weights(loaded.model), expected)
    assert (tmp_path / "loaded/adapter/adapter_model.safetensors").exists()
    with pytest.raises(InputError, match=r"lora\.quantize: weights are quantised while they"):
        train(loaded, PAIRS, tmp_path / "none", lora={"quantize": True})


def test_supervised_training_takes_a_loaded_model(policy: Path, tmp_path: Path) -> None:
    sft(policy, EXAMPLES, tmp_path / "folder", **SFT_SETTINGS)
    loaded = load_policy(policy, device="cpu")
    model: Any = loaded.model
    sft(model, EXAMPLES, tmp_path / "model", tokenizer=loaded.tokenizer, **SFT_SETTINGS)
    assert torch.equal(weights(model), saved(tmp_path / "folder/policy"))


def test_held_out_pairs_are_measured_and_not_trained_on(policy: Path, tmp_path: Path) -> None:
    held = [make_pair(80 + i, split="heldout") for i in range(2)]
    marked = train(policy, [*PAIRS, *held], tmp_path / "marked", **SETTINGS)
    given = train(policy, PAIRS, tmp_path / "given", heldout=held, **SETTINGS)
    assert marked.n_pairs == given.n_pairs == len(PAIRS)
    assert marked.heldout_after == given.heldout_after
    assert marked.heldout_after is not None
    assert marked.heldout_after.n_pairs == 2


def test_settings_are_checked_and_take_the_place_of_the_configs(
    policy: Path, tmp_path: Path
) -> None:
    config = DPOConfig(**SETTINGS | {"epochs": 1})
    report = train(policy, PAIRS, tmp_path / "a", config=config, epochs=3)
    assert report.steps == 3 * math.ceil(len(PAIRS) / 4)
    with pytest.raises(InputError, match=r"'learning_rat' .did you mean learning_rate"):
        train(policy, PAIRS, tmp_path / "b", learning_rat=1)
    with pytest.raises(InputError, match=r"unknown key 'xyz'; known here: .*batch_size"):
        sft(policy, EXAMPLES, tmp_path / "b", xyz=1)
    with pytest.raises(InputError, match=r"beta: .* greater than 0 \(found -1"):
        train(policy, PAIRS, tmp_path / "b", beta=-1)
    with pytest.raises(InputError, match="either Pair records or rows, not both"):
        train(policy, [PAIRS[0], {}], tmp_path / "b")
    with pytest.raises(InputError, match="none of 0 solutions can be used: no examples"):
        sft(policy, [], tmp_path / "b")


def test_training_works_inside_a_running_event_loop(policy: Path, tmp_path: Path) -> None:
    async def cell() -> float:
        return train(policy, PAIRS, tmp_path, epochs=1, **SETTINGS).first_loss

    assert asyncio.run(cell()) == pytest.approx(math.log(2), abs=1e-6)


# ---- trainers by themselves


def test_a_trainer_is_valid_once_constructed(policy: Path, tmp_path: Path) -> None:
    """It scores before, during and after a training, and the model's attention is its own."""
    loaded: Policy = load_policy(policy, device="cpu")
    config = DPOConfig(**SETTINGS)
    tokens = tokenise(PAIRS, loaded.encode, max_length=128).pairs
    model = copy.deepcopy(loaded.model)
    trainer = PreferenceTrainer(model, tokens, config, tmp_path, heldout=tokens[:2])
    before = trainer.score_all(*pair_sides(tokens), initial=False)
    assert model.config._attn_implementation == "sdpa"
    assert trainer.computation == "tree, paths attention"
    trainer.train()
    assert model.config._attn_implementation == "sdpa"
    assert trainer.reference.pairs.flatten().tolist() == pytest.approx(before)
    assert trainer.reference.heldout == pytest.approx(before[:4])
    after = trainer.score_all(*pair_sides(tokens), initial=False)
    assert after != before


@pytest.mark.parametrize(
    "changes",
    [{}, {"lora": {"rank": 2}}, {"reference": "online"}, {"computation": "pairs"}],
    ids=str,
)
def test_a_checkpoint_of_the_last_step_leaves_only_the_rest_to_do(
    changes: dict[str, Any], policy: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = SETTINGS | changes
    seen: list[tuple[int, int]] = []
    options: dict[str, Any] = {"heldout": PAIRS[:2], **settings}
    whole = train(policy, PAIRS, tmp_path / "whole", **options)
    with pytest.raises(Killed):
        callbacks = [KillAtSave(whole.steps)]
        train(policy, PAIRS, tmp_path / "cut", callbacks=callbacks, **options)
    cut = train(
        policy, PAIRS, tmp_path / "cut", progress=lambda *done: seen.append(done), **options
    )
    assert cut.resumed_at_step == cut.steps == whole.steps
    assert seen == [(whole.steps, whole.steps)]
    assert torch.equal(saved(tmp_path / "cut/policy"), saved(tmp_path / "whole/policy"))
    assert cut.heldout_after == whole.heldout_after
    assert cut.computation == whole.computation


@pytest.mark.parametrize("stop", [None, 2])
def test_a_supervised_training_can_be_resumed_at_its_last_step(
    stop: int | None, policy: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = SFT_SETTINGS | {"save_steps": 1, "stop_at_step": stop}
    settings |= {"pack_length": 32, "epochs": 2}
    with pytest.raises(InputError, match=r"cannot share a row \(paths attention: .* dropout\)"):
        sft(policy, EXAMPLES, tmp_path / "dropout", **settings)

    def initial() -> Policy:
        loaded = load_policy(policy, device="cpu")
        for module in loaded.model.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.0  # type: ignore[assignment]
        return loaded

    whole = sft(initial(), EXAMPLES, tmp_path / "whole", **settings)
    with pytest.raises(Killed):
        callbacks = [KillAtSave(whole.steps)]
        sft(initial(), EXAMPLES, tmp_path / "cut", callbacks=callbacks, **settings)
    cut = sft(initial(), EXAMPLES, tmp_path / "cut", **settings)
    assert cut.resumed_at_step == cut.steps == whole.steps == (stop or 6)
    assert torch.equal(saved(tmp_path / "cut/policy"), saved(tmp_path / "whole/policy"))


# ---- the face


def test_every_name_of_the_face_is_there_and_documented() -> None:
    assert set(scdpo.training.__all__) <= set(dir(scdpo.training))
    for name in scdpo.training.__all__:
        assert getattr(scdpo.training, name).__doc__, name


@pytest.mark.parametrize(
    "kind", [TrainingConfig, DPOConfig, SFTConfig, LoraSettings, FreshPolicyConfig]
)
def test_every_setting_is_described_in_a_sentence(kind: Any) -> None:
    for name, field in kind.model_fields.items():
        assert field.description, f"{kind.__name__}.{name}"
        assert field.description.endswith("."), f"{kind.__name__}.{name}"
