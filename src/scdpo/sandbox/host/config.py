"""The settings of a sandbox: how strongly it isolates, and the limits of a session."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Level = Literal["namespace", "process"]
"""How strongly sessions are isolated; docs/sandbox.md describes what each level promises."""

_PRELOAD = (
    *("math", "cmath", "random", "itertools", "functools", "collections", "fractions"),
    *("decimal", "statistics", "datetime", "re", "json"),
    *("numpy", "numpy.random", "numpy.linalg"),
    # What sympy itself would import at the first `solve` or `integrate`, which takes 0.25 s.
    *("sympy", "sympy.physics.units", "sympy.combinatorics", "sympy.integrals.heurisch"),
    *("sympy.integrals.manualintegrate", "sympy.integrals.risch", "sympy.polys.polymatrix"),
    *("sympy.sets.handlers.functions", "sympy.sets.handlers.issubset", "sympy.tensor.tensor"),
)


class SandboxConfig(BaseModel):
    """How strongly sessions are isolated, and their limits.

    A sandbox that cannot keep the promises of its level does not start.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: Level = Field(
        default="namespace",
        description="`namespace`, or the weaker `process` where user namespaces are forbidden.",
    )
    deadline: float = Field(
        default=10.0,
        gt=0,
        allow_inf_nan=False,
        description="Wall-clock seconds that a block may run, and that a clone may take.",
    )
    memory_mb: int = Field(
        default=1024,
        ge=16,
        description=(
            "Memory (MiB) that all processes of a session may use together, and the address space "
            "of each of them, beyond what the bare interpreter takes."
        ),
    )
    tmp_mb: int = Field(
        default=64,
        ge=1,
        description="Size (MiB) of a session's /tmp, which is in memory at level `namespace`.",
    )
    processes: int = Field(
        default=128, ge=4, description="Processes and threads that a session may have."
    )
    output_chars: int = Field(
        default=10_000, ge=1, description="Characters kept of a block's output, from its start."
    )
    max_sessions: int = Field(
        default=256, ge=1, description="Live sessions; opening one more is an error."
    )
    parallel: int | None = Field(
        default=None,
        ge=1,
        description=(
            "Blocks that run at the same time, by default one per core, so that deadlines do not "
            "depend on how many sessions are waiting."
        ),
    )
    network: Literal["deny", "allow"] = Field(
        default="deny", description="`allow` lets sessions reach the host's network."
    )
    preload: tuple[str, ...] = Field(
        default=_PRELOAD,
        description="Modules that are imported once, and are already loaded in every session.",
    )
