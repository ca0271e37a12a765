"""Supervised fine-tuning on a user's questions and solutions, in a run or on its own.

OUT/demonstrations    one row for every row of the data: the solution, or why it is not used
OUT/policy            the trained policy; `training.checkpoints` lists the files beside it

In a run, `demonstrations` and `sft` are stages, and the policy is RUN/sft/policy.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from scdpo.errors import InputError
from scdpo.formats import Format, get_format
from scdpo.pipeline.changes import Changes
from scdpo.pipeline.provenance import keep_environment, made_anything, settings
from scdpo.pipeline.recipe import Recipe, make_recipe, read_yaml
from scdpo.pipeline.services import Services, Watcher, append_all, begun_when_reported
from scdpo.pipeline.validation import choose_epoch
from scdpo.policies import (
    add_markers,
    add_tokens,
    encode_text,
    load_config,
    load_policy,
    load_tokenizer,
    policy_hash,
    policy_path,
    save_policy,
    state_format,
)
from scdpo.records import Solution
from scdpo.sampling.demonstrations import UNUSABLE, count_demonstrations, demonstrations
from scdpo.sampling.teaching import SFTData, data_file, read_taught
from scdpo.seeds import uniform
from scdpo.store import RunFolder, Stage, file_hash
from scdpo.training.processes import is_main_process, wait_for_all
from scdpo.training.sft_config import SFTReport

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEMONSTRATIONS = "demonstrations"
"""The stage of the data's rows."""
SFT_STAGE = "sft"
"""The stage of a run's fine-tuned initial policy."""
_NO_PROBLEMS = {"train": {"source": "embedded"}, "test": {"source": "embedded"}}
"""Placeholder: a training on its own does not read a recipe's problems."""


def data_inputs(recipe: Recipe) -> dict[str, str]:
    """What the demonstrations are made of, with hashes: the data, and the policy's tokenizer."""
    data = _data_of(recipe)
    file = data_file(data)
    read = {data.path: "hub"} if file is None else {file.name: file_hash(file)}
    return read | {"policy": policy_hash(recipe.policy)}


def demonstrate(stage: Stage, recipe: Recipe, services: Services, watcher: Watcher) -> None:
    """Fill the open stage with the rows of the recipe's data, and say what can be used.

    Raises DataError as `read_taught` does, and InputError if no row can be used.
    """
    data = _data_of(recipe)
    if not stage.done:
        format = initial_format(recipe, services)
        taught = read_taught(data, format)
        sandbox = services.sandbox() if data.execute else None
        chunks = demonstrations(
            taught,
            data,
            format,
            services.grader(),
            sandbox,
            existing=stage.ids(),
            progress=watcher.progress("read the data"),
        )
        append_all(stage, chunks)
        if systems := sum(one.system not in ("", format.prompt("")) for one in taught):
            watcher.note(
                "data",
                f"{systems} rows have a system text, which is not used:"
                " the recipe's format gives the prompt",
            )
        stage.finish(count_demonstrations(stage.rows(Solution)))
    assert stage.manifest is not None
    counts = stage.manifest.counts
    said = said_of(counts)
    watcher.note("data", f"{data.path}: {said}")
    if not counts["used"]:
        raise InputError(f"{data.path}: no row can be learnt from: {said}")


def say_what_is_trained_on(stage: Stage, recipe: Recipe, watcher: Watcher) -> None:
    """Say how many of the usable rows a training will take and, mostly for their length, not.

    Only the policy's tokenizer and config are read, not its weights. Raises PolicyError.
    """
    from scdpo.training.examples import examples_of, usable
    from scdpo.training.loading import context_of

    tokenizer, training = _tokenizer_to_train(recipe), recipe.sft.training
    rows, held = _split(list(stage.rows(Solution)), recipe)
    encode = partial(encode_text, tokenizer)
    found = usable(
        examples_of(rows, encode, score_output=training.score_output),
        max_length=training.max_length,
        context=context_of(load_config(recipe.policy)),
    )
    watcher.note("sft", found.text + f"; {len(held)} held out" * bool(held))


