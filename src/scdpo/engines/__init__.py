"""Completions from a policy: in process, scripted, or from another package's engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdpo.lazy import lazy_names

if TYPE_CHECKING:
    from scdpo.engines.base import Completion, EngineConfig, EngineProtocol, Request
    from scdpo.engines.local import LocalEngine, LocalEngineConfig
    from scdpo.engines.registry import EngineKind, engine_config, open_engine, register_engine
    from scdpo.engines.scripted import CodePoints, ScriptedEngine

_NAMES = {
    "base": "Completion EngineConfig EngineProtocol Request",
    "local": "LocalEngine LocalEngineConfig",
    "registry": "EngineKind engine_config open_engine register_engine",
    "scripted": "CodePoints ScriptedEngine",
}

__all__ = [
    "CodePoints",
    "Completion",
    "EngineConfig",
    "EngineKind",
    "EngineProtocol",
    "LocalEngine",
    "LocalEngineConfig",
    "Request",
    "ScriptedEngine",
    "engine_config",
    "open_engine",
    "register_engine",
]


__getattr__, __dir__ = lazy_names(__name__, _NAMES)
