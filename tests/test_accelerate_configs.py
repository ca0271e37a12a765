"""The configurations for several GPUs are ones that `accelerate launch` accepts, key by key."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands import launch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from scdpo.training.dpo_config import DPOConfig
from tiny_pairs import make_policy

WORKER = Path(__file__).with_name("distributed_worker.py")
FOLDER = Path(str(resources.files("scdpo"))) / "recipes" / "accelerate"
FILES = ("fsdp2", "zero3")
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is an extra"
)


def launched(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, dict[str, str]]:
    """The launcher's arguments, and what it adds to the environment of each process."""
    got: list[Any] = []
    monkeypatch.setattr(launch, "deepspeed_launcher", got.append)
    monkeypatch.setattr(launch, "multi_gpu_launcher", got.append)
    line = ["--config_file", str(FOLDER / f"{name}.yaml"), "-m", "scdpo", "train", "RUN"]
    launch.launch_command(launch.launch_command_parser().parse_args(line))
    [arguments] = got
    if arguments.use_deepspeed:
        environment = prepare_deepspeed_cmd_env(arguments)[1]
    else:
        environment = prepare_multi_gpu_env(arguments)
    return arguments, {k: v for k, v in environment.items() if os.environ.get(k) != v}


def test_every_configuration_is_tested() -> None:
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
def test_the_keys_are_known(name: str) -> None:
    load_config_from_file(str(FOLDER / f"{name}.yaml"))  # refuses unknown keys at the top
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    options = vars(launch.launch_command_parser().parse_args(["script.py"]))
    # The launcher would take unknown keys below silently.
    below = {**content.get("fsdp_config", {}), **content.get("deepspeed_config", {})}
    assert below
    assert [key for key in below if key not in options] == []


def test_fsdp2(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, environment = launched("fsdp2", monkeypatch)
    assert arguments.num_processes == 8
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    assert environment["FSDP_VERSION"] == "2"
    assert environment["FSDP_STATE_DICT_TYPE"] == "FULL_STATE_DICT"
    assert environment["FSDP_AUTO_WRAP_POLICY"] == "TRANSFORMER_BASED_WRAP"
    assert "FSDP_TRANSFORMER_CLS_TO_WRAP" not in environment
    assert environment["ACCELERATE_MIXED_PRECISION"] == "no"


@needs_deepspeed
def test_zero3(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, environment = launched("zero3", monkeypatch)
    assert arguments.num_processes == 8
    assert environment["ACCELERATE_USE_DEEPSPEED"] == "true"
    assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "3"
    assert environment["ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"] == "true"
    assert environment["ACCELERATE_DEEPSPEED_ZERO3_INIT"] == "false"
    assert environment["ACCELERATE_MIXED_PRECISION"] == "no"


@pytest.mark.parametrize(
    ("name", "kind", "distributed"),
    [
        ("fsdp2", "fsdp", "FSDP"),
        pytest.param("zero3", "deepspeed", "DEEPSPEED", marks=needs_deepspeed),
    ],
)
def test_two_processes_train_with_them(
    name: str, kind: str, distributed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the launcher would start them, but on CPUs, each process holding half of the weights."""
    _, environment = launched(name, monkeypatch)
    settings = DPOConfig(epochs=1, batch_size=4, row_tokens=64, reference="cached")
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    start += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", str(WORKER), kind]
    done = subprocess.run(
        [*start, str(make_policy(tmp_path)), str(tmp_path / "out"), settings.model_dump_json()],
        env=os.environ | environment | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count(f"{kind} {distributed}") == 2
    assert (tmp_path / "out" / "policy" / "model.safetensors").is_file()
