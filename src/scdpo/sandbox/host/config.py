"""What a sandbox is asked for: how strongly it isolates, and the limits of a session."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Level = Literal["namespace", "process"]


class SandboxConfig(BaseModel):
    """How strongly sessions are isolated, and their limits.

    `level`: `namespace`, or `process` where user namespaces are forbidden; docs/sandbox.md says
    what each promises. A sandbox that cannot keep the promise of its level does not start.
    `deadline`: wall-clock seconds a block may run, and a clone may take. `memory_mb`: memory (MiB)
    that all processes of a session may take together, and address space each of them, beyond the
    bare interpreter. `tmp_mb`: size (MiB) of its /tmp, which is memory too at level `namespace`.
    `processes`: processes and threads a session may have. `output_chars`: characters of output
    that are kept, the first ones. `max_sessions`: live sessions; one more is an error.
    `parallel`: blocks that run at the same time, by default one per core, so that deadlines do not
    depend on how many sessions wait. `network`: `allow` leaves the host's network reachable.
    `preload`: modules that every session finds imported already.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: Level = "namespace"
    deadline: float = Field(default=10.0, gt=0)
    memory_mb: int = Field(default=1024, ge=16)
    tmp_mb: int = Field(default=64, ge=1)
    processes: int = Field(default=128, ge=4)
    output_chars: int = Field(default=10_000, ge=1)
    max_sessions: int = Field(default=256, ge=1)
    parallel: int | None = Field(default=None, ge=1)
    network: Literal["deny", "allow"] = "deny"
    preload: tuple[str, ...] = (
        *("math", "cmath", "random", "itertools", "functools", "collections", "fractions"),
        *("decimal", "statistics", "datetime", "re", "json"),
        *("numpy", "numpy.random", "numpy.linalg"),
        # What sympy itself would import at the first `solve` or `integrate`, a quarter of a second.
        *("sympy", "sympy.physics.units", "sympy.combinatorics", "sympy.integrals.heurisch"),
        *("sympy.integrals.manualintegrate", "sympy.integrals.risch", "sympy.polys.polymatrix"),
        *("sympy.sets.handlers.functions", "sympy.sets.handlers.issubset", "sympy.tensor.tensor"),
    )
