"""Engines by name, as recipes choose them: `engine: {name: local, max_rows: 64}`.

Another package adds an engine with an entry point in the group `scdpo.engines`. The entry point's
name is that of the engine, and its object an `EngineKind`:

    [project.entry-points."scdpo.engines"]
    mine = "my_package.engine:KIND"

    KIND = EngineKind(MyEngineConfig, lambda policy, config: MyEngine(policy, config.url))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from scdpo.engines.base import EngineConfig, EngineProtocol
from scdpo.engines.http.config import HttpEngineConfig
from scdpo.engines.local import LocalEngine, LocalEngineConfig
from scdpo.engines.vllm.config import VllmEngineConfig
from scdpo.errors import EngineError, InputError

ENTRY_POINTS = "scdpo.engines"


@dataclass(frozen=True, slots=True)
class EngineKind:
    """A kind of engine: the class of its settings, and a function that opens it for a policy (a
    folder, a hub name, or whatever the engine accepts)."""

    config: type[EngineConfig]
    open: Callable[[str, Any], EngineProtocol]


def _open_http(policy: str, config: HttpEngineConfig) -> EngineProtocol:
    from scdpo.engines.http.client import HttpEngine

    return HttpEngine(policy, config)


def _open_vllm(policy: str, config: VllmEngineConfig) -> EngineProtocol:
    from scdpo.engines.vllm.engine import VllmEngine

    return VllmEngine(policy, config)


_KINDS: dict[str, EngineKind] = {
    "local": EngineKind(LocalEngineConfig, LocalEngine),
    "http": EngineKind(HttpEngineConfig, _open_http),
    "vllm": EngineKind(VllmEngineConfig, _open_vllm),
}


def register_engine(name: str, kind: EngineKind) -> None:
    """Add a kind of engine in this process; packages should use an entry point instead."""
    _KINDS[name] = kind


def engine_kind(name: str) -> EngineKind:
    """The kind of engine with this name. Raises InputError for an unknown name and EngineError for
    an entry point that cannot be loaded."""
    if name in _KINDS:
        return _KINDS[name]
    plugins = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in plugins:
        raise InputError(f"unknown engine {name!r}; known: {', '.join([*_KINDS, *plugins])}")
    try:
        kind = plugins[name].load()
    except Exception as error:  # whatever another package raises
        raise EngineError(f"engine {name!r}: {plugins[name].value} fails: {error}") from error
    if not isinstance(kind, EngineKind):
        raise EngineError(f"engine {name!r}: {plugins[name].value} is not an EngineKind")
    _KINDS[name] = kind
    return kind


def engine_config(settings: EngineConfig | Mapping[str, Any]) -> EngineConfig:
    """Validate settings with the class of the engine they name (`local` by default).

    Raises InputError for an unknown name, EngineError for an entry point that cannot be loaded,
    and pydantic's ValidationError.
    """
    if isinstance(settings, EngineConfig):
        return settings
    name = settings.get("name", "local")
    return engine_kind(str(name)).config.model_validate(settings)


def open_engine(
    policy: str, config: EngineConfig | None = None, *, log_folder: Path | None = None
) -> EngineProtocol:
    """Open an engine for a policy; without `config`, the in-process engine.

    An engine that starts processes keeps their output in `log_folder`, unless its settings name
    another folder. Raises PolicyError, EngineError and InputError.
    """
    config = config or LocalEngineConfig()
    if log_folder is not None and getattr(config, "log_folder", "") is None:
        config = config.model_copy(update={"log_folder": str(log_folder)})
    return engine_kind(config.name).open(policy, config)
