"""Make a small policy from nothing: demonstrations, tokenizer, random weights, SFT.

This is how the embedded policy was made (`recipes/embedded-policy.yaml`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from scdpo.errors import InputError, RecipeError
from scdpo.formats import Format, get_format
from scdpo.formats.compose import compose
from scdpo.pipeline.recipe import read_yaml
from scdpo.policies import Policy, load_policy, save_policy
from scdpo.problems import EmbeddedSplit, generate, load_embedded
from scdpo.records import Demonstration, Solution
from scdpo.store import RunFolder
from scdpo.training.checkpoints import Progress
from scdpo.training.fresh import FreshPolicyConfig, fresh_policy
from scdpo.training.sft_config import SFTConfig, SFTReport
from scdpo.training.supervised import examples_from_solutions, sft
from scdpo.training.tokens import solution_tokens
from scdpo.training.tree import MaskedIds
from scdpo.validation import explain

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PACKAGED = ("embedded-policy",)
"""The settings for this that ship in the package."""
CHUNK = 2000
"""Demonstrations that are tokenised together."""


class MakePolicyConfig(BaseModel):
    """How to make a policy.

    It learns from `demonstrations`, the number of worked solutions drawn, of which one in
    `plain_every` is written as a chain of thought and the others with code in `format`; or from
    the correct, finished solutions without a flag in the run folder `solutions`, sampled or
    imported, which are of `format`. The tokenizer is trained on the first `tokenizer_texts` of
    them. `weights` is the number format that the policy is stored
    in: the two short ones make half the file, rounded after the training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    demonstrations: int | None = Field(None, ge=1)
    solutions: Path | None = None
    plain_every: int | None = Field(None, ge=2)
    format: str = "blocks"
    tokenizer_texts: int = Field(6000, ge=1)
    weights: Literal["fp32", "fp16", "bf16"] = "fp32"
    policy: FreshPolicyConfig = FreshPolicyConfig()
    sft: SFTConfig = SFTConfig()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.demonstrations is None) == (self.solutions is None):
            raise ValueError("give either demonstrations (a number) or solutions (a run folder)")
        return self


def load_make_policy(path: Path) -> MakePolicyConfig:
    """Read the settings from a YAML file, or a recipe of the package. Raises RecipeError."""
    data, where = read_yaml(path, PACKAGED)
    try:
        return MakePolicyConfig.model_validate(data)
    except ValidationError as error:
        raise RecipeError(f"{where}: {explain(error, MakePolicyConfig)}") from error


def make_policy(config: MakePolicyConfig, out: Path, progress: Progress | None = None) -> SFTReport:
    """Make the policy and save it to `out/policy`; a killed training goes on when called again.

    Raises MissingDependency without the extra `embedded`, StoreError when `out` holds another
    training.
    """
    policy, examples = (
        _from_demonstrations(config, config.demonstrations)
        if config.demonstrations is not None
        else _from_solutions(config)
    )
    report = sft(policy, examples, out, config=config.sft, progress=progress)
    if config.weights != "fp32":
        store_weights(Path(report.policy), config.weights)
    return report


def _from_demonstrations(config: MakePolicyConfig, size: int) -> tuple[Policy, list[MaskedIds]]:
    """A fresh policy and its examples from generated worked solutions."""
    code = get_format(config.format, system="")
    written = list(_in_formats(_demonstrations(size), code, config.plain_every))
    sample = ("".join(texts(*one)) for one in written[: config.tokenizer_texts])
    policy = fresh_policy(sample, code.special_tokens, code.end[0], config.policy)
    examples: list[MaskedIds] = []
    for start in range(0, len(written), CHUNK):
        examples += tokenise(
            written[start : start + CHUNK], policy.tokenizer, score_output=config.sft.score_output
        )
    return policy, examples


def _from_solutions(config: MakePolicyConfig) -> tuple[Policy, list[MaskedIds]]:
    """A fresh policy and its examples from the solutions of a run."""
    assert config.solutions is not None
    code = get_format(config.format)
    with RunFolder(config.solutions, write=False) as run:
        names = sorted(path.parent.name for path in run.path.glob("imports/*/manifest.json"))
        stages = [run.stage("solutions"), *(run.stage(f"imports/{name}") for name in names)]
        rows = [s for stage in stages if stage.done for s in stage.rows(Solution)]
    solutions = [s for s in rows if s.format == config.format]
    if not solutions:
        raise InputError(f"{config.solutions}: no solutions in format {config.format!r} there")
    sample = (s.prompt + s.text for s in solutions[: config.tokenizer_texts])
    policy = fresh_policy(sample, code.special_tokens, code.end[0], config.policy)
    # Ids of another policy's tokenizer mean nothing to this one.
    texts_only = [_without_ids(s) for s in solutions]
    return policy, examples_from_solutions(
        texts_only, policy.encode, score_output=config.sft.score_output
    )


def _without_ids(solution: Solution) -> Solution:
    no_ids: dict[str, tuple[int, ...]] = {"token_ids": (), "host_ids": ()}
    steps = tuple(step.model_copy(update=no_ids) for step in solution.steps)
    return solution.model_copy(update={"prompt_ids": (), "steps": steps})


def _demonstrations(size: int) -> list[Demonstration]:
    """Demonstrations none of whose questions is among the embedded problems."""
    shipped: set[str] = set()
    for split in get_args(EmbeddedSplit):
        shipped |= {problem.question for problem in load_embedded(split)}
    return list(generate("demonstrations", size, skip=shipped))


def _in_formats(
    demonstrations: list[Demonstration], code: Format, plain_every: int | None
) -> Iterator[tuple[Format, Demonstration]]:
    plain = get_format("plain")
    for index, demonstration in enumerate(demonstrations):
        is_plain = plain_every is not None and index % plain_every == 0
        yield (plain if is_plain else code), demonstration


def store_weights(path: Path, weights: Literal["fp16", "bf16"]) -> None:
    """Write a policy folder's weights again, rounded to a number format.

    `load_policy` computes in fp32 whatever format they are stored in.
    """
    import torch

    policy = load_policy(path, device="cpu")
    torch.nn.Module.to(policy.model, torch.float16 if weights == "fp16" else torch.bfloat16)
    save_policy(policy, path)


def texts(format: Format, demonstration: Demonstration) -> list[str]:
    """Prompt and steps of a demonstration, each text that is tokenised on its own."""
    steps = compose(demonstration.steps, format)
    parts = [part for step in steps for part in (step.text, step.host_text) if part]
    return [format.prompt(demonstration.problem.question), *parts]


def tokenise(
    demonstrations: list[tuple[Format, Demonstration]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    score_output: bool = False,
) -> list[MaskedIds]:
    """Token ids and loss masks of demonstrations (one call of the tokenizer for all)."""
    parts = sorted({part for one in demonstrations for part in texts(*one)})
    encoded = tokenizer(parts, add_special_tokens=False)["input_ids"]
    ids = dict(zip(parts, encoded, strict=True))

    def encode(text: str, /, *, start: bool = False) -> list[int]:
        found: list[int] = ids[text]
        return found

    return [
        solution_tokens(
            format.prompt(demonstration.problem.question),
            (),
            compose(demonstration.steps, format),
            encode,
            score_output,
        )
        for format, demonstration in demonstrations
    ]
