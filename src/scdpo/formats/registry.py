"""Formats by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from scdpo.errors import InputError
from scdpo.formats.base import Format
from scdpo.formats.blocks import Blocks
from scdpo.formats.fenced import Fenced
from scdpo.formats.plain import Plain

FORMATS: dict[str, tuple[Callable[..., Format], tuple[str, ...]]] = {
    "blocks": (Blocks, ("end",)),
    "fenced": (Fenced, ("end", "template")),
    "plain": (Plain, ("end", "template", "boundary")),
}
"""Every format by name, with the options it accepts besides `system`."""


def get_format(
    name: str,
    *,
    system: str | None = None,
    end: Sequence[str] | None = None,
    template: str | None = None,
    boundary: str | None = None,
) -> Format:
    """A format by name.

    `system` None means the format's default system prompt (the paper's for `blocks`, none for the
    others), and an empty string omits it. `end`, `template` and `boundary` are the options with
    these names; None means the default. Raises InputError for an unknown name, an option that
    the format does not have, or an invalid value.
    """
    if name not in FORMATS:
        raise InputError(f"unknown format {name!r}; known: {', '.join(FORMATS)}")
    make, known = FORMATS[name]
    given: dict[str, Any] = {"end": end, "template": template, "boundary": boundary}
    options = {key: value for key, value in given.items() if value is not None}
    for key in options.keys() - set(known):
        raise InputError(
            f"format {name!r} has no option {key!r}; its options are {', '.join(known)}"
        )
    return make(system=system, **options)
