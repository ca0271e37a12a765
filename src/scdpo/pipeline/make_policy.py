"""Make a small policy from scratch: demonstrations, tokenizer, random weights, SFT.

This is how the embedded policy was made (`recipes/embedded-policy.yaml`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from scdpo.errors import InputError, RecipeError
from scdpo.errors.validation import explain
from scdpo.formats import Format, get_format
from scdpo.formats.compose import compose
from scdpo.pipeline.changes import Changes, is_about, with_changes
from scdpo.pipeline.recipe import read_yaml
from scdpo.policies import Policy, load_policy, save_policy, state_format
from scdpo.problems import EmbeddedSplit, generate, load_embedded
from scdpo.records import Demonstration, Solution
from scdpo.store import RunFolder
from scdpo.training.fresh import FreshPolicyConfig, fresh_policy
from scdpo.training.sft_config import SFTConfig, SFTReport
from scdpo.training.supervised import examples_from_solutions, sft
from scdpo.training.tokens import solution_tokens
from scdpo.training.tree import MaskedIds
from scdpo.waiting import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PACKAGED = ("embedded-policy",)
"""The packaged settings for `make_policy`."""
CHUNK = 2000
"""Number of demonstrations tokenised together."""


class MakePolicyConfig(BaseModel):
    """How to make a policy.

    The policy learns from one of two sources. `demonstrations` is a number of worked solutions to
    generate; one in `plain_every` is written as a chain of thought, the others with code in
    `format`. `solutions` is a run folder, whose correct, finished and unflagged solutions in
    `format` are used, sampled or imported. The tokenizer is trained on the first
    `tokenizer_texts` texts. `weights` is the number format of the stored weights; the two 16-bit
    formats halve the file, by rounding after training.
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


def load_make_policy(path: Path, changes: Changes | None = None) -> MakePolicyConfig:
    """Read the settings from a YAML file or from packaged settings, with `changes` by dotted key.

    Raises RecipeError.
    """
    data, where = read_yaml(path, PACKAGED)
    changes = changes or {}
    changed = with_changes(data, changes, MakePolicyConfig)
    try:
        return MakePolicyConfig.model_validate(changed)
    except ValidationError as error:
        text = explain(error, MakePolicyConfig)
        raise RecipeError(f"{'--set' if is_about(changes, text) else where}: {text}") from error


def make_policy(config: MakePolicyConfig, out: Path, progress: Progress | None = None) -> SFTReport:
    """Make the policy and save it to `out/policy`; rerun to resume a killed training.

    Raises InputError if the run folder has no usable solutions, MissingDependency if
    demonstrations are asked for without the extra `embedded`, and StoreError if `out` holds
    another training.
    """
    policy, examples = (
        _from_demonstrations(config, config.demonstrations)
        if config.demonstrations is not None
        else _from_solutions(config)
    )
    report = sft(policy, examples, out, config=config.sft, progress=progress)
    if config.demonstrations is not None:
        state_format(Path(report.policy), {"name": config.format, "system": ""})
    if config.weights != "fp32":
        store_weights(Path(report.policy), config.weights)
    return report


def _from_demonstrations(config: MakePolicyConfig, size: int) -> tuple[Policy, list[MaskedIds]]:
    """A fresh policy, and examples made from generated worked solutions."""
    code = get_format(config.format, system="")
    written = list(_in_formats(_demonstrations(size), code, config.plain_every))
    sample = ("".join(texts(*pair)) for pair in written[: config.tokenizer_texts])
    policy = fresh_policy(sample, code.special_tokens, code.end[0], config.policy)
    examples: list[MaskedIds] = []
    for start in range(0, len(written), CHUNK):
        examples += tokenise(
            written[start : start + CHUNK], policy.tokenizer, score_output=config.sft.score_output
        )
    return policy, examples


def _from_solutions(config: MakePolicyConfig) -> tuple[Policy, list[MaskedIds]]:
    """A fresh policy, and examples made from the solutions of a run."""
    assert config.solutions is not None
    code = get_format(config.format)
    with RunFolder(config.solutions, write=False) as run:
        names = sorted(path.parent.name for path in run.path.glob("imports/*/manifest.json"))
        stages = [run.stage("solutions"), *(run.stage(f"imports/{name}") for name in names)]
        rows = [s for stage in stages if stage.done for s in stage.rows(Solution)]
    solutions = [s for s in rows if s.format == config.format]
    if not solutions:
        raise InputError(f"{config.solutions}: no solutions in format {config.format!r}")
    sample = (s.prompt + s.text for s in solutions[: config.tokenizer_texts])
    policy = fresh_policy(sample, code.special_tokens, code.end[0], config.policy)
    # Token ids of another policy mean nothing to this tokenizer.
    texts_only = [_without_ids(s) for s in solutions]
    return policy, examples_from_solutions(
        texts_only, policy.encode, score_output=config.sft.score_output
    )


def _without_ids(solution: Solution) -> Solution:
    no_ids: dict[str, object] = {"token_ids": (), "host_ids": (), "logps": ""}
    steps = tuple(step.model_copy(update=no_ids) for step in solution.steps)
    return solution.model_copy(update={"prompt_ids": (), "steps": steps})


def _demonstrations(size: int) -> list[Demonstration]:
    """Demonstrations whose questions are not among the embedded problems."""
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
    """Rewrite a policy folder's weights, rounded to a number format.

    By default, `load_policy` converts them to fp32, whatever format they are stored in.
    """
    import torch

    policy = load_policy(path, device="cpu")
    torch.nn.Module.to(policy.model, torch.float16 if weights == "fp16" else torch.bfloat16)
    save_policy(policy, path)


def texts(format: Format, demonstration: Demonstration) -> list[str]:
    """The texts of a demonstration that are tokenised separately: its prompt and step parts."""
    steps = compose(demonstration.steps, format)
    parts = [part for step in steps for part in (step.text, step.host_text) if part]
    return [format.prompt(demonstration.problem.question), *parts]


def tokenise(
    demonstrations: list[tuple[Format, Demonstration]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    score_output: bool = False,
) -> list[MaskedIds]:
    """Token ids and loss masks of demonstrations, with a single call of the tokenizer."""
    parts = sorted({part for pair in demonstrations for part in texts(*pair)})
    encoded = tokenizer(parts, add_special_tokens=False)["input_ids"]
    ids = dict(zip(parts, encoded, strict=True))

    def encode(text: str, /, *, start: bool = False) -> list[int]:
        tokens: list[int] = ids[text]
        return tokens

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
