"""Packages that import their names on first use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, names: Mapping[str, str], packages: tuple[str, ...] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` for a package that imports its names on first use.

    `names` lists the names found in each module of the package (`Engine=LocalEngine` if the
    module calls it differently), and `packages` its subpackages. `import scdpo` is then cheap,
    and torch is imported only by what needs it.
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
