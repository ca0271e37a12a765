"""Puts a schedule into the text of a recipe, whose comments and order stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from scdpo.errors import InputError, RecipeError
from scdpo.pipeline.recipe import make_recipe
from scdpo.pipeline.recipe_files import recipe_text
from scdpo.sampling import Schedule
from scdpo.store import write_atomic


def check_writable(out: Path, *, force: bool) -> None:
    """Raise InputError if a recipe cannot be written to `out`, or exists there and is not to be
    changed."""
    if out.suffix not in (".yaml", ".yml"):
        raise InputError(f"{out}: a recipe is a .yaml file")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder")
    if out.exists() and not force:
        raise InputError(f"{out} exists; --force puts the schedule into it")


def write_schedule(out: Path, source: str | Path, schedule: Schedule) -> str:
    """Write a recipe with this schedule to `out`: that of `out` itself if it exists, or else that
    of `source` (a file or packaged name). Returns what was done in a line.

    Raises RecipeError if the recipe's `branch` is written in a way that cannot be changed line by
    line, such as an alias; nothing is written then.
    """
    existed = out.exists()
    text, where = recipe_text(out if existed else source)
    changed = with_schedule(text, schedule, where)
    make_recipe(_data(changed), where)  # an existing file may be something else
    write_atomic(out, changed)
    return f"{out} ({'changed' if existed else f'copy of {where}'}: branch.schedule)"


def with_schedule(text: str, schedule: Schedule, where: str = "recipe") -> str:
    """The text of a recipe with another `branch.schedule`. Raises RecipeError as above."""
    values = schedule.model_dump(mode="json")
    wanted = _data(text)
    branch = wanted.get("branch") or {}
    wanted = wanted | {"branch": {**branch, "schedule": values}}
    try:
        changed = _changed(text, values)
        done = _data(changed) == wanted
    except (yaml.YAMLError, _TooHard):
        done = False
    if not done:
        raise RecipeError(
            f"{where}: its section branch cannot be changed line by line; put this under branch by "
            f"hand: schedule: {_flow(values)}"
        )
    return changed


class _TooHard(Exception):
    """A way of writing that is not changed here."""


def _changed(text: str, values: Mapping[str, float]) -> str:
    top = yaml.compose(text, yaml.SafeLoader)
    branch = _value(top, "branch")
    if branch is None:
        return f"{text.rstrip()}\nbranch:\n  schedule: {_flow(values)}\n"
    schedule = _value(branch, "schedule")
    if schedule is None:
        return _inserted(text, branch, "schedule", _flow(values))
    for key, value in values.items():
        # Composed anew, since every change moves what follows it.
        schedule = _value(_value(yaml.compose(text, yaml.SafeLoader), "branch"), "schedule")
        known = _value(schedule, key)
        if known is None:
            text = _inserted(text, schedule, key, _plain(value))
        elif isinstance(known, yaml.ScalarNode):
            text = _replaced(text, known, _plain(value))
        else:
            raise _TooHard
    return text


def _value(node: yaml.Node | None, key: str) -> yaml.Node | None:
    """The value of a key of a mapping. Raises _TooHard if it is none."""
    if not isinstance(node, yaml.MappingNode):
        raise _TooHard
    return next((value for name, value in node.value if name.value == key), None)


def _inserted(text: str, node: yaml.Node | None, key: str, value: str) -> str:
    """The text with a further key, the first one, of a mapping."""
    if not isinstance(node, yaml.MappingNode):
        raise _TooHard
    if node.flow_style:
        at = node.start_mark.index + 1
        return f"{text[:at]}{key}: {value}{', ' if node.value else ''}{text[at:]}"
    first = node.value[0][0].start_mark
    return f"{text[: first.index]}{key}: {value}\n{' ' * first.column}{text[first.index :]}"


def _replaced(text: str, node: yaml.ScalarNode, value: str) -> str:
    return f"{text[: node.start_mark.index]}{value}{text[node.end_mark.index :]}"


def _flow(values: Mapping[str, float]) -> str:
    return "{" + ", ".join(f"{key}: {_plain(value)}" for key, value in values.items()) + "}"


def _plain(value: float) -> str:
    return f"{value:g}" if value != int(value) else f"{value:.1f}"


def _data(text: str) -> dict[str, Any]:
    data = yaml.safe_load(text)
    return data if isinstance(data, dict) else {}
