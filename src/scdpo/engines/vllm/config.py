"""Settings of the engine that starts its own servers."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from scdpo.engines.http.config import SPEED, ServersConfig


class VllmEngineConfig(ServersConfig):
    """Settings of the engine that starts `vllm serve` for each stage, and stops it afterwards."""

    only_speed: ClassVar[frozenset[str]] = SPEED | {
        *("command", "replicas", "tensor_parallel", "start_seconds", "restarts", "log_folder")
    }

    name: Literal["vllm"] = Field("vllm", description="Servers on this machine's GPUs.")
    command: tuple[str, ...] = Field(
        ("vllm", "serve"),
        min_length=1,
        description="The command that serves a policy; the policy and the options follow it.",
    )
    arguments: tuple[str, ...] = Field(
        (),
        description="Further options of the command: [--dtype, bfloat16, --max-num-seqs, '512'].",
    )
    replicas: int | None = Field(
        None, ge=1, description="Servers; default: as many as the GPUs are enough for."
    )
    tensor_parallel: int = Field(1, ge=1, description="GPUs of a server.")
    start_seconds: float = Field(
        900, gt=0, description="Seconds within which a server must write its first token."
    )
    restarts: int = Field(3, ge=0, description="Times that a server which ends is started again.")
    log_folder: str | None = Field(
        None,
        description="Where the output of the servers is kept; default: `logs` in the run folder.",
    )
