"""A recipe: one YAML file that says everything a run does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from scdpo.engines.local import LocalEngineConfig
from scdpo.errors import RecipeError
from scdpo.evaluation.greedy import EvaluateConfig
from scdpo.grading import GradingConfig
from scdpo.pairs import PairConfig
from scdpo.sampling.config import BranchConfig, SampleConfig
from scdpo.sandbox import SandboxConfig
from scdpo.training.dpo_config import DPOConfig

Method = Literal["dpo", "dpo_equal", "scdpo"]
METHODS: tuple[Method, ...] = ("dpo", "dpo_equal", "scdpo")

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    # What the code released with the paper does where it differs (its Mistral scripts). It also
    # splits off held-out pairs rather than questions, which no preset brings back.
    "released-code": {
        "sample": {"correct": 4, "wrong": 4, "error_words_in_question": True},
        "branch": {
            "schedule": {"start": 1.1, "increment": 0.1, "cap": 1.4},
            "branch_steps": "every",
            "skip_last": 1,
            "negatives": {"default": 2, "gsm8k": 2, "math": 3, "ape210k": 1},
        },
        "pairs": {"duplicates": "released-code", "truncated_is_wrong": True},
        "train": {"score_output": True},
    },
}
"""Settings that a recipe starts from; its own keys go before them."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProblemSource(_Section):
    """Where problems come from: `embedded`, or a benchmark's name and its `path`."""

    source: str = "embedded"
    path: str | None = None
    split: str = "test"
    limit: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _path_where_needed(self) -> ProblemSource:
        if self.source != "embedded" and self.path is None:
            raise ValueError(f"source {self.source!r} needs a path (a file, folder or hub name)")
        return self


class Problems(_Section):
    """Questions to sample on, and questions to evaluate on."""

    train: ProblemSource
    test: ProblemSource


class FormatChoice(_Section):
    """The solution format and its options (see `formats.get_format`)."""

    name: str = "blocks"
    system: str | None = None
    end: tuple[str, ...] | None = None
    template: str | None = None
    boundary: str | None = None


class Recipe(_Section):
    """A whole run; every stage's settings under its own key.

    `policy` is the initial policy (and the reference): `embedded`, a folder or a hub name.
    `seed` goes to every stage that has none of its own. `threads` is for torch on the CPU; rows
    are the same bit for bit only with the same number.
    """

    preset: Literal["paper", "released-code"] = "paper"
    policy: str = "embedded"
    seed: int = 0
    threads: int | None = Field(None, ge=1)
    problems: Problems
    format: FormatChoice = FormatChoice()
    engine: LocalEngineConfig = LocalEngineConfig()
    sandbox: SandboxConfig = SandboxConfig()
    grading: GradingConfig = GradingConfig()
    sample: SampleConfig = SampleConfig()
    branch: BranchConfig = BranchConfig()
    pairs: PairConfig = PairConfig()
    train: DPOConfig = DPOConfig()
    methods: tuple[Method, ...] = METHODS
    evaluate: EvaluateConfig = EvaluateConfig()


def load_recipe(name: str | Path) -> Recipe:
    """Read a recipe: a YAML file, or the name of one in the package (`embedded`, `smoke`).

    Raises RecipeError with the key, what was found and what is accepted.
    """
    text, where = _read(name)
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise RecipeError(f"{where}: a recipe is a mapping of keys, not {type(data).__name__}")
    return make_recipe(data, where)


def make_recipe(data: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Validate a recipe given as plain data; its preset and seed are filled in."""
    preset = data.get("preset", "paper")
    base = PRESETS.get(preset, {}) if isinstance(preset, str) else {}
    seed = data.get("seed", 0)
    seeds = {key: {"seed": seed} for key in ("sample", "branch", "pairs", "train")}
    try:
        return Recipe.model_validate(_merged(_merged(seeds, base), data))
    except ValidationError as error:
        raise RecipeError(f"{where}: {explain(error, Recipe)}") from error


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing wrong in one line: the key, what was found, what is accepted."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "(top)"
    if first["type"] == "extra_forbidden":
        known = ", ".join(_known_keys(model, first["loc"][:-1]))
        return f"unknown key {key!r}; known here: {known}"
    if first["type"] == "missing":
        return f"key {key!r} is missing"
    message = re.sub(r"^Value error, ", "", first["msg"])
    return f"{key}: {message[0].lower()}{message[1:]} (found {first['input']!r})"


def _known_keys(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        field = model.model_fields.get(str(part))
        inner = getattr(field, "annotation", None)
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return sorted(model.model_fields)


def _read(name: str | Path) -> tuple[str, str]:
    path = Path(name)
    packaged = resources.files("scdpo") / "recipes" / f"{name}.yaml"
    if not path.suffix and packaged.is_file():
        return packaged.read_text(encoding="utf-8"), f"recipe {name}"
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except FileNotFoundError as error:
        folder = resources.files("scdpo") / "recipes"
        names = sorted(f.name.removesuffix(".yaml") for f in folder.iterdir())
        known = ", ".join(n for n in names if n not in ("embedded-policy", "__init__.py"))
        raise RecipeError(f"{path}: no such recipe (in the package: {known})") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from error


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, Mapping):
            merged[key] = _merged(below, value)
        else:
            merged[key] = value
    return merged
