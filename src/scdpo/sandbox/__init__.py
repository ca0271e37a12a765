"""Runs model-written code in stateful, clonable sessions of a separate process.

`ProcessSandbox` starts them, `SandboxConfig` says within which limits; `same_output` tells
whether a block that was executed again printed what was recorded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from scdpo.sandbox.compare import normalise_output, same_output

if TYPE_CHECKING:
    from scdpo.sandbox.base import Cut, Execution, Sandbox, Session
    from scdpo.sandbox.client import ProcessSandbox
    from scdpo.sandbox.config import SandboxConfig
    from scdpo.sandbox.session import ProcessSession

__all__ = [
    "Cut",
    "Execution",
    "ProcessSandbox",
    "ProcessSession",
    "Sandbox",
    "SandboxConfig",
    "Session",
    "normalise_output",
    "same_output",
]

# The child process imports this package too and has no need of pydantic and asyncio.
_HOMES = {
    "Cut": "base",
    "SESSION_ENDING_CUTS": "base",
    "Execution": "base",
    "Sandbox": "base",
    "Session": "base",
    "ProcessSandbox": "client",
    "ProcessSession": "session",
    "SandboxConfig": "config",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"scdpo.sandbox.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
