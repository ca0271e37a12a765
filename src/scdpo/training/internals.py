"""Access to private parts of other packages, which may vanish with any release of theirs."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from scdpo.errors import ScdpoError


def private_part(owner: Any, name: str, package: str) -> Any:
    """The attribute `name` (dotted) of an object of `package`.

    Raises ScdpoError naming the installed version where it does not exist.
    """
    found = owner
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise ScdpoError(
                f"{package} {version(package)} has no {name}, which scdpo needs:"
                f" install a version of {package} within the bounds of scdpo's dependencies"
            ) from error
    return found
