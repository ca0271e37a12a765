"""Formats by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from scdpo.errors import InputError
from scdpo.formats.base import Format
from scdpo.formats.blocks import Blocks
from scdpo.formats.cutting import Template
from scdpo.formats.fenced import Fenced
from scdpo.formats.plain import Plain

FORMATS: dict[str, tuple[Callable[..., Format], tuple[str, ...]]] = {
    "blocks": (Blocks, ("end",)),
    "fenced": (Fenced, ("end", "template", "chat_template")),
    "plain": (Plain, ("end", "template", "boundary", "chat_template")),
}
"""Every format by name, with the options it accepts besides `system` (see `policy_format` for
`chat_template`, which needs the policy's tokenizer)."""


def get_format(
    name: str,
    *,
    system: str | None = None,
    end: str | Sequence[str] | None = None,
    template: Template | None = None,
    boundary: str | None = None,
) -> Format:
    """A format by name.

    `system` None means the format's default system prompt (the paper's for `blocks`, none for the
    others), and an empty string omits it. `end` (a string or several), `template` and `boundary`
    are the options with these names; None means the default. What a policy's tokenizer decides is
    added by `policy_format`. Raises InputError for an unknown name, an option that
    the format does not have, or an invalid value.
    """
    given: dict[str, Any] = {"end": end, "template": template, "boundary": boundary}
    checked_options(name, **given)
    make, _ = FORMATS[name]
    return make(system=system, **{key: value for key, value in given.items() if value is not None})


def checked_options(name: str, **given: object) -> None:
    """Raises InputError for an unknown format, and for a given option (not None) that the format
    does not have."""
    if name not in FORMATS:
        raise InputError(f"unknown format {name!r}; known: {', '.join(FORMATS)}")
    known = FORMATS[name][1]
    for key, value in given.items():
        if value is not None and key not in known:
            raise InputError(
                f"format {name!r} has no option {key!r}; its options are {', '.join(known)}"
            )
