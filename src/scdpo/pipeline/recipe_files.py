"""Recipe files: those of a user, and those in the package by their name."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from scdpo.errors import RecipeError

SUFFIXES = (".yaml", ".yml", ".json", ".txt")
"""What the names of recipe files end with; JSON is YAML too."""


def read_yaml(
    name: str | Path, packaged: Sequence[str] | None = None
) -> tuple[dict[str, Any], str]:
    """The mapping in a YAML file or packaged recipe, and its name for messages.

    `packaged` are the names that the message for a missing file offers, by default those of
    recipes. Raises RecipeError for a file that cannot be read, is not YAML or is not a mapping.
    """
    text, where = recipe_text(name, packaged)
    try:
        data = yaml.load(text, _UniqueKeys)  # a safe loader
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        found = "nothing" if data is None else type(data).__name__
        raise RecipeError(f"{where}: expected a mapping of keys, found {found}")
    return data, where


class _UniqueKeys(yaml.SafeLoader):
    """Rejects repeated keys: YAML would silently drop the first of two equal sections."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            problem = f"key {twice!r} is given twice"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep)


def recipe_names() -> list[str]:
    """The packaged recipes that can be run."""
    files = (resources.files("scdpo") / "recipes").iterdir()
    recipes = {f.name.removesuffix(".yaml"): f for f in files if f.name.endswith(".yaml")}
    # Other settings ship alongside, such as those for `scdpo make-policy`.
    return sorted(n for n, f in recipes.items() if "\nproblems:" in f.read_text(encoding="utf-8"))


def recipe_title(name: str | Path) -> str:
    """A recipe's name without folders and suffix, as run folders are called."""
    path = Path(name)
    return path.stem if path.suffix in SUFFIXES else path.name


def recipe_text(name: str | Path, offered: Sequence[str] | None = None) -> tuple[str, str]:
    """The text of a YAML file or packaged recipe, and its name for messages; as `read_yaml`."""
    path = Path(name)
    folder = resources.files("scdpo") / "recipes"
    packaged = folder / f"{name}.yaml"
    # A suffix that is none of a file's is part of the name, as in qwen2.5-math-1.5b.
    if path.suffix not in SUFFIXES and packaged.is_file():
        return packaged.read_text(encoding="utf-8"), f"recipe {name}"
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except FileNotFoundError as error:
        names = offered or recipe_names()
        raise RecipeError(
            f"{path}: no such recipe file (in the package: {', '.join(names)})"
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 (byte {error.start + 1})") from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
