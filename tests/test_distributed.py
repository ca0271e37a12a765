"""Several processes: the same training on one, on two, and on two that share the weights."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from distributed_worker import PAIRS
from marks import thorough
from scdpo.pipeline.recipe import load_recipe
from scdpo.pipeline.run import Run
from scdpo.policies import load_policy
from scdpo.training.dpo_config import DPOConfig, TrainingReport
from scdpo.training.preference import train
from scdpo.training.sft_config import SFTReport
from small_runs import write_recipe, write_recorded
from tiny_pairs import make_policy

WORKER = Path(__file__).with_name("distributed_worker.py")
CONFIG = DPOConfig(
    learning_rate=1e-3,
    batch_size=4,
    micro_batch_size=2,
    row_tokens=64,
    checkpoint_steps=2,
)
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "LlamaDecoderLayer",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
}
"""What `accelerate launch` sets for FSDP2."""
ZERO3: dict[str, Any] = {
    "zero_optimization": {
        "stage": 3,
        "stage3_gather_16bit_weights_on_model_save": True,
        "stage3_param_persistence_threshold": 0,
    },
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "zero_allow_untested_optimizer": True,
}
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is an extra"
)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(tmp_path_factory.mktemp("policy"))


def config(**changes: Any) -> DPOConfig:
    return DPOConfig.model_validate(CONFIG.model_dump() | changes)


def alone(policy: Path, out: Path, settings: DPOConfig) -> TrainingReport:
    """The training in this process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train(policy, PAIRS, out, config=settings, heldout=PAIRS[:3])
    finally:
        torch.set_num_threads(threads)


def launched(
    kind: str, policy: Path, out: Path, settings: DPOConfig, *, kill_at: int = 0, processes: int = 2
) -> subprocess.CompletedProcess[str]:
    """The training in several processes, as torchrun starts them."""
    kinds: dict[str, dict[str, str]] = {"ddp": {}, "fsdp": FSDP}
    if kind == "deepspeed":
        file = out.with_suffix(".json")
        file.write_text(json.dumps(ZERO3))
        kinds[kind] = {
            "DS_ACCELERATOR": "cpu",
            "ACCELERATE_USE_DEEPSPEED": "true",
            "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
            "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file),
            "ACCELERATE_CONFIG_DS_FIELDS": "deepspeed_config_file",
        }
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    launch += ["--master_port", "0", "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]
    return subprocess.run(
        [*launch, str(WORKER), kind, str(policy), str(out), settings.model_dump_json()],
        env=os.environ | kinds[kind] | {"OMP_NUM_THREADS": "1", "KILL_AT": str(kill_at)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]


def weights(path: Path) -> torch.Tensor:
    model = load_policy(path, device="cpu").model
    return torch.cat([p.detach().flatten() for p in model.parameters()])


CASES = [
    pytest.param("ddp", {}, "MULTI_CPU", 1.0, id="ddp"),
    pytest.param(
        "ddp", {"computation": "pairs"}, "MULTI_CPU", 1.0, id="ddp, pairs", marks=thorough
    ),
    pytest.param("fsdp", {}, "FSDP", 0.5, id="fsdp2"),
    pytest.param(
        "fsdp",
        {"lora": {"rank": 4}, "gradient_checkpointing": "selective"},
        "FSDP",
        0.5,
        id="fsdp2, lora, selective",
    ),
    pytest.param("deepspeed", {}, "DEEPSPEED", 0.5, id="zero3", marks=[needs_deepspeed, thorough]),
    pytest.param(
        "deepspeed",
        {"lora": {"rank": 4}, "gradient_checkpointing": True},
        "DEEPSPEED",
        0.5,
        id="zero3, lora, checkpointing",
        marks=[needs_deepspeed, thorough],
    ),
]


@pytest.mark.parametrize(("kind", "changes", "name", "share"), CASES)
def test_two_processes_train_what_one_does(
    kind: str, changes: dict[str, Any], name: str, share: float, policy: Path, tmp_path: Path
) -> None:
    settings = config(**changes)
    one = alone(policy, tmp_path / "one", settings)
    done = launched(kind, policy, tmp_path / "two", settings)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count(f"{kind} {name}") == 2
    held = [float(part) for part in re.findall(r"holds (\d\.\d\d)", done.stdout)]
    assert held == [pytest.approx(share, abs=0.06)] * 2
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    before, after = weights(tmp_path / "one/policy"), weights(tmp_path / "two/policy")
    moved = (before - weights(policy)).norm()
    assert (before - after).norm() < 1e-3 * moved
    two = TrainingReport.model_validate_json((tmp_path / "two/report.json").read_bytes())
    assert two.heldout_after is not None
    assert one.heldout_after is not None
    assert two.heldout_after.margin == pytest.approx(one.heldout_after.margin, abs=1e-5)


@needs_deepspeed
@thorough
def test_selective_checkpointing_is_refused_where_it_would_fail(
    policy: Path, tmp_path: Path
) -> None:
    settings = config(gradient_checkpointing="selective")
    done = launched("deepspeed", policy, tmp_path / "two", settings)
    assert done.returncode != 0
    assert "gradient_checkpointing: selective does not work with DeepSpeed" in done.stderr


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("ddp", marks=thorough),
        "fsdp",
        pytest.param("deepspeed", marks=[needs_deepspeed, thorough]),
    ],
)
def test_two_processes_that_were_killed_go_on(kind: str, policy: Path, tmp_path: Path) -> None:
    settings = config()
    alone(policy, tmp_path / "one", settings)
    out = tmp_path / "two"
    killed = launched(kind, policy, out, settings, kill_at=3)
    assert killed.returncode != 0
    assert len(losses(out)) == 2 or len(losses(out)) == 3
    done = launched(kind, policy, out, settings)
    assert done.returncode == 0, done.stderr[-3000:]
    report = TrainingReport.model_validate_json((out / "report.json").read_bytes())
    assert report.resumed_at_step == 2
    assert losses(out) == pytest.approx(losses(tmp_path / "one"), abs=1e-5)


