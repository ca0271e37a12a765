"""Completions from a policy: in process, or scripted for tests and for replays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scdpo.engines.base import Completion, Engine, Request
    from scdpo.engines.local import LocalEngine, LocalEngineConfig, open_engine
    from scdpo.engines.scripted import CodePoints, ScriptedEngine

_HOMES = {
    "Completion": "base",
    "Engine": "base",
    "Request": "base",
    "LocalEngine": "local",
    "LocalEngineConfig": "local",
    "open_engine": "local",
    "CodePoints": "scripted",
    "ScriptedEngine": "scripted",
}

__all__ = [
    "CodePoints",
    "Completion",
    "Engine",
    "LocalEngine",
    "LocalEngineConfig",
    "Request",
    "ScriptedEngine",
    "open_engine",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
