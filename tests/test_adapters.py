"""Training an adapter in place of the weights."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from scdpo.errors import InputError, MissingDependency
from scdpo.policies import load_policy
from scdpo.training.dpo_config import DPOConfig, TrainingReport
from scdpo.training.preference import train
from scdpo.training.references import ReferenceCache
from tiny_pairs import make_policy, question_pairs

PAIRS = [pair for i in range(4) for pair in question_pairs(i, branches=2)]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from threads that share busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough that a row of its weights can be kept in four bits."""
    return make_policy(tmp_path_factory.mktemp("policy"), hidden_size=64, intermediate_size=128)


def config(**changes: Any) -> DPOConfig:
    base = {"learning_rate": 5e-3, "batch_size": 6, "checkpoint_steps": 1, "lora": {"rank": 4}}
    return DPOConfig.model_validate(base | changes)


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_policy(path, device="cpu").model.state_dict()


def test_an_adapter_is_trained_and_merged(policy: Path, tmp_path: Path) -> None:
    report = train(policy, PAIRS, tmp_path, config=config(), heldout=PAIRS[:4])
    assert report.first_loss == pytest.approx(math.log(2), abs=1e-5)
    assert report.final_loss < report.first_loss
    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all("lora_" in name for name in adapter)
    before, after = weights(policy), weights(tmp_path / "policy")
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "model.layers.0.self_attn.q_proj.weight" in moved
    assert "model.layers.1.mlp.down_proj.weight" in moved
    assert not any("norm" in name or "embed" in name for name in moved)
    change = (
        after["model.layers.0.mlp.up_proj.weight"] - before["model.layers.0.mlp.up_proj.weight"]
    )
    assert torch.linalg.matrix_rank(change, rtol=1e-4) <= 4


def test_the_merged_policy_has_the_reported_margin(policy: Path, tmp_path: Path) -> None:
    first = train(policy, PAIRS, tmp_path / "a", config=config(), heldout=PAIRS[:4])
    second = train(
        tmp_path / "a" / "policy", PAIRS, tmp_path / "b", config=config(), heldout=PAIRS[:4]
    )
    assert first.heldout_after is not None
    assert second.heldout_before is not None
    assert second.heldout_before.chosen_likelier == first.heldout_after.chosen_likelier
    mine = ReferenceCache(tmp_path / "b" / "references.npz").logps.values()
    base = ReferenceCache(tmp_path / "a" / "references.npz").logps.values()
    assert abs(sum(mine) - sum(base)) > 0.01


def test_the_reference_is_the_base_with_the_adapter_off(policy: Path, tmp_path: Path) -> None:
    """Computed with every step, or once; or once more after the file was lost half-way."""
    train(policy, PAIRS, tmp_path / "cached", config=config())
    train(policy, PAIRS, tmp_path / "online", config=config(reference="online"))
    assert losses(tmp_path / "online") == pytest.approx(losses(tmp_path / "cached"), abs=1e-5)

    class Killed(Exception):
        pass

    def kill(done: int, total: int) -> None:
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        train(policy, PAIRS, tmp_path / "lost", config=config(), progress=kill)
    (tmp_path / "lost" / "references.npz").unlink()
    report = train(policy, PAIRS, tmp_path / "lost", config=config())
    assert report.resumed_at_step == 1
    assert losses(tmp_path / "lost") == pytest.approx(losses(tmp_path / "cached"), abs=1e-5)


def test_full_and_adapter_trainings_share_reference_log_probs(policy: Path, tmp_path: Path) -> None:
    cache = tmp_path / "references.npz"
    train(policy, PAIRS, tmp_path / "full", config=config(lora=None), references=cache)
    written = cache.stat().st_mtime_ns
    train(policy, PAIRS, tmp_path / "adapter", config=config(), references=cache)
    assert cache.stat().st_mtime_ns == written


@pytest.mark.parametrize("again", [False, True, "selective"])
def test_four_bit_weights_carry_an_adapter(again: bool | str, policy: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is an extra")
    settings = config(lora={"rank": 4, "quantize": True}, epochs=4, gradient_checkpointing=again)
    report: TrainingReport = train(policy, PAIRS, tmp_path, config=settings, heldout=PAIRS[:4])
    assert report.first_loss == pytest.approx(math.log(2), abs=1e-5)
    assert report.final_loss < report.first_loss - 0.05
    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all(tensor.abs().sum() > 0 for tensor in adapter.values())
    assert report.heldout_after is not None
    assert report.heldout_after.margin > 0


def test_what_is_missing_is_said_in_a_line(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"lora\.targets: .*nowhere"):
        train(policy, PAIRS, tmp_path / "a", config=config(lora={"targets": ["nowhere"]}))
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingDependency, match=r"pip install 'scdpo\[qlora\]'"):
        train(policy, PAIRS, tmp_path / "b", config=config(lora={"quantize": True}))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingDependency, match=r"pip install 'scdpo\[peft\]'"):
        train(policy, PAIRS, tmp_path / "c", config=config())
