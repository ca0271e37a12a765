"""A recipe: one YAML file that defines everything a run does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from scdpo.engines import LocalEngineConfig
from scdpo.engines.registry import engine_kind
from scdpo.errors import InputError, RecipeError
from scdpo.errors.validation import explain
from scdpo.evaluation import EvaluateConfig
from scdpo.formats import ChatTemplate, checked_options, get_format
from scdpo.grading import GradingConfig
from scdpo.pairs import PairConfig
from scdpo.pipeline.changes import Changes, before_presets, is_about, with_changes
from scdpo.pipeline.planning.config import PlanConfig
from scdpo.pipeline.recipe_files import read_yaml as read_yaml
from scdpo.pipeline.sft_settings import SFTSettings
from scdpo.policies import EMBEDDED as EMBEDDED_POLICY
from scdpo.problems import BENCHMARKS, EMBEDDED, EmbeddedSplit, load_problems
from scdpo.records import Problem
from scdpo.sampling import BranchConfig, SampleConfig
from scdpo.sampling.branching import PARALLEL_REPLAYS
from scdpo.sandbox import SandboxConfig
from scdpo.training.dpo_config import DPOConfig

Part = Literal["train", "test", "validation"]
Method = Literal["dpo", "dpo_equal", "scdpo"]
METHODS: tuple[Method, ...] = ("dpo", "dpo_equal", "scdpo")

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    # Where the code released with the paper (its Mistral scripts) differs from the paper. It also
    # holds out pairs rather than questions, which no preset reproduces.
    "released-code": {
        "sample": {"correct": 4, "wrong": 4, "error_words_in_question": True},
        "branch": {
            "schedule": {"start": 1.1, "increment": 0.1, "cap": 1.4},
            "branch_steps": "every",
            "skip_last": 1,
            "negatives": {"default": 2, "gsm8k": 2, "math": 3, "ape210k": 1},
        },
        "truncated_is_wrong": True,
        "pairs": {"duplicates": "released-code"},
        "train": {"score_output": True},
    },
}
"""Settings that a recipe starts from; its own keys override them."""
SHARED: dict[str, tuple[Any, tuple[str, ...]]] = {
    "seed": (0, ("sample", "branch", "pairs", "train", "sft")),
    "truncated_is_wrong": (False, ("sample", "branch", "pairs")),
}
"""Recipe keys that apply to all of the listed sections, with their defaults."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProblemSource(_Section):
    """Where problems come from (see `scdpo.load_problems`)."""

    source: str = Field(EMBEDDED, description="A benchmark's name, or `embedded`.")
    path: str | None = Field(
        None, description="A file, a folder, or a data set on the Hugging Face hub."
    )
    split: str = Field("test", description="The split to read, such as `train` or `test`.")
    limit: int | None = Field(None, ge=1, description="Read at most this many problems.")
    offset: int | None = Field(
        None, ge=0, description="Skip this many problems first, such as those used for SFT."
    )
    ids: tuple[str, ...] | str | None = Field(
        None,
        description="Take only the problems with these ids: a list, or a file with an id a line or "
        "with JSONL rows of problems or solutions (or a folder of such, as `RUN/solutions`).",
    )

    @model_validator(mode="after")
    def _source_is_known(self) -> ProblemSource:
        if self.source != EMBEDDED and self.source not in BENCHMARKS:
            raise ValueError(
                f"unknown source {self.source!r}; known: {EMBEDDED}, {_list(BENCHMARKS)}"
            )
        if self.source == EMBEDDED and self.split not in get_args(EmbeddedSplit):
            raise ValueError(
                f"split {self.split!r}: {EMBEDDED} has {_list(get_args(EmbeddedSplit))}"
            )
        if (self.source == EMBEDDED) != (self.path is None):
            wanted = "takes no path" if self.path else "needs a path (a file, folder or hub name)"
            raise ValueError(f"source {self.source!r} {wanted}")
        return self

    def load(self) -> list[Problem]:
        """The problems themselves. Raises InputError, DataError and MissingDependency."""
        return load_problems(
            self.source,
            self.path,
            split=self.split,
            limit=self.limit,
            offset=self.offset,
            ids=self.ids,
        )


