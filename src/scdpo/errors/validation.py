"""One line for a pydantic error: the key, what was found, and what is accepted."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from scdpo.errors import InputError, short

M = TypeVar("M", bound=BaseModel)

_Path = tuple[int | str, ...]
_TYPE_TAG = re.compile(r"(int|float|str|bool|bytes|none)|.*-(int|float|str|bool)|.*\[.*")
"""What pydantic puts into a path where a value may be of several types: the type it tried."""


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first fault of a validation as one line; `model` is what was validated.

    The line names the dotted key, says what is accepted and what was found; an unknown key comes
    first, since other faults may follow from it, with the known keys and the nearest of them.
    """
    key, text = _first_fault(error, model)
    return f"{key}: {text}" if key else text


def settings_from_options(model: type[M], **options: object) -> M:
    """Settings from command-line options, by field name; None leaves the default.

    Raises InputError, which names the option (`--memory-mb: …`).
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        key, text = _first_fault(error, model)
        option = f"--{key.replace('_', '-')}: " if key else ""
        raise InputError(f"{option}{text}") from error


def settings_from_keywords(model: type[M], config: M | None, settings: Mapping[str, Any]) -> M:
    """Settings of a function's caller: those of `config`, with keywords in their place.

    Raises InputError, which names the keyword.
    """
    if config is not None and not settings:
        return config
    before = {} if config is None else {name: getattr(config, name) for name in model.model_fields}
    try:
        return model.model_validate(before | dict(settings))
    except ValidationError as error:
        raise InputError(explain(error, model)) from error


def unknown_key(key: str, known: Sequence[str]) -> str:
    """`unknown key 'a.brnch' (did you mean branch?); known here: branch, …`.

    `key` may be dotted; `known` are the keys of the section that it stands in.
    """
    near = difflib.get_close_matches(key.rpartition(".")[2], known, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"unknown key {key!r}{hint}; known here: {', '.join(known) or 'none'}"


def _first_fault(error: ValidationError, model: type[BaseModel]) -> tuple[str, str]:
    """The key at fault (empty where the message names it, or it is the whole) and the message."""
    errors = sorted(
        error.errors(include_url=False), key=lambda found: found["type"] != "extra_forbidden"
    )
    first = errors[0]
    key = _dotted(first["loc"])
    if first["type"] == "extra_forbidden":
        text = unknown_key(key, _known_keys(model, first["loc"][:-1]))
        unknown = [_dotted(found["loc"]) for found in errors if found["type"] == first["type"]]
        also = [repr(other) for other in unknown[1:4]]
        return "", f"{text}; also unknown: {', '.join(also)}" if also else text
    others = len({_dotted(found["loc"]) for found in errors} - {key})
    more = f" (and {others} more error{'s' * (others > 1)})" if others else ""
    if first["type"] == "missing":
        return "", f"key {key!r} is missing{more}"
    # A value that may be of several types has a message for each.
    messages = [_plain(found["msg"]) for found in errors if _dotted(found["loc"]) == key]
    text = " or ".join(dict.fromkeys(messages))
    if first["type"] not in ("value_error", "json_invalid"):
        text += f" (found {short(first['input'])})"
    return key, f"{text}{more}"


def _dotted(path: _Path) -> str:
    return ".".join(str(part) for part in path if not _TYPE_TAG.fullmatch(str(part)))


def _plain(message: str) -> str:
    message = " ".join(message.removeprefix("Value error, ").split())
    return message[:1].lower() + message[1:]


def _known_keys(model: type[BaseModel], path: _Path) -> list[str]:
    """The keys of the section at `path`, sorted."""
    models = [model]
    for part in path:
        inside = [
            inner
            for outer in models
            if part in outer.model_fields
            for inner in _models_in(outer.model_fields[str(part)].annotation)
        ]
        models = inside or models  # a type tag, or a place in a list or mapping of sections
    return sorted({name for found in models for name in found.model_fields})


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a type consists of: `Step` for `tuple[Step, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
