"""Several processes of one training, as `accelerate launch` and `torchrun` start them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from accelerate import PartialState

T = TypeVar("T")


def process_count() -> int:
    """Processes of this launch; 1 when nothing launched several."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this is the process that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def on_cpu() -> bool:
    """Whether to compute on the CPU: no GPU is there, and DeepSpeed does not choose by itself."""
    import torch

    by_deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    return not torch.cuda.is_available() and not by_deepspeed


def joined() -> PartialState:
    """The group of all processes, which this one has joined; on the GPU where there is one."""
    from accelerate import PartialState

    return PartialState(cpu=on_cpu())


def wait_for_all() -> None:
    """Wait until every process is here."""
    if process_count() > 1:
        joined().wait_for_everyone()


def from_main(value: T) -> T:
    """The main process's value, in every process."""
    if process_count() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    return cast(T, broadcast_object_list([value])[0])


def leave() -> None:
    """Leave the group in order, when all are done; without it a process may abort at its end."""
    if process_count() > 1:
        import torch.distributed

        wait_for_all()
        torch.distributed.destroy_process_group()