def initial_format(recipe: Recipe, services: Services) -> Format:
    """The format in which the initial policy of a run writes.

    Raises PolicyError, and InputError for a format that the policy cannot write.
    """
    if not recipe.sft.add_tokens:
        return services.format(recipe.policy)
    return services.format_with(_tokenizer_to_train(recipe))


def said_of(counts: Mapping[str, int | float]) -> str:
    """The counts of demonstrations in one line: how many are used, and why others are not."""
    used = f"{counts['used']} of {counts['rows']} rows used"
    reasons = {k.removeprefix(UNUSABLE): n for k, n in counts.items() if k.startswith(UNUSABLE)}
    most = sorted(reasons.items(), key=lambda item: -item[1])
    return "; ".join([used, *(f"{n} {reason}" for reason, n in most)])


def fine_tune(
    rows: Sequence[Solution], recipe: Recipe, out: Path, services: Services, watcher: Watcher
) -> SFTReport:
    """Train the recipe's policy on the usable rows that are not held out; writes to `out`."""
    from scdpo.training.supervised import sft

    train, heldout = _split(rows, recipe)
    services.device()
    policy, new_tokens = _starting_policy(recipe, out, watcher)
    report = sft(
        policy,
        train,
        out,
        config=recipe.sft.training,
        heldout=heldout,
        new_tokens=new_tokens,
        keep_epochs=recipe.sft.keep_best,
        progress=begun_when_reported(watcher, "sft"),
        note=lambda text: watcher.note("sft", text),
    )
    if is_main_process():
        shutil.rmtree(out / "initial", ignore_errors=True)
        state_format(out / "policy", recipe.format.model_dump(mode="json"))
        if report.heldout:
            losses = " → ".join(f"{loss.loss:.3f}" for loss in report.heldout)
            watcher.note("sft", f"loss on {report.n_heldout} held-out solutions: {losses}")
    return report


def _tokenizer_to_train(recipe: Recipe) -> PreTrainedTokenizerBase:
    """The tokenizer of the policy that training starts from."""
    tokenizer = load_tokenizer(recipe.policy)
    if recipe.sft.add_tokens:
        add_markers(tokenizer, _markers(recipe))
    return tokenizer


def _starting_policy(recipe: Recipe, out: Path, watcher: Watcher) -> tuple[str, tuple[int, ...]]:
    """The policy that training starts from, and the ids of the tokens added to it.

    With added tokens it is a folder of its own, `out/initial`, which is deleted after the training.
    """
    if not recipe.sft.add_tokens:
        return policy_path(recipe.policy), ()
    tokenizer = load_tokenizer(recipe.policy)
    added = add_markers(tokenizer, _markers(recipe))
    if not added:
        return policy_path(recipe.policy), ()
    initial = out / "initial"
    if is_main_process() and not (initial / "config.json").exists():
        watcher.note("tokens", f"{len(added)} added: {', '.join(added)}")
        policy = load_policy(recipe.policy, device="cpu")
        add_tokens(policy, added)
        half = out / ".initial"
        save_policy(policy, half)
        half.rename(initial)
    wait_for_all()
    ids = tokenizer.convert_tokens_to_ids(added)
    assert isinstance(ids, list)
    return str(initial), tuple(ids)


def _markers(recipe: Recipe) -> tuple[str, ...]:
    """The markers of the recipe's format that have to be single tokens."""
    choice = recipe.format
    if choice.name == "blocks":
        return get_format("blocks", end=choice.end).special_tokens
    return tuple(mark for mark in choice.end or () if not re.search(r"\s", mark))


def _split(rows: Iterable[Solution], recipe: Recipe) -> tuple[list[Solution], list[Solution]]:
    """The usable rows to train on, and those held out: all solutions of some questions."""
    config = recipe.sft
    parts: tuple[list[Solution], list[Solution]] = ([], [])
    for row in rows:
        if row.side() == "chosen":
            held = uniform(config.seed, "sft heldout", row.problem_id) < config.heldout_share
            parts[held].append(row)
    return parts


