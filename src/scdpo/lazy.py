"""Packages whose names are imported when they are first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, names: Mapping[str, str], packages: tuple[str, ...] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose names are imported when they are first used.

    `names` lists, for each module of the package, the names that are found there
    (`Engine=LocalEngine` for one that has another name there), and `packages` its packages. So
    `import scdpo` costs nothing, and torch is imported by what needs it.
    """
    homes = {
        name.partition("=")[0]: (module, name.rpartition("=")[2])
        for module, listed in names.items()
        for name in listed.split()
    }

    def get(name: str) -> Any:
        if name in packages:
            return import_module(f"{package}.{name}")
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, inside = homes[name]
        value = getattr(import_module(f"{package}.{module}"), inside)
        setattr(sys.modules[package], name, value)
        return value

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes, *packages})

    return get, listed
