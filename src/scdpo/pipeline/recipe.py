"""A recipe: one YAML file that says everything a run does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from scdpo.engines.local import LocalEngineConfig
from scdpo.errors import InputError, RecipeError
from scdpo.evaluation.greedy import EvaluateConfig
from scdpo.formats import get_format
from scdpo.grading import GradingConfig
from scdpo.pairs import PairConfig
from scdpo.policies import EMBEDDED
from scdpo.problems.benchmarks import BENCHMARKS
from scdpo.problems.embedded import EmbeddedSplit
from scdpo.sampling.branch import WALKS
from scdpo.sampling.config import BranchConfig, SampleConfig
from scdpo.sandbox import SandboxConfig
from scdpo.training.dpo_config import DPOConfig
from scdpo.training.sft_config import SFTConfig
from scdpo.validation import explain

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
    """Where problems come from: `embedded`, or a benchmark's name and its `path`.

    `path` is a file, a folder or a data set on the Hugging Face hub (see
    `problems.benchmarks.load_problems`).
    """

    source: str = EMBEDDED
    path: str | None = None
    split: str = "test"
    limit: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _source_is_known(self) -> ProblemSource:
        if self.source != EMBEDDED and self.source not in BENCHMARKS:
            raise ValueError(f"source {self.source!r}: known are {EMBEDDED}, {_list(BENCHMARKS)}")
        if self.source == EMBEDDED and self.split not in get_args(EmbeddedSplit):
            raise ValueError(
                f"split {self.split!r}: {EMBEDDED} has {_list(get_args(EmbeddedSplit))}"
            )
        if (self.source == EMBEDDED) != (self.path is None):
            wanted = "takes no path" if self.path else "needs a path (a file, folder or hub name)"
            raise ValueError(f"source {self.source!r} {wanted}")
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

    @model_validator(mode="after")
    def _can_be_made(self) -> FormatChoice:
        try:
            get_format(**self.model_dump())
        except InputError as error:
            raise ValueError(str(error)) from error
        return self


class Recipe(_Section):
    """A whole run; every stage's settings under its own key.

    `policy` is the initial policy (and the reference): `embedded`, a folder or a hub name.
    `seed` goes to every stage that has none of its own. `threads` is for torch on the CPU; rows
    are the same bit for bit only with the same number.
    """

    preset: Literal["paper", "released-code"] = "paper"
    policy: str = "embedded"
    seed: int = Field(0, ge=0, lt=2**31)
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
    sft: SFTConfig = SFTConfig()
    methods: tuple[Method, ...] = METHODS
    evaluate: EvaluateConfig = EvaluateConfig()

    @model_validator(mode="after")
    def _sessions_suffice(self) -> Recipe:
        rows = {
            "sample.rows": self.sample.rows,
            "branch.rows": self.branch.rows + WALKS,
            "evaluate.rows": self.evaluate.rows,
        }
        for key, needed in rows.items():
            if needed > self.sandbox.max_sessions:
                raise ValueError(
                    f"{key} needs {needed} sandbox sessions at a time, more than"
                    f" sandbox.max_sessions {self.sandbox.max_sessions}"
                )
        return self


def load_recipe(name: str | Path) -> Recipe:
    """Read a recipe: a YAML file, or the name of one in the package (`embedded`, `smoke`).

    Raises RecipeError with the key, what was found and what is accepted.
    """
    data, where = read_yaml(name)
    return make_recipe(data, where)


def make_recipe(data: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Validate a recipe given as plain data; its preset and seed are filled in."""
    preset = data.get("preset", "paper")
    base = PRESETS.get(preset, {}) if isinstance(preset, str) else {}
    seed = data.get("seed", 0)
    seeds = {key: {"seed": seed} for key in ("sample", "branch", "pairs", "train", "sft")}
    try:
        return Recipe.model_validate(_merged(_merged(seeds, base, Recipe), data, Recipe))
    except ValidationError as error:
        raise RecipeError(f"{where}: {explain(error, Recipe)}") from error


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read_yaml(name: str | Path) -> tuple[dict[str, Any], str]:
    """The mapping in a YAML file or in a recipe of the package, and how messages call it.

    Raises RecipeError for a file that cannot be read, is not YAML or is not a mapping.
    """
    text, where = _read(name)
    try:
        data = yaml.load(text, _UniqueKeys)  # a safe loader
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        found = "nothing" if data is None else type(data).__name__
        raise RecipeError(f"{where}: a mapping of keys is expected, found {found}")
    return data, where


class _UniqueKeys(yaml.SafeLoader):
    """A section that is given twice would lose the first one's settings without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            problem = f"key {twice!r} is given twice"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep)


def _section(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The model of a key whose value is a section of further keys."""
    field = model.model_fields.get(key)
    inner = getattr(field, "annotation", None)
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None


def _merged(
    base: Mapping[str, Any], over: Mapping[str, Any], model: type[BaseModel]
) -> dict[str, Any]:
    """`base` with the keys of `over` in their place; sections are merged key by key."""
    merged = dict(base)
    for key, value in over.items():
        section, below = _section(model, key), merged.get(key)
        if section and isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(below, value, section)
        else:
            merged[key] = value
    return merged


def _read(name: str | Path) -> tuple[str, str]:
    path = Path(name)
    folder = resources.files("scdpo") / "recipes"
    packaged = folder / f"{name}.yaml"
    if not path.suffix and packaged.is_file():
        return packaged.read_text(encoding="utf-8"), f"recipe {name}"
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except FileNotFoundError as error:
        names = _list(sorted(file.name.removesuffix(".yaml") for file in folder.iterdir()))
        raise RecipeError(f"{path}: no such recipe file (in the package: {names})") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 (byte {error.start + 1})") from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