def _data_of(recipe: Recipe) -> SFTData:
    if recipe.sft.data is None:
        raise InputError(
            "the recipe has no data to fine-tune on; give it a section sft.data with path and"
            " layout, or use --data"
        )
    return recipe.sft.data


def fine_tuning_recipe(
    recipe: str | None,
    policy: str | None = None,
    data: str | None = None,
    layout: str | None = None,
    changes: Changes | None = None,
) -> Recipe:
    """The settings for fine-tuning on its own, from a recipe whose problems may be missing.

    `policy`, `data` (the path) and `layout` override the recipe, and `changes` all of it. Raises
    RecipeError, and InputError if there is no recipe, policy or data.
    """
    if recipe is None:
        raise InputError(
            "--recipe is needed: a YAML file whose section format says how the policy writes"
            " solutions; its section sft has the settings of the training"
        )
    found, where = read_yaml(recipe)
    problems = found.get("problems") or {}
    if isinstance(problems, dict):
        problems = _NO_PROBLEMS | problems
    settings: dict[str, Any] = found | {"problems": problems}
    if policy is not None:
        settings["policy"] = policy
    section = settings.get("sft") or {}
    if not isinstance(section, dict):
        return make_recipe(settings, where, changes)
    given = {"path": data, "layout": layout}
    given = {key: value for key, value in given.items() if value is not None}
    below = section.get("data") or {}
    if given and isinstance(below, dict):
        section = section | {"data": below | given}
    settings["sft"] = section
    made = make_recipe(settings, where, changes)
    _data_of(made)
    return made


def _delete(out: Path) -> None:
    """Delete what a training of this kind has written to a folder."""
    for name in (DEMONSTRATIONS, "validation", "checkpoints", "epochs", "initial"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("report.json", "training.json", "log.jsonl"):
        (out / name).unlink(missing_ok=True)
    for name in ("policy", "adapter"):
        shutil.rmtree(out / name, ignore_errors=True)


class FineTuning:
    """Fine-tuning on its own, in a folder that can be resumed; a context manager.

    Of several processes, only one has `write`. `redo` deletes what the folder holds of an earlier
    training. Raises StoreError when it holds another training.
    """

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        watcher: Watcher,
        *,
        write: bool = True,
        redo: bool = False,
    ):
        self.recipe = recipe
        self.path = out
        self._watcher = watcher
        self._services = Services(recipe, watcher)
        if not write:
            wait_for_all()  # until the folder exists
        self._folder = RunFolder(out, write=write)
        if write:
            if redo:
                _delete(out)
            wait_for_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._services.close()
        self._folder.close()

    def prepare(self) -> None:
        """Read, execute and grade the data, and say what would be trained on."""
        self._demonstrate()
        say_what_is_trained_on(self._folder.stage(DEMONSTRATIONS), self.recipe, self._watcher)

    def _demonstrate(self) -> None:
        if self._folder.write:
            stage = self._folder.stage(DEMONSTRATIONS)
            stage.open(
                settings(self.recipe, DEMONSTRATIONS),
                data_inputs(self.recipe),
                redo=not made_anything(stage),
            )
            if not stage.done:
                keep_environment(self.path, self._services.environment(DEMONSTRATIONS))
            demonstrate(stage, self.recipe, self._services, self._watcher)
        wait_for_all()

    def run(self) -> SFTReport:
        """Prepare the data and train."""
        self._demonstrate()
        rows = list(self._folder.stage(DEMONSTRATIONS).rows(Solution))
        report = fine_tune(rows, self.recipe, self.path, self._services, self._watcher)
        if self._folder.write and self.recipe.sft.keep_best:
            choose_epoch(
                self._folder, self.path, self.recipe, report, self._services, self._watcher
            )
        return report