def test_one_launched_process_is_one_training(policy: Path, tmp_path: Path) -> None:
    alone(policy, tmp_path / "one", config())
    done = launched("ddp", policy, tmp_path / "two", config(), processes=1)
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-6)


# ---- the command line


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of ours as two processes."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launch += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", "-m", "scdpo"]
    return subprocess.run(
        [*launch, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_commands_that_train_can_be_launched_as_several_processes(tmp_path: Path) -> None:
    recorded = write_recorded(tmp_path / "recorded.jsonl", 6)
    settings = write_recipe(tmp_path / "recipe.yaml", pairs={"heldout_share": 0.0})
    one, two = tmp_path / "one", tmp_path / "two"
    with Run(load_recipe(settings), one) as run:
        run.import_solutions(Path(recorded), "tora", "gsm8k")
        run.pair()
    shutil.copytree(one, two)
    with Run(load_recipe(settings), one) as run:
        run.train("dpo")
        alone = run.sft(tmp_path / "sft-one")

    done = torchrun("train", str(two), "--method", "dpo")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("next      scdpo evaluate") == 1
    logs = [losses(folder / "policies/dpo") for folder in (one, two)]
    assert logs[1] == pytest.approx(logs[0], abs=1e-5)
    done = torchrun("sft", str(two), "--out", str(tmp_path / "sft-two"))
    assert done.returncode == 0, done.stderr[-3000:]
    both = SFTReport.model_validate_json((tmp_path / "sft-two/report.json").read_bytes())
    assert both.final_loss == pytest.approx(alone.final_loss, abs=1e-5)
    assert both.tokens == alone.tokens

    refused = torchrun("pair", str(two))
    assert refused.returncode != 0
    assert (
        "only `scdpo train` and `scdpo sft` can be launched as several processes" in refused.stderr
    )
