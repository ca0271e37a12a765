"""One process of a training that several launched processes share; see test_distributed.py.

    torchrun --nproc_per_node 2 tests/distributed_worker.py KIND POLICY OUT CONFIG

accelerate does not offer FSDP and DeepSpeed on a CPU, though torch and DeepSpeed do; what stands
in the way is lifted here, for tests alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

from scdpo.training import scoring
from scdpo.training.dpo_config import DPOConfig
from scdpo.training.preference import train
from scdpo.training.preference_trainer import PreferenceTrainer
from scdpo.training.processes import close_process_group, process_group
from tiny_pairs import question_pairs

PAIRS = [pair for i in range(5) for pair in question_pairs(i, branches=1 + i % 3)]


def allow_fsdp() -> None:
    """Let accelerate keep its FSDP settings in a group of CPU processes."""
    original = AcceleratorState.__init__

    def init(self: Any, *args: Any, fsdp_plugin: Any = None, **options: Any) -> None:
        original(self, *args, fsdp_plugin=fsdp_plugin, **options)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.fsdp_plugin = fsdp_plugin
            self.distributed_type = DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = init


def allow_deepspeed() -> None:
    """Tell accelerate of the processes that DeepSpeed has put into a group."""
    original = PartialState.__init__

    def init(self: Any, *args: Any, **options: Any) -> None:
        fresh = PartialState._shared_state == {}
        original(self, *args, **options)
        if fresh and self.backend is None and dist.is_initialized():
            self.backend = dist.get_backend()
            self.num_processes, self.process_index = dist.get_world_size(), dist.get_rank()
            self.local_process_index = int(os.environ["LOCAL_RANK"])

    PartialState.__init__ = init


def report_sharding() -> None:
    """Print at the first step how much of the weights this process holds."""
    original = PreferenceTrainer.training_step

    def step(self: Any, model: torch.nn.Module, *args: Any, **options: Any) -> torch.Tensor:
        if self.state.global_step == 0:
            held = total = 0
            for p in model.parameters():
                total += getattr(p, "ds_numel", p.numel())
                part = getattr(p, "ds_tensor", p.to_local() if hasattr(p, "to_local") else p)
                held += part.numel()
            sys.stdout.write(f"holds {held / total:.2f}\n")
        return original(self, model, *args, **options)

    PreferenceTrainer.training_step = step


def main() -> None:
    kind, policy, out, config = sys.argv[1:]
    torch.set_num_threads(1)
    if kind == "fsdp":
        allow_fsdp()
    elif kind == "deepspeed":
        allow_deepspeed()
    report_sharding()
    scoring.LOGITS_BYTES = 4 * 64 * 8  # so that the log-probs are made in chunks
    state = process_group()
    assert state.num_processes == int(os.environ["WORLD_SIZE"]), "not in one group"
    settings = DPOConfig.model_validate_json(config)
    kill_at = int(os.environ.get("KILL_AT", "0"))

    def progress(done: int, total: int) -> None:
        if done == kill_at and kill_at:
            os._exit(9)

    train(Path(policy), PAIRS, Path(out), config=settings, heldout=PAIRS[:3], progress=progress)
    sys.stdout.write(f"{kind} {AcceleratorState().distributed_type.value}\n")
    close_process_group()


if __name__ == "__main__":
    main()
