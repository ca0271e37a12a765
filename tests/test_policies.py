"""Policy folders: what they hold, and one line for every way they can be broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from scdpo.errors import PolicyError
from scdpo.policies import load_policy, policy_hash, policy_path, save_policy
from small_runs import copy_policy


def _without(*names: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return damage


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def _without_a_tensor(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, file, metadata={"format": "pt"})


def _config(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return damage


def _write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


POLICIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty folder": (lambda f: shutil.rmtree(f) or f.mkdir(), "not a policy folder (config.json"),
    "a file": (
        lambda f: shutil.rmtree(f) or f.write_text("x"),
        "a policy is a folder, but this is",
    ),
    "gone": (shutil.rmtree, "no such policy folder (also accepted: 'embedded', or a hub name"),
    "no weights": (_without("model.safetensors"), "its model cannot be read: Error no file named"),
    "cut weights": (_cut, "its model cannot be read: Error while deserializing header"),
    "a tensor less": (
        _without_a_tensor,
        "1 missing tensors, such as model.layers.0.mlp.up_proj.weight",
    ),
    "other shapes": (_config(intermediate_size=24), "12 mismatched tensors, such as model.layers."),
    "config not JSON": (_write("config.json", "{"), "its tokenizer cannot be read: "),
    "unknown model": (_config(model_type="mystery"), "its model cannot be read: "),
    "no tokenizer": (
        _without("tokenizer.json", "tokenizer_config.json"),
        "no tokenizer in it (tokenizer.json is missing)",
    ),
    "half a tokenizer": (_without("tokenizer.json"), "its tokenizer cannot be read: "),
    "tokenizer not JSON": (_write("tokenizer.json", "{"), "its tokenizer cannot be read: "),
}


@pytest.mark.parametrize(("damage", "message"), POLICIES.values(), ids=POLICIES)
def test_a_folder_that_is_no_policy(
    damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    policy = copy_policy(tmp_path / "policy")
    damage(policy)
    with pytest.raises(PolicyError) as error:
        load_policy(policy)
    text = str(error.value)
    assert text.startswith(f"{policy}: {message}")
    assert "\n" not in text
    assert len(text) < len(str(policy)) + 300


def test_a_policy_is_loaded_whole_and_saved_as_it_was(tmp_path: Path) -> None:
    policy = load_policy("embedded", device="cpu")
    assert policy.model.dtype == torch.float32
    text = "<|user|>What is 12+30?\n \té<|endofblock|>"
    assert policy.decode(policy.encode(text)) == text
    save_policy(policy, tmp_path / "copy")
    again = load_policy(tmp_path / "copy", device="cpu")
    for name, tensor in policy.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name])


@pytest.mark.parametrize("name", ["./policy", "/no/such/policy", "policy", "a/b/c", "~/policy", ""])
def test_a_path_that_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"no such policy folder|not a policy folder"):
        policy_path(name)


def test_the_hash_covers_what_decides_what_a_policy_writes(tmp_path: Path) -> None:
    policy = copy_policy(tmp_path / "policy")
    hashes = {policy_hash(policy)}
    assert hashes == {policy_hash("embedded")}
    changes = {
        "config.json": _config(rope_theta=5.0),
        "tokenizer.json": lambda f: (f / "tokenizer.json").write_text("{}"),
        "generation_config.json": lambda f: (f / "generation_config.json").write_text("{}"),
        "model.safetensors": _cut,
    }
    for change in changes.values():
        change(policy)
        hashes.add(policy_hash(policy))
    assert len(hashes) == 1 + len(changes)
    (policy / "README.md").write_text("words")
    assert policy_hash(policy) in hashes
