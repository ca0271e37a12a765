"""Runs model-written code in stateful sessions of a separate process, which can be cloned.

`ProcessSandbox` starts the sessions and `SandboxConfig` sets their limits; `same_output` decides
whether a block that was executed again printed what was recorded. docs/sandbox.md describes what
the sandbox promises and how its four wings (`host`, `notebook`, `walls`, `processes`) fit together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdpo.lazy import lazy_names

if TYPE_CHECKING:
    from scdpo.sandbox.host.base import SESSION_ENDING_CUTS, Cut, Execution, Sandbox, Session
    from scdpo.sandbox.host.client import ProcessSandbox
    from scdpo.sandbox.host.compare import normalise_output, same_output
    from scdpo.sandbox.host.config import Level, SandboxConfig
    from scdpo.sandbox.host.session import ProcessSession

__all__ = [
    "SESSION_ENDING_CUTS",
    "Cut",
    "Execution",
    "Level",
    "ProcessSandbox",
    "ProcessSession",
    "Sandbox",
    "SandboxConfig",
    "Session",
    "normalise_output",
    "same_output",
]

# Loaded on first use: the child process imports this package too, and needs neither pydantic nor
# asyncio.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "host.base": "SESSION_ENDING_CUTS Cut Execution Sandbox Session",
        "host.client": "ProcessSandbox",
        "host.compare": "normalise_output same_output",
        "host.config": "Level SandboxConfig",
        "host.session": "ProcessSession",
    },
)