def _how_many(sources: object) -> str:
    # In brackets, as pydantic writes types in the paths of its errors, so that `explain` leaves
    # them out.
    return "[several]" if isinstance(sources, (list, tuple)) else "[one]"


ProblemSources: TypeAlias = Annotated[
    Annotated[ProblemSource, Tag("[one]")] | Annotated[tuple[ProblemSource, ...], Tag("[several]")],
    Discriminator(_how_many),
]
"""A source of problems, or a list of them."""


class Problems(_Section):
    """Questions to sample on, and questions to evaluate on: one source, or a list of several."""

    train: ProblemSources = Field(description="Questions to sample solutions for.")
    test: ProblemSources = Field(description="Questions to evaluate policies on.")
    validation: ProblemSources | None = Field(
        None, description="Questions to choose an epoch of SFT on (`sft.keep_best`)."
    )

    @field_validator("train", "test", "validation")
    @classmethod
    def _some(cls, sources: ProblemSource | tuple[ProblemSource, ...] | None) -> object:
        if sources == ():
            raise ValueError("the list of sources is empty")
        return sources

    def sources(self, part: Part) -> tuple[ProblemSource, ...]:
        """The sources of a part, in their order."""
        sources: ProblemSource | tuple[ProblemSource, ...] | None = getattr(self, part)
        return (sources,) if isinstance(sources, ProblemSource) else sources or ()


class FormatChoice(_Section):
    """The solution format and its options (see `formats.policy_format`)."""

    name: str = Field("blocks", description="`blocks`, `fenced` or `plain`.")
    system: str | None = Field(
        None,
        description="System prompt; an empty one omits the system turn. Default: the format's or "
        "the chat template's own.",
    )
    chat_template: ChatTemplate | None = Field(
        None,
        description="`auto`: write the prompt with the chat template of the policy's tokenizer "
        "(`fenced`, `plain`).",
    )
    end: tuple[str, ...] | None = Field(
        None,
        description="A string that ends a solution, or several, such as `<|im_end|>`; default: the "
        "end of the chat template's turn, else the tokenizer's EOS (`blocks`: its own marker).",
    )
    template: str | None = Field(
        None,
        description="Prompt that contains `{question}` (`fenced`, `plain`); with `chat_template`, "
        "what the user's turn says.",
    )
    boundary: str | None = Field(
        None, description="String that ends a step (`plain`): a line break or an empty line."
    )

    @field_validator("end", mode="before")
    @classmethod
    def _one_end(cls, end: object) -> object:
        return (end,) if isinstance(end, str) else end

    @model_validator(mode="after")
    def _can_be_made(self) -> FormatChoice:
        try:
            checked_options(self.name, chat_template=self.chat_template)
            get_format(**self.model_dump(exclude={"chat_template"}))
        except InputError as error:
            raise ValueError(str(error)) from error
        return self


