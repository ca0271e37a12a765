"""The processes of one training, as `accelerate launch` and `torchrun` start them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from accelerate import PartialState

T = TypeVar("T")


def process_count() -> int:
    """The number of launched processes; 1 when there is no launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this is the process that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def on_cpu() -> bool:
    """Whether to compute on the CPU: there is no GPU, and DeepSpeed does not choose the device."""
    import torch

    by_deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    return not torch.cuda.is_available() and not by_deepspeed


def process_group() -> PartialState:
    """The group of all launched processes, which this process joins at the first call."""
    from accelerate import PartialState

    return PartialState(cpu=on_cpu())


def wait_for_all() -> None:
    """Wait until every process has reached this call."""
    if process_count() > 1:
        process_group().wait_for_everyone()


def broadcast_from_main(value: T) -> T:
    """The main process's value, in every process."""
    if process_count() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    process_group()
    return cast(T, broadcast_object_list([value])[0])


def close_process_group() -> None:
    """Wait for all processes and leave the group; without this, a process may abort at exit."""
    if process_count() > 1:
        import torch.distributed

        wait_for_all()
        torch.distributed.destroy_process_group()
