"""Make a small policy from nothing: demonstrations, tokenizer, random weights, SFT.

This is how the embedded policy was made (`recipes/embedded-policy.yaml`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scdpo.errors import RecipeError
from scdpo.formats import Format, get_format
from scdpo.formats.compose import compose
from scdpo.problems.embedded import EmbeddedSplit, generate, load_embedded
from scdpo.recipe import explain
from scdpo.records import Demonstration, Problem
from scdpo.training.fresh import FreshPolicyConfig, fresh_policy
from scdpo.training.sft import Example, SFTConfig, SFTReport, train_sft
from scdpo.training.tokens import solution_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK = 2000
"""Demonstrations that are tokenised together."""


class MakePolicyConfig(BaseModel):
    """How to make a policy.

    `demonstrations` is the number of worked solutions drawn; one in `plain_every` of them is
    written as a chain of thought, the others with code in `format`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    demonstrations: int = Field(ge=1)
    plain_every: int | None = Field(None, ge=2)
    format: str = "blocks"
    tokenizer_texts: int = Field(6000, ge=1)
    policy: FreshPolicyConfig = FreshPolicyConfig()
    sft: SFTConfig = SFTConfig()


def load_make_policy(path: Path) -> MakePolicyConfig:
    """Read the settings from a YAML file. Raises RecipeError."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        return MakePolicyConfig.model_validate(data)
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such file") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise RecipeError(f"{path}: {explain(error, MakePolicyConfig)}") from error


def make_policy(
    config: MakePolicyConfig, out: Path, progress: Callable[[int, int], None] | None = None
) -> SFTReport:
    """Make the policy and save it to `out/policy`; a killed training goes on when called again.

    Raises MissingDependency without the extra `embedded`.
    """
    code = get_format(config.format, system="")
    plain = get_format("plain")
    shipped: list[Problem] = []
    for split in get_args(EmbeddedSplit):
        shipped += load_embedded(split)
    skip = {problem.question for problem in shipped}
    demonstrations = list(generate("demonstrations", config.demonstrations, skip=skip))

    def written(start: int, stop: int) -> Iterator[tuple[Format, Demonstration]]:
        for index, demonstration in enumerate(demonstrations[start:stop], start):
            is_plain = config.plain_every is not None and index % config.plain_every == 0
            yield (plain if is_plain else code), demonstration

    policy = fresh_policy(
        ("".join(texts(*one)) for one in written(0, config.tokenizer_texts)),
        code.special_tokens,
        code.end[0],
        config.policy,
    )
    examples: list[Example] = []
    for start in range(0, len(demonstrations), CHUNK):
        examples += tokenise(list(written(start, start + CHUNK)), policy.tokenizer)
    return train_sft(policy, examples, config.sft, out, progress=progress)


def texts(form: Format, demonstration: Demonstration) -> list[str]:
    """Prompt and steps of a demonstration, each text that is tokenised on its own."""
    steps = compose(demonstration.steps, form)
    parts = [part for step in steps for part in (step.text, step.host_text) if part]
    return [form.prompt(demonstration.problem.question), *parts]


def tokenise(
    demonstrations: list[tuple[Format, Demonstration]], tokenizer: PreTrainedTokenizerBase
) -> list[Example]:
    """Token ids and loss masks of demonstrations (one call of the tokenizer for all)."""
    parts = sorted({part for one in demonstrations for part in texts(*one)})
    encoded = tokenizer(parts, add_special_tokens=False)["input_ids"]
    ids = dict(zip(parts, encoded, strict=True))

    def encode(text: str, /, *, start: bool = False) -> list[int]:
        found: list[int] = ids[text]
        return found

    return [
        solution_tokens(
            form.prompt(demonstration.problem.question),
            (),
            compose(demonstration.steps, form),
            encode,
        )
        for form, demonstration in demonstrations
    ]