class Recipe(_Section):
    """A whole run; the settings of each stage are under its own key."""

    preset: Literal["paper", "released-code"] = Field(
        "paper", description="Settings that the recipe starts from; its own keys override them."
    )
    policy: str = Field(
        EMBEDDED_POLICY,
        description="The initial policy, also used as the reference policy: `embedded`, a folder "
        "or a hub name.",
    )
    seed: int = Field(
        0, ge=0, lt=2**31, description="Seed of every stage that does not set its own."
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="CPU threads for torch; rows are bit-identical only with the same number.",
    )
    truncated_is_wrong: bool = Field(
        False,
        description="Count truncated and unanswered solutions as wrong, as the released code "
        "does, in every stage that does not set its own.",
    )
    problems: Problems = Field(description="The problems of the run.")
    format: FormatChoice = Field(FormatChoice(), description="How the policy writes solutions.")
    engine: LocalEngineConfig = Field(
        LocalEngineConfig(),
        description="How completions are computed; `name` selects the kind of engine, and the "
        "other keys are its settings.",
    )
    sandbox: SandboxConfig = Field(SandboxConfig(), description="Where programs are executed.")
    grading: GradingConfig = Field(GradingConfig(), description="How answers are compared.")
    sample: SampleConfig = Field(SampleConfig(), description="Stage 1: naive solutions.")
    branch: BranchConfig = Field(BranchConfig(), description="Stage 2: step-controlled solutions.")
    pairs: PairConfig = Field(PairConfig(), description="Which solutions become pairs.")
    train: DPOConfig = Field(DPOConfig(), description="Stage 3: preference training.")
    sft: SFTSettings = Field(
        SFTSettings(), description="Supervised fine-tuning: the first stage, if it has `data`."
    )
    methods: tuple[Method, ...] = Field(
        METHODS, description="The methods that `scdpo run` trains and evaluates."
    )
    evaluate: EvaluateConfig = Field(EvaluateConfig(), description="Greedy evaluation.")
    plan: PlanConfig = Field(PlanConfig(), description="What `scdpo plan` assumes.")

    @model_validator(mode="after")
    def _validation_is_there(self) -> Recipe:
        if self.sft.keep_best and self.problems.validation is None:
            raise ValueError("sft.keep_best needs questions to choose on: problems.validation")
        return self

    @model_validator(mode="after")
    def _sessions_suffice(self) -> Recipe:
        rows = {
            "sample.rows": self.sample.rows,
            "branch.rows": self.branch.rows + PARALLEL_REPLAYS,
            "evaluate.rows": self.evaluate.rows,
        }
        for key, needed in rows.items():
            if needed > self.sandbox.max_sessions:
                raise ValueError(
                    f"{key} needs {needed} sandbox sessions at a time, more than"
                    f" sandbox.max_sessions ({self.sandbox.max_sessions})"
                )
        return self


def load_recipe(name: str | Path, changes: Changes | None = None) -> Recipe:
    """Read a recipe: a YAML file, or a packaged recipe by name (`embedded`, `smoke`).

    `changes` as for `make_recipe`. Raises RecipeError, which states the key, what was found and
    what is accepted.
    """
    data, where = read_yaml(name)
    return make_recipe(data, where, changes)


def make_recipe(
    data: Mapping[str, Any], where: str = "recipe", changes: Changes | None = None
) -> Recipe:
    """Validate a recipe given as plain data.

    Its preset and the keys that apply to several stages are filled in. `changes` are values by
    dotted key (`{"train.learning_rate": 1e-5}`) that count as if `data` said them. Raises
    RecipeError, and EngineError for an engine that cannot be loaded.
    """
    changes = changes or {}
    data = before_presets(data, changes, presets=PRESETS, shared=SHARED)
    preset = data.get("preset", "paper")
    base = PRESETS.get(preset, {}) if isinstance(preset, str) else {}
    shared: dict[str, dict[str, Any]] = {}
    for key, (default, stages) in SHARED.items():
        for stage in stages:
            shared.setdefault(stage, {})[key] = data.get(key, base.get(key, default))
    engine = data.get("engine")
    name = engine.get("name", "local") if isinstance(engine, Mapping) else "local"
    try:
        model = Recipe if name == "local" else recipe_with_engine(str(name))
        merged = _merged(_merged(shared, base, model), data, model)
        return model.model_validate(with_changes(merged, changes, model))
    except RecipeError:
        raise
    except (ValidationError, InputError) as error:
        text = explain(error, model) if isinstance(error, ValidationError) else str(error)
        at_fault = "--set" if is_about(changes, text) else where
        raise RecipeError(f"{at_fault}: {text}") from error


def recipe_with_engine(name: str) -> type[Recipe]:
    """A recipe class whose section `engine` has the settings of a registered kind of engine.

    Raises InputError for an unknown name and EngineError for a kind that cannot be loaded.
    """
    return create_model("Recipe", __base__=Recipe, engine=(engine_kind(name).config, ...))


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, with every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _section(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The model of a key whose value is a section; None for other keys."""
    field = model.model_fields.get(key)
    inner = getattr(field, "annotation", None)
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None


def _merged(
    base: Mapping[str, Any], over: Mapping[str, Any], model: type[BaseModel]
) -> dict[str, Any]:
    """`base` overridden by the keys of `over`; sections are merged key by key."""
    merged = dict(base)
    for key, value in over.items():
        section, below = _section(model, key), merged.get(key)
        if section and isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(below, value, section)
        else:
            merged[key] = value
    return merged


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
