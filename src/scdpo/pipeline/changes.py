"""Changes to a recipe, given key by key: `--set train.learning_rate=1e-5`.

A change counts as if the recipe's file said it. Keys are dotted; values are YAML.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml
from pydantic import BaseModel

from scdpo.errors import RecipeError, short

Changes = Mapping[str, Any]
"""Dotted key → value. A mapping as the value of a section is merged into it."""


def parse_changes(given: Iterable[str]) -> dict[str, Any]:
    """Changes from `KEY=VALUE` texts, values in YAML. Raises RecipeError."""
    changes: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not all(key.split(".")):
            raise RecipeError(
                f"--set {short(text)}: expected KEY=VALUE, such as train.learning_rate=1e-5"
            )
        if key in changes:
            raise RecipeError(f"--set {key} is given twice")
        try:
            changes[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            problem = getattr(error, "problem", None) or "it cannot be read"
            raise RecipeError(
                f"--set {key}: {short(value)} is not YAML ({problem}); a text with special "
                "characters needs quotes of its own"
            ) from error
    return changes


def is_about(changes: Changes, message: str) -> bool:
    """Whether the message of a failed validation is about one of the changes."""
    for key, value in changes.items():
        parts = key.split(".")
        sections = [".".join(parts[:n]) for n in range(1, len(parts))]
        if key in message or any(f"'{section}'" in message for section in sections):
            return True
        if isinstance(value, str) and value and repr(value) in message:
            return True
    return False


def before_presets(
    data: Mapping[str, Any],
    changes: Changes,
    *,
    presets: Mapping[str, Mapping[str, Any]],
    shared: Mapping[str, tuple[Any, tuple[str, ...]]],
) -> dict[str, Any]:
    """Plain data with those changes that other keys depend on: `preset`, the keys that apply to
    several sections (`shared`), and the name of the engine.

    A section whose value of a shared key is that of the recipe follows it, so that the seed of a
    recipe with all defaults written out can be changed. Raises RecipeError for a preset that has
    no effect on such a recipe.
    """
    changed = dict(data)
    if "preset" in changes:
        _check_preset(changed, changes["preset"], presets)
        changed["preset"] = changes["preset"]
    for key, (default, stages) in shared.items():
        if key not in changes:
            continue
        before = changed.get(key, default)
        for stage in stages:
            section = changed.get(stage)
            if isinstance(section, Mapping) and key in section and section[key] == before:
                changed[stage] = {name: value for name, value in section.items() if name != key}
        changed[key] = changes[key]
    engine = changes.get("engine.name")
    if engine is not None:
        section = changed.get("engine")
        same = isinstance(section, Mapping) and section.get("name", "local") == engine
        # The settings of another kind of engine mean nothing to this one.
        changed["engine"] = (dict(section) if same and section else {}) | {"name": engine}
    return changed


def with_changes(
    data: Mapping[str, Any], changes: Changes, model: type[BaseModel]
) -> dict[str, Any]:
    """Plain data of a `model` with all changes. What `data` does not say, has the model's default.

    Raises RecipeError for a key below a value that has no keys; unknown keys are left to the
    model's validation.
    """
    changed = dict(data)
    for key, value in changes.items():
        changed = _put(changed, key.split("."), value, model, key)
    return changed


def _put(
    data: Mapping[str, Any], path: list[str], value: Any, model: type[BaseModel] | None, key: str
) -> dict[str, Any]:
    """A copy of `data` with a value at `path`."""
    first, *rest = path
    inner = section_of(model, first)
    below = data[first] if first in data else _default(model, first)
    if not rest:
        if inner is not None and isinstance(value, Mapping) and isinstance(below, Mapping):
            merged = dict(below)
            for name, part in value.items():
                merged = _put(merged, [str(name)], part, inner, key)
            return {**data, first: merged}
        return {**data, first: value}
    if below is None:
        below = {}
    if inner is not None and isinstance(below, (list, tuple)) and below:
        return {**data, first: _put_in_list(below, rest, value, inner, key)}
    if not isinstance(below, Mapping):
        whole = key.rsplit("." + ".".join(rest), 1)[0]
        raise RecipeError(
            f"--set {key}: {whole} is {short(below)} and has no keys; set it as a whole"
        )
    return {**data, first: _put(below, rest, value, inner, key)}


def _put_in_list(
    sections: Sequence[Any], path: list[str], value: Any, model: type[BaseModel], key: str
) -> list[Any]:
    """A copy of a list of sections with a value in one of them, whose number begins the path, or
    in all of them."""
    number = int(path[0]) if path[0].isdecimal() else None
    if number is not None and not (number < len(sections) and path[1:]):
        raise RecipeError(
            f"--set {key}: expected a place in a list of {len(sections)}, counted from 0, and a key"
        )
    within = path if number is None else path[1:]
    return [
        _put(section, within, value, model, key)
        if number in (None, place) and isinstance(section, Mapping)
        else section
        for place, section in enumerate(sections)
    ]


def section_of(model: type[BaseModel] | None, key: str) -> type[BaseModel] | None:
    """The model of a key whose value is a section, or may be one; None for other keys."""
    field = model.model_fields.get(key) if model is not None else None
    annotation = getattr(field, "annotation", None)
    kinds = [annotation, *getattr(annotation, "__args__", ())]
    kinds += [part for kind in kinds for part in getattr(kind, "__args__", ())]
    kinds += [getattr(kind, "__origin__", None) for kind in kinds]  # what Annotated is about
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _default(model: type[BaseModel] | None, key: str) -> Any:
    """What a key is where the data does not say it; nothing said is enough for a section."""
    field = model.model_fields.get(key) if model is not None else None
    if field is None or field.is_required():
        return None
    default = field.get_default(call_default_factory=True)
    return {} if isinstance(default, BaseModel) else default


def _check_preset(
    data: Mapping[str, Any], wanted: Any, presets: Mapping[str, Mapping[str, Any]]
) -> None:
    """A preset is what a recipe starts from, so it is without effect where all is written out."""
    before = data.get("preset", "paper")
    names = [name for name in (before, wanted) if isinstance(name, str)]
    if before == wanted or not all(name in presets for name in names):
        return
    if not any(_adds(presets[name], data) for name in names):
        raise RecipeError(
            f"--set preset={wanted}: this recipe writes out every setting of its preset "
            f"({before}), so another one changes nothing; set the keys themselves"
        )


def _adds(base: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
    """Whether `base` says anything that `data` does not."""
    for key, value in base.items():
        if key not in data:
            return True
        below = data[key]
        if isinstance(value, Mapping) and isinstance(below, Mapping) and _adds(value, below):
            return True
    return False
