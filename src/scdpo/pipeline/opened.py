"""A run folder opened with its recipe: which stages exist, and whether they match the recipe."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from scdpo.errors import InputError, ScdpoError, StorageFull, StoreError
from scdpo.evaluation import (
    SFT,
    BreakdownLine,
    DatasetReport,
    GroupBy,
    PolicyLine,
    breakdown_lines,
    datasets,
    of_dataset,
    policy_lines,
)
from scdpo.pipeline.changes import Changes
from scdpo.pipeline.provenance import (
    Environment,
    changed_settings,
    environments,
    in_order,
    made_anything,
    settings,
)
from scdpo.pipeline.recipe import METHODS, Method, Recipe, dump_recipe, read_yaml
from scdpo.pipeline.trained import (
    TrainedPolicy,
    Training,
    checked_name,
    new_training,
    training_of,
)
from scdpo.policies import policy_hash
from scdpo.records import Evaluation
from scdpo.store import (
    Manifest,
    RunFolder,
    Stage,
    changed_keys,
    is_full_disk,
    write_atomic,
    write_jsonl,
)

BEFORE_SAMPLING = ("demonstrations", "sft")
"""The stages that work with the recipe's own policy where the initial policy is made from it."""


class OpenRun:
    """A run folder and its recipe; a context manager. `run.Run` adds the stages themselves."""

    def __init__(self, recipe: Recipe, path: Path, *, write: bool, redo: str | None):
        self.recipe = recipe
        self.path = path
        self._redo = redo
        self._new = write and not path.exists()
        self.folder = RunFolder(path, write=write)
        try:
            if write:
                self._keep_recipe()
        except BaseException:
            self.folder.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.folder.close()
        if error is not None and self._new and not self._made_anything():
            shutil.rmtree(self.path, ignore_errors=True)
        if error is not None and not isinstance(error, ScdpoError) and is_full_disk(error):
            raise StorageFull(
                f"{self.path}: no space left on the disk; what was done is kept; free some space "
                "and rerun to resume"
            ) from error

    # ---- what the stages have made

    def report(self) -> list[PolicyLine]:
        """One line for every evaluated policy, compared with SFT and with data-equal DPO.

        Also written to `report.jsonl`, unless the run is open for reading only.
        """
        rows = self.evaluations()
        used = {name: self._pairs_used(name) for name in rows if name != SFT}
        trained = {name: training.describe() for name, training in self.trainings().items()}
        lines = policy_lines(rows, used, trained)
        if self.folder.write:
            write_jsonl(self.path / "report.jsonl", lines)
        return lines

    def report_by_dataset(self) -> dict[str, list[PolicyLine]]:
        """The lines of `report` for each data set alone; empty where all questions are of one.

        Also written to `report_by_dataset.jsonl`, one row per data set, unless the run is open for
        reading only.
        """
        rows = self.evaluations()
        used = {name: self._pairs_used(name) for name in rows if name != SFT}
        reports = {
            dataset: policy_lines(
                {n: of for n, answered in rows.items() if (of := of_dataset(answered, dataset))},
                used,
            )
            for dataset in datasets(rows)
        }
        if len(reports) < 2:
            return {}
        if self.folder.write:
            lines = [DatasetReport(dataset=name, policies=tuple(r)) for name, r in reports.items()]
            write_jsonl(self.path / "report_by_dataset.jsonl", lines)
        return reports

    def breakdown(self, key: GroupBy, dataset: str | None = None) -> list[BreakdownLine]:
        """One line for every policy and group of questions, of one data set or of all; empty if
        the data has no groups."""
        rows = self.evaluations()
        if dataset is not None:
            rows = {name: of_dataset(answered, dataset) for name, answered in rows.items()}
        return breakdown_lines(rows, key)

    def manifests(self) -> list[Manifest]:
        """The manifests of all started stages, in the order of a whole run."""
        patterns = ("*/manifest.json", "*/*/manifest.json")
        paths = [path.parent for pattern in patterns for path in self.path.glob(pattern)]
        begun = (self.stage(path.relative_to(self.path).as_posix()).manifest for path in paths)
        return in_order([manifest for manifest in begun if manifest is not None])

    def environments(self) -> list[Environment]:
        """The environments of the stages, in the order in which they ran."""
        return environments(self.path)

    def trainings(self) -> dict[str, Training]:
        """The trainings that were started, by name, in the order of the report."""
        begun = [m for m in self.manifests() if m.stage.startswith("policies/")]
        return {training.name: training for training in map(training_of, begun)}

    def training(self, method: Method | None, name: str | None, changes: Changes) -> Training:
        """The training that is meant: one that exists already, or a new one (`Run.train`).

        Raises InputError for a name that cannot be given, and StoreError if the training with
        that name has other settings or pairs and is not to be done again.
        """
        name = name or method or "scdpo"
        stage = self.stage(f"policies/{checked_name(name, method)}")
        before = training_of(manifest_of(stage)) if made_anything(stage) else None
        default: Method = next((known for known in METHODS if known == name), "scdpo")
        known = before.method if before else default
        training = new_training(self.recipe, method or known, name, changes, before)
        if before is None or self.redone(stage.name):
            return training
        changed = changed_keys(
            {"method": before.method, "train": before.train},
            {"method": training.method, "train": training.train},
        )
        if changed:
            raise StoreError(
                f"{stage.path} was trained with other settings: {', '.join(changed)}; give this "
                "training a --name of its own, or do that one again with --redo"
            )
        return before

    # ---- stages

    @property
    def initial_policy(self) -> str:
        """The policy that samples and is trained: the recipe's or, with `sft.data`, what the
        stage `sft` made of it. Raises InputError if that stage is not done."""
        if self.recipe.sft.data is None:
            return self.recipe.policy
        return str(self.finished("sft", "sft").path / "policy")

    def stage(self, name: str) -> Stage:
        """A stage of this run, whether started or not."""
        return self.folder.stage(name)

    def begun(self, name: str) -> bool:
        """Whether a stage has been started."""
        return self.stage(name).manifest is not None

    def finished(self, name: str, command: str) -> Stage:
        """A stage that must be done first. Raises InputError if it is not."""
        stage = self.stage(name)
        if not stage.done:
            state = "not finished" if self.begun(name) else "missing"
            raise InputError(f"{self.path}: {name} is {state}; run `scdpo {command}` first")
        return stage

    def redone(self, name: str) -> bool:
        """Whether a stage is one of those to delete and run again."""
        return self._redo is not None and f"{name}/".startswith(f"{self._redo}/")

    def open(
        self,
        name: str,
        inputs: Sequence[str],
        *,
        policy: bool = False,
        config: Mapping[str, Any] | None = None,
        read: Mapping[str, str] | None = None,
        redo: bool = False,
    ) -> Stage:
        """Open a stage with its settings, by default the recipe's, and the hashes of its inputs:
        stages, the initial policy, and whatever else it has `read`. `redo` deletes its rows
        first."""
        stage = self.stage(name)
        hashes = {i: manifest_of(self.stage(i)).output_hash or "" for i in inputs}
        hashes |= read or {}
        if policy:
            hashes["policy"] = self._initial_hash
        redo = redo or self.redone(name) or not made_anything(stage)
        return stage.open(config or settings(self.recipe, name), hashes, redo=redo)

    def derived(
        self,
        name: str,
        inputs: Mapping[str, str],
        config: Mapping[str, Any] | None = None,
        *,
        resume: bool = False,
    ) -> Stage:
        """Open a stage that only derives rows from others, whose hashes are `inputs`.

        It begins again when these or its `config` have changed, and, unless it can `resume`, when
        it was stopped.
        """
        stage, config = self.stage(name), dict(config or {})
        before = stage.manifest
        kept = before is not None and before.inputs == inputs and before.config == config
        kept = kept and (resume or stage.done)
        return stage.open(config, inputs, redo=not kept or self.redone(name))

    def _keep_recipe(self) -> None:
        """Store the recipe. Raises StoreError if existing rows were made with another recipe."""
        path = self.path / "recipe.yaml"
        changed: list[str] = []
        if path.exists():
            before, _ = read_yaml(path)
            if before == self.recipe.model_dump(mode="json"):
                return
            moved = before.get("policy") != self.recipe.policy
            tuned = self.recipe.sft.data is not None
            for manifest in self.manifests():
                if self.redone(manifest.stage) or not made_anything(self.stage(manifest.stage)):
                    continue
                changed += changed_settings(self.recipe, manifest)
                if not moved or (tuned and manifest.stage not in BEFORE_SAMPLING):
                    continue
                made_by = manifest.inputs.get("policy")
                if made_by is not None and made_by != policy_hash(self.recipe.policy):
                    changed.append(f"policy {before.get('policy')} → {self.recipe.policy}")
        if changed:
            raise StoreError(
                f"{self.path} was started with another recipe: {', '.join(dict.fromkeys(changed))}"
                f"; use another folder{_or_a_training(changed)}"
            )
        write_atomic(path, dump_recipe(self.recipe))

    @cached_property
    def _initial_hash(self) -> str:
        return policy_hash(self.initial_policy)

    def _made_anything(self) -> bool:
        """Whether any stage has started, apart from reading problems, which is cheap."""
        return any(not manifest.stage.startswith("problems/") for manifest in self.manifests())

    def imports(self) -> list[str]:
        """The stages of imported solutions."""
        paths = sorted((self.path / "imports").glob("*/manifest.json"))
        return [f"imports/{path.parent.name}" for path in paths]

    def evaluations(self) -> dict[str, list[Evaluation]]:
        """The rows of every policy whose evaluation is done."""
        stages = [m.stage for m in self.manifests() if m.status == "done"]
        names = [name.split("/")[1] for name in stages if name.startswith("evaluations/")]
        return {n: list(self.stage(f"evaluations/{n}").rows(Evaluation)) for n in names}

    def _pairs_used(self, policy: str) -> int:
        return next(self.stage(f"policies/{policy}").rows(TrainedPolicy)).n_pairs


def _or_a_training(changed: Sequence[str]) -> str:
    """The other way out where only settings of trainings differ."""
    if not all(line.startswith("train.") for line in changed):
        return ""
    return ", or give one training its own: scdpo train --name NAME --set KEY=VALUE"


def manifest_of(stage: Stage) -> Manifest:
    """The manifest of a started stage. Raises StoreError if it has none."""
    if (manifest := stage.manifest) is None:
        raise StoreError(f"{stage.path}: the stage has no manifest")
    return manifest
