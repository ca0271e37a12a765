"""The configurations for several GPUs are ones that `accelerate launch` accepts, key by key."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

FOLDER = Path(str(resources.files("scdpo"))) / "recipes" / "accelerate"
FILES = ("fsdp2", "zero3")


def launched(name: str) -> tuple[Any, dict[str, str]]:
    """The launcher's arguments, and the environment that it gives each process."""
    line = ["--config_file", str(FOLDER / f"{name}.yaml"), "-m", "scdpo", "train", "RUN"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(line))
    if arguments.use_deepspeed:
        return arguments, prepare_deepspeed_cmd_env(arguments)[1]
    return arguments, prepare_multi_gpu_env(arguments)


def test_every_configuration_is_tested() -> None:
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
def test_the_keys_are_known(name: str) -> None:
    load_config_from_file(str(FOLDER / f"{name}.yaml"))  # refuses unknown keys at the top
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    options = vars(launch_command_parser().parse_args(["script.py"]))
    # The launcher would take unknown keys below silently.
    below = {**content.get("fsdp_config", {}), **content.get("deepspeed_config", {})}
    assert below
    assert [key for key in below if key not in options] == []


def test_fsdp2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {})
    arguments, environment = launched("fsdp2")
    assert arguments.num_processes == 8
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    assert environment["FSDP_VERSION"] == "2"
    assert environment["FSDP_STATE_DICT_TYPE"] == "FULL_STATE_DICT"
    assert environment["FSDP_AUTO_WRAP_POLICY"] == "TRANSFORMER_BASED_WRAP"
    assert "FSDP_TRANSFORMER_CLS_TO_WRAP" not in environment
    assert environment["ACCELERATE_MIXED_PRECISION"] == "no"


def test_zero3(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("deepspeed", reason="deepspeed is an extra")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    arguments, environment = launched("zero3")
    assert arguments.num_processes == 8
    assert environment["ACCELERATE_USE_DEEPSPEED"] == "true"
    assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "3"
    assert environment["ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"] == "true"
    assert environment["ACCELERATE_DEEPSPEED_ZERO3_INIT"] == "false"
    assert environment["ACCELERATE_MIXED_PRECISION"] == "no"
