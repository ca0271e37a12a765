"""The trainings of a run: what each is named, trained with and on, and what is recorded of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scdpo.errors import InputError, short
from scdpo.evaluation import SFT
from scdpo.pipeline.changes import Changes
from scdpo.pipeline.provenance import OWN, settings
from scdpo.pipeline.recipe import METHODS, Method, Recipe, make_recipe
from scdpo.policies import policy_hash
from scdpo.records import Record
from scdpo.store import Manifest
from scdpo.training.dpo_config import TrainingReport
from scdpo.training.sft_config import SFTReport

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")


class Training(Record):
    """A training of a run: its name (that of its stage and policy), the method whose pairs it
    takes, the settings of section `train` as plain values, and which of them are its own rather
    than the recipe's."""

    name: str
    method: Method
    train: dict[str, Any]
    own: tuple[str, ...] = ()

    @property
    def stage(self) -> str:
        """The name of its stage."""
        return f"policies/{self.name}"

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        """What its manifest keeps. That of a training with the recipe's settings and the name of
        its method has nothing else than the recipe's keys."""
        kept = settings(recipe, self.stage) | {"train": self.train}
        if self.name != self.method:
            kept["method"] = self.method
        if self.own:
            kept[OWN] = list(self.own)
        return kept

    def describe(self) -> str:
        """In words for a table: `scdpo, learning_rate 1e-05`; empty for one that its name says
        everything about."""
        if self.name == self.method and not self.own:
            return ""
        return ", ".join([self.method, *(f"{key} {self.train.get(key)}" for key in self.own)])


def training_of(manifest: Manifest) -> Training:
    """The training of a stage that was started."""
    name = manifest.stage.partition("/")[2]
    return Training(
        name=name,
        method=manifest.config.get("method", name),
        train=manifest.config["train"],
        own=tuple(manifest.config.get(OWN, ())),
    )


def new_training(
    recipe: Recipe, method: Method, name: str, changes: Changes, before: Training | None
) -> Training:
    """The training with the recipe's settings and `changes` (keys `train.…`) or, if there are
    none, the own settings of `before`, the training that has the name already.

    Raises InputError for a key of another section and RecipeError for a wrong key or value.
    """
    for key in changes:
        if key.partition(".")[0] != "train":
            raise InputError(f"{key}: a training has settings of its own only in section train")
    if changes:
        whole = changes.get("train")
        given = [*whole] if isinstance(whole, Mapping) else []
        given += [key.split(".")[1] for key in changes if "." in key]
        changed = make_recipe(recipe.model_dump(mode="json"), changes=changes)
        plain = changed.train.model_dump(mode="json")
        return Training(name=name, method=method, train=plain, own=tuple(sorted(set(given))))
    plain = recipe.train.model_dump(mode="json")
    if before is None or not before.own:
        return Training(name=name, method=method, train=plain)
    kept = {key: before.train[key] for key in before.own if key in before.train}
    return Training(name=name, method=method, train=plain | kept, own=tuple(kept))


def checked_name(name: str, method: Method | None) -> str:
    """The name of a training, on the pairs of a method if that is known. Raises InputError."""
    if name == SFT or (name in METHODS and method not in (None, name)):
        raise InputError(
            f"--name {name}: "
            + ("the initial policy" if name == SFT else f"the training with --method {name}")
            + " has that name"
        )
    if not _NAME.fullmatch(name):
        raise InputError(
            f"--name {short(name)}: letters, digits and _ . - only (at most 64), the first a "
            "letter or digit"
        )
    return name


class TrainedPolicy(Record):
    """The result of a training: the hash of the trained policy, the pairs used, and the first and
    final loss (nats)."""

    policy: str
    weights: str
    n_pairs: int
    n_naive: int
    n_step_controlled: int
    steps: int
    first_loss: float
    final_loss: float


def trained_policy(name: str, report: TrainingReport, path: Path) -> TrainedPolicy:
    """The row of a training stage, from its report; `path` is the stage's folder."""
    return TrainedPolicy(
        policy=name,
        weights=policy_hash(path / "policy"),
        n_pairs=report.n_pairs,
        n_naive=report.n_naive,
        n_step_controlled=report.n_step_controlled,
        steps=report.steps,
        first_loss=report.first_loss,
        final_loss=report.final_loss,
    )


def references_used(report: TrainingReport) -> str:
    """How many reference log-probs were computed and how many found, in a line."""
    computed, reused = report.references_computed, report.references_reused
    return f"{computed} log-probs computed, {reused} reused from references.npz"


class EpochScore(Record):
    """The greedy accuracy of the policy after an epoch of fine-tuning on n validation questions,
    and whether that policy was kept."""

    epoch: int
    correct: int
    n: int
    kept: bool


class FineTunedPolicy(Record):
    """The result of the stage `sft`: the hash of the run's initial policy, the solutions that it
    was trained on, the first and final loss (nats per token), and which epoch was kept: the last,
    or the best of `epochs`."""

    policy: str
    weights: str
    n_examples: int
    steps: int
    first_loss: float
    final_loss: float
    epochs: tuple[EpochScore, ...] = ()


def fine_tuned_policy(
    report: SFTReport, path: Path, epochs: Sequence[EpochScore] = ()
) -> FineTunedPolicy:
    """The row of the stage `sft`, from its report; `path` is the stage's folder."""
    return FineTunedPolicy(
        policy="sft",
        weights=policy_hash(path / "policy"),
        n_examples=report.n_examples,
        steps=report.steps,
        first_loss=report.first_loss,
        final_loss=report.final_loss,
        epochs=tuple(epochs),
    )


def fine_tuning_counts(
    report: SFTReport, epochs: Sequence[EpochScore] = ()
) -> dict[str, int | float]:
    """The counts in the manifest of the stage `sft`."""
    counts: dict[str, int | float] = {
        "solutions": report.n_examples,
        "steps": report.steps,
        "tokens": report.tokens,
        "first_loss": round(report.first_loss, 4),
        "final_loss": round(report.final_loss, 4),
    }
    if report.heldout:
        counts["heldout"] = report.n_heldout
        counts["heldout_loss_before"] = round(report.heldout[0].loss, 4)
        counts["heldout_loss_after"] = round(report.heldout[-1].loss, 4)
    for score in epochs:
        if score.kept:
            counts["kept_epoch"] = score.epoch
    return counts | {f"dropped:{k}": n for k, n in report.dropped.items() if n}


def training_counts(report: TrainingReport) -> dict[str, int | float]:
    """The counts in the manifest of a training stage."""
    counts: dict[str, int | float] = {
        "pairs": report.n_pairs,
        "steps": report.steps,
        "first_loss": round(report.first_loss, 4),
        "final_loss": round(report.final_loss, 4),
    }
    if report.tokens_saved:
        counts["tokens_saved"] = round(report.tokens_saved, 3)
    if report.references_reused:
        counts["references_reused"] = report.references_reused
    return counts | {f"dropped:{k}": n for k, n in report.dropped.items()}
