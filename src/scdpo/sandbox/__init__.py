"""Runs model-written code in stateful sessions of a separate process, which can be cloned.

`ProcessSandbox` starts the sessions and `SandboxConfig` sets their limits; `same_output` decides
whether a block that was executed again printed what was recorded. docs/sandbox.md describes what
the sandbox promises and how its four wings (`host`, `notebook`, `walls`, `processes`) fit together.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

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
_MODULES = {
    "SESSION_ENDING_CUTS": "base",
    "Cut": "base",
    "Execution": "base",
    "Sandbox": "base",
    "Session": "base",
    "ProcessSandbox": "client",
    "normalise_output": "compare",
    "same_output": "compare",
    "Level": "config",
    "SandboxConfig": "config",
    "ProcessSession": "session",
}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        value = getattr(import_module(f"scdpo.sandbox.host.{_MODULES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
