"""A run: the stages in order, each on its own too, all in one run folder."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

from scdpo.engines import EngineProtocol, engine_config
from scdpo.errors import InputError, ScdpoError, StorageFull, StoreError
from scdpo.evaluation import (
    SFT,
    BreakdownLine,
    GroupBy,
    PolicyLine,
    breakdown_lines,
    count_evaluations,
    evaluate_greedy,
    policy_lines,
)
from scdpo.formats import LAYOUTS
from scdpo.pairs import data_equal, mixture, naive_pairs, step_controlled_pairs
from scdpo.pipeline.provenance import (
    Environment,
    changed_settings,
    environments,
    in_order,
    keep_environment,
    made_anything,
    settings,
)
from scdpo.pipeline.recipe import Method, ProblemSource, Recipe, dump_recipe, read_yaml
from scdpo.pipeline.services import Services, Silent, Watcher, append_all, begun_when_reported
from scdpo.pipeline.trained import TrainedPolicy, trained_policy, training_counts
from scdpo.policies import policy_hash, policy_path
from scdpo.problems import load_problems
from scdpo.records import Evaluation, Pair, Problem, Solution
from scdpo.sampling import (
    branch_solutions,
    count_branches,
    count_solutions,
    first_preferred,
    sample_solutions,
)
from scdpo.sampling.recorded import Reproduced, recorded_solutions
from scdpo.store import (
    Manifest,
    RunFolder,
    Stage,
    file_hash,
    is_full_disk,
    write_atomic,
    write_jsonl,
)
from scdpo.training.dpo_config import TrainingReport
from scdpo.training.processes import wait_for_all
from scdpo.training.sft_config import SFTReport


class Run:
    """A run folder with its recipe, and the services its stages share; a context manager.

    Every stage may be called again: it continues where it stood, and does nothing when it is
    done. A folder that was begun with another recipe is refused where a setting that has shaped
    rows differs. `engine` is an engine to use for the initial policy in place of the recipe's, or
    the name of a registered kind to open every policy with. `redo` names stages (`pairs`,
    `policies/dpo`) to delete and do again; without `write` the folder is only read, also while
    another process writes there. A new folder is removed again if the run fails before it has
    made anything. Raises InputError and StoreError.
    """

    def __init__(
        self,
        recipe: Recipe,
        path: Path,
        watcher: Watcher | None = None,
        *,
        write: bool = True,
        redo: str | None = None,
        engine: EngineProtocol | str | None = None,
    ):
        if isinstance(engine, str):
            recipe = recipe.model_copy(update={"engine": engine_config({"name": engine})})
            engine = None
        self.recipe = recipe
        self.path = path
        self._watcher = watcher or Silent()
        self._redo = redo
        self._services = Services(recipe, self._watcher, engine)
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
        try:
            self._services.close()
        finally:
            self.folder.close()
        if error is not None and self._new and not self._made_anything():
            shutil.rmtree(self.path, ignore_errors=True)
        if error is not None and not isinstance(error, ScdpoError) and is_full_disk(error):
            raise StorageFull(
                f"{self.path}: no space left on the disk; what was done is kept, make room and "
                "run again"
            ) from error

    def everything(self) -> list[PolicyLine]:
        """The whole recipe: sample, branch, pair, train and evaluate; lines of the table."""
        self.problems("train")
        self.problems("test")  # read now: a fault in it should not be found hours later
        self.sample()
        self.branch()
        self.pair()
        for method in self.recipe.methods:
            self.train(method)
        for policy in (SFT, *self.recipe.methods):
            self.evaluate(policy)
        return self.report()

    # ---- stages

    def problems(self, part: str) -> list[Problem]:
        """The `train` or `test` problems, kept in the run folder as they were first read."""
        stage = self._stage(f"problems/{part}")
        if not stage.done:
            source: ProblemSource = getattr(self.recipe.problems, part)
            problems = load_problems(
                source.source, source.path, split=source.split, limit=source.limit
            )
            stage.open(settings(self.recipe, stage.name), redo=True)
            stage.append_new(problems)
            stage.finish()
        return list(stage.rows(Problem))

    def sample(self) -> None:
        """Stage 1: naive solutions of the training problems."""
        problems, config = self.problems("train"), self.recipe.sample
        stage = self._open("solutions", ["problems/train"], policy=True)
        if not stage.done:
            bar = self._watcher.progress("sample")
            with self._services.sampler(self.recipe.policy, SFT) as sampler:
                self._record(stage)
                have = stage.rows(Solution)
                chunks = sample_solutions(problems, sampler, config, existing=have, progress=bar)
                append_all(stage, chunks)
            stage.finish(count_solutions(stage.rows(Solution)))

    def branch(self) -> None:
        """Stage 2: continuations of preferred solutions from their steps."""
        solutions, config = self._finished("solutions", "sample"), self.recipe.branch
        stage = self._open("branches", [solutions.name], policy=True)
        if not stage.done:
            bar = self._watcher.progress("branch")
            parents = first_preferred(
                solutions.rows(Solution), truncated_is_wrong=config.truncated_is_wrong
            )
            with self._services.sampler(self.recipe.policy, SFT) as sampler:
                self._record(stage)
                chunks = branch_solutions(
                    parents,
                    sampler,
                    config,
                    problems=self.problems("train"),
                    existing=stage.rows(Solution),
                    progress=bar,
                )
                append_all(stage, chunks)
            stage.finish(count_branches(stage.rows(Solution)))

    def pair(self) -> None:
        """Naive pairs, step-controlled pairs, and the data-equal control's pairs."""
        sources = [self._finished(name, "import") for name in self._imports()]
        if self._begun("solutions"):
            sources.insert(0, self._finished("solutions", "sample"))
        if not sources:
            raise InputError(
                f"{self.path}: no solutions to pair; run `scdpo sample` or `scdpo import` first"
            )
        branched = [self._finished("branches", "branch")] if self._begun("branches") else []
        inputs = [stage.name for stage in (*sources, *branched)]
        parts = ("naive", "step_controlled", "data_equal")
        stages = [self._open(f"pairs/{part}", inputs) for part in parts]
        if all(stage.done for stage in stages):
            return
        solutions = [row for stage in sources for row in stage.rows(Solution)]
        branches = [row for stage in branched for row in stage.rows(Solution)]
        config = self.recipe.pairs
        naive = naive_pairs(solutions, config)
        controlled = step_controlled_pairs(solutions, branches, config)
        size = sum(p.split == "train" for p in (*naive.pairs, *controlled.pairs))
        results = (naive, controlled, data_equal(solutions, size, config))
        for stage, result in zip(stages, results, strict=True):
            if not stage.done:
                stage.append_new(result.pairs)
                stage.finish(result.counts)

    def pairs_of(self, method: Method) -> list[Pair]:
        """The pairs a method trains on, held-out ones included."""
        sets = [list(stage.rows(Pair)) for stage in self._pair_stages(method)]
        return sets[0] if len(sets) == 1 else mixture(sets[0], sets[1], self.recipe.pairs.seed)

    def train(self, method: Method) -> None:
        """Stage 3: train the initial policy on a method's pairs.

        Of several launched processes only the one that writes opens the stage; the others wait
        for that and help to train.
        """
        inputs = [stage.name for stage in self._pair_stages(method)]
        stage = self._stage(f"policies/{method}")
        if self.folder.write:
            self._open(stage.name, inputs, policy=True)
        wait_for_all()
        if not stage.done:
            report = self._train(method, stage)
            if not self.folder.write:
                return
            stage.append_new([trained_policy(method, report, stage.path)], "policy")
            stage.finish(training_counts(report))

    def sft(self, out: Path) -> SFTReport:
        """Fine-tune the initial policy on the run's own good solutions, into `out`."""
        from scdpo.training.supervised import sft

        stages = [self._stage(name) for name in ("solutions", *self._imports())]
        solutions = [row for stage in stages if stage.done for row in stage.rows(Solution)]
        if not solutions:
            raise InputError(f"{self.path}: no solutions to learn from; run `scdpo sample` first")
        self._services.device()
        bar, config = self._watcher.progress("sft"), self.recipe.sft
        return sft(policy_path(self.recipe.policy), solutions, out, config=config, progress=bar)

    def evaluate(self, policy: str) -> None:
        """Greedy accuracy of a policy of the run (`sft` or a method) on the test problems."""
        problems = self.problems("test")
        inputs, path = ["problems/test"], self.recipe.policy
        if policy != SFT:
            trained = self._finished(f"policies/{policy}", f"train --method {policy}")
            inputs.append(trained.name)
            path = str(trained.path / "policy")
        stage = self._open(f"evaluations/{policy}", inputs, policy=policy == SFT)
        if not stage.done:
            config, bar = self.recipe.evaluate, self._watcher.progress(f"evaluate {policy}")
            with self._services.sampler(path, policy) as sampler:
                self._record(stage)
                have = stage.ids("problem_id")
                rows = evaluate_greedy(problems, sampler, config, existing=have, progress=bar)
                append_all(stage, rows, "problem_id")
            stage.finish(count_evaluations(stage.rows(Evaluation)))

    def import_solutions(self, path: Path, layout: str, dataset: str) -> Manifest:
        """Recorded solutions as graded rows of this run, executed again on the way."""
        if layout not in LAYOUTS:
            raise InputError(f"layout {layout!r}: known are {', '.join(LAYOUTS)}")
        stage = self._stage(f"imports/{re.sub(r'[^A-Za-z0-9.-]+', '_', path.stem).strip('_.-')}")
        config = settings(self.recipe, stage.name) | {"layout": layout, "dataset": dataset}
        # An unfinished import executes everything again, so that its rows are no loss.
        stage.open(config, {path.name: file_hash(path)}, redo=not stage.done)
        if not stage.done:
            bar = self._watcher.progress(f"import {path.stem}"[:40])
            sandbox, grader = self._services.sandbox(), self._services.grader()
            self._record(stage)
            reproduced = Reproduced()
            chunks = recorded_solutions(path, layout, dataset, grader, sandbox, reproduced, bar)
            append_all(stage, chunks)
            stage.finish(count_solutions(stage.rows(Solution)) | reproduced.counts())
        return stage.manifest or _gone(stage)

    # ---- results

    def report(self) -> list[PolicyLine]:
        """One line for every evaluated policy, compared with SFT and with data-equal DPO.

        Written to `report.jsonl` too, unless the run is only read.
        """
        rows = self._evaluations()
        used = {name: self._pairs_used(name) for name in rows if name != SFT}
        lines = policy_lines(rows, used)
        if self.folder.write:
            write_jsonl(self.path / "report.jsonl", lines)
        return lines

    def breakdown(self, key: GroupBy) -> list[BreakdownLine]:
        """One line for every policy and group of questions; none where the data has no groups."""
        return breakdown_lines(self._evaluations(), key)

    def manifests(self) -> list[Manifest]:
        """The manifests of all stages begun, in the order of a whole run."""
        patterns = ("*/manifest.json", "*/*/manifest.json")
        paths = [path.parent for pattern in patterns for path in self.path.glob(pattern)]
        found = (self._stage(path.relative_to(self.path).as_posix()).manifest for path in paths)
        return in_order([manifest for manifest in found if manifest is not None])

    def environments(self) -> list[Environment]:
        """What the stages ran on, in the order they were worked on."""
        return environments(self.path)

    # ---- what stages share

    def _stage(self, name: str) -> Stage:
        return self.folder.stage(name)

    def _begun(self, name: str) -> bool:
        return self._stage(name).manifest is not None

    def _finished(self, name: str, command: str) -> Stage:
        """A stage that has to be done before this one. Raises InputError."""
        stage = self._stage(name)
        if not stage.done:
            state = "not finished" if self._begun(name) else "not there yet"
            raise InputError(f"{self.path}: {name} is {state}; run `scdpo {command}` first")
        return stage

    def _open(self, name: str, inputs: Sequence[str], *, policy: bool = False) -> Stage:
        """Open a stage under its settings and the hashes of what it reads."""
        stage = self._stage(name)
        hashes = {i: (self._stage(i).manifest or _gone(stage)).output_hash or "" for i in inputs}
        if policy:
            hashes["policy"] = self._initial_hash
        wanted = self._redo is not None and f"{name}/".startswith(f"{self._redo}/")
        redo = wanted or not made_anything(stage)
        return stage.open(settings(self.recipe, name), hashes, redo=redo)

    def _keep_recipe(self) -> None:
        """Keep the recipe in the folder, unless rows there were made under another one."""
        path = self.path / "recipe.yaml"
        changed: list[str] = []
        if path.exists():
            before, _ = read_yaml(path)
            if before == self.recipe.model_dump(mode="json"):
                return
            moved = before.get("policy") != self.recipe.policy
            for manifest in self.manifests():
                if not made_anything(self._stage(manifest.stage)):
                    continue
                changed += changed_settings(self.recipe, manifest)
                made_by = manifest.inputs.get("policy")
                if moved and made_by is not None and made_by != self._initial_hash:
                    changed.append(f"policy {before.get('policy')} → {self.recipe.policy}")
        if changed:
            raise StoreError(
                f"{self.path} was begun with another recipe: {', '.join(dict.fromkeys(changed))}; "
                "use another folder"
            )
        write_atomic(path, dump_recipe(self.recipe))

    @cached_property
    def _initial_hash(self) -> str:
        return policy_hash(self.recipe.policy)

    def _train(self, method: Method, stage: Stage) -> TrainingReport:
        from scdpo.training.preference import train

        pairs = self.pairs_of(method)
        used = [pair for pair in pairs if pair.split == "train"]
        if not used:
            raise InputError(
                f"{self.path}: {method} has no pairs to train on; "
                f"`scdpo report {self.path}` shows what became of the solutions"
            )
        if self.folder.write:
            self._record(stage)
        return train(
            policy_path(self.recipe.policy),
            used,
            stage.path,
            config=self.recipe.train,
            heldout=[pair for pair in pairs if pair.split == "heldout"],
            references=self.path / "references.npz",
            progress=begun_when_reported(self._watcher, f"train {method}"),
            reference_progress=begun_when_reported(self._watcher, f"reference {method}"),
            note=lambda text: self._watcher.note("training", text),
        )

    def _made_anything(self) -> bool:
        """Whether a stage has begun other than reading problems, which costs nothing."""
        return any(not manifest.stage.startswith("problems/") for manifest in self.manifests())

    def _record(self, stage: Stage) -> None:
        """Keep what a stage that begins or goes on now runs on."""
        keep_environment(self.path, self._services.environment(stage.name))

    def _pair_stages(self, method: Method) -> list[Stage]:
        names = {"dpo": ["naive"], "dpo_equal": ["data_equal"]}
        parts = names.get(method, ["naive", "step_controlled"])
        return [self._finished(f"pairs/{part}", "pair") for part in parts]

    def _imports(self) -> list[str]:
        paths = sorted((self.path / "imports").glob("*/manifest.json"))
        return [f"imports/{path.parent.name}" for path in paths]

    def _evaluations(self) -> dict[str, list[Evaluation]]:
        """The rows of every policy whose evaluation is done."""
        stages = [m.stage for m in self.manifests() if m.status == "done"]
        names = [name.split("/")[1] for name in stages if name.startswith("evaluations/")]
        return {n: list(self._stage(f"evaluations/{n}").rows(Evaluation)) for n in names}

    def _pairs_used(self, policy: str) -> int:
        return next(self._stage(f"policies/{policy}").rows(TrainedPolicy)).n_pairs


def _gone(stage: Stage) -> Manifest:
    raise StoreError(f"{stage.path}: the stage has no manifest")
