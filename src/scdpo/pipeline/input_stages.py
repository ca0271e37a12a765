"""The stages of a run that come before the method: problems, fine-tuning, recorded solutions."""

from __future__ import annotations

import re
from pathlib import Path

from scdpo.engines import EngineProtocol, engine_config
from scdpo.errors import InputError
from scdpo.formats import LAYOUTS
from scdpo.pipeline.finetuning import (
    DEMONSTRATIONS,
    SFT_STAGE,
    data_inputs,
    demonstrate,
    fine_tune,
    initial_format,
    say_what_is_trained_on,
)
from scdpo.pipeline.opened import OpenRun, manifest_of
from scdpo.pipeline.progress import KeptProgress
from scdpo.pipeline.provenance import (
    imported_settings,
    keep_environment,
    made_anything,
    settings,
)
from scdpo.pipeline.recipe import Part, Recipe
from scdpo.pipeline.services import Services, Silent, Watcher, append_all
from scdpo.pipeline.sources import read_problems
from scdpo.pipeline.trained import EpochScore, fine_tuned_policy, fine_tuning_counts
from scdpo.pipeline.validation import choose_epoch
from scdpo.policies import policy_hash
from scdpo.problems import shared_questions
from scdpo.records import Problem, Solution
from scdpo.sampling import Sampler, count_solutions
from scdpo.sampling.recorded import Reproduced, recorded_solutions
from scdpo.store import Manifest, Stage, file_hash
from scdpo.training.processes import wait_for_all


class InputStages(OpenRun):
    """What the method starts from, and the services that all stages share; see `run.Run`."""

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
        super().__init__(recipe, path, write=write, redo=redo)
        self.watcher: Watcher = watcher or Silent()
        if write:
            self.watcher = KeptProgress(self.watcher, path)
        self.services = Services(recipe, self.watcher, engine)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.services.close()
        finally:
            super().__exit__(kind, error, trace)

    def problems(self, part: Part) -> list[Problem]:
        """The `train` or `test` problems, stored in the run folder when first read.

        Raises InputError where two sources have a question in common.
        """
        stage = self.stage(f"problems/{part}")
        if not stage.done:
            problems = read_problems(self.recipe, part)
            stage.open(settings(self.recipe, stage.name), redo=True)
            stage.append_new(problems)
            stage.finish()
            self._note_shared_questions()
        return list(stage.rows(Problem))

    def demonstrate(self) -> None:
        """Before stage 1: the rows of `sft.data`, executed, graded and written in the format."""
        again = self._redo == SFT_STAGE
        stage = self.open(DEMONSTRATIONS, [], read=data_inputs(self.recipe), redo=again)
        if not stage.done:
            self.record(stage)
        demonstrate(stage, self.recipe, self.services, self.watcher)

    def prepare(self) -> None:
        """Read and check `sft.data`, as `demonstrate` does, and say what would be trained on."""
        self.demonstrate()
        say_what_is_trained_on(self.stage(DEMONSTRATIONS), self.recipe, self.watcher)

    def fine_tune(self) -> None:
        """Before stage 1: train the recipe's policy on `sft.data`; the result is the run's initial
        policy. Several processes share it as in `train`."""
        if self.folder.write:
            self.demonstrate()
            read = {"policy": policy_hash(self.recipe.policy)}
            self.open(SFT_STAGE, [DEMONSTRATIONS], read=read)
        wait_for_all()
        stage, data = self.stage(SFT_STAGE), self.stage(DEMONSTRATIONS)
        if not stage.done:
            if self.folder.write:
                self.record(stage)
            rows = list(data.rows(Solution))
            services, watcher = self.services, self.watcher
            report = fine_tune(rows, self.recipe, stage.path, services, watcher)
            if not self.folder.write:
                return
            epochs: list[EpochScore] = []
            if self.recipe.sft.keep_best:
                epochs = choose_epoch(
                    self.folder, stage.path, self.recipe, report, services, watcher
                )
            stage.append_new([fine_tuned_policy(report, stage.path, epochs)], "policy")
            stage.finish(fine_tuning_counts(report, epochs))
            watcher.note("policy", self.initial_policy)

    def import_solutions(self, path: Path, layout: str, dataset: str) -> Manifest:
        """Import recorded solutions as graded rows of this run; their programs are run again."""
        if layout not in LAYOUTS:
            raise InputError(f"unknown layout {layout!r}; known: {', '.join(LAYOUTS)}")
        stage = self.stage(f"imports/{re.sub(r'[^A-Za-z0-9.-]+', '_', path.stem).strip('_.-')}")
        now = imported_settings(settings(self.recipe, stage.name), stage.manifest)
        config = now | {"layout": layout, "dataset": dataset}
        # An unfinished import starts over: it has to execute everything again anyway.
        stage.open(config, {path.name: file_hash(path)}, redo=not stage.done)
        if not stage.done:
            bar = self.watcher.progress(f"import {path.stem}"[:40])
            format = initial_format(self.recipe, self.services)
            sandbox, grader = self.services.sandbox(), self.services.grader()
            self.record(stage)
            reproduced = Reproduced()
            chunks = recorded_solutions(
                path,
                layout,
                dataset,
                grader,
                sandbox,
                reproduced,
                bar,
                format=format,
                encode=self.services.encode(self.recipe.policy),
            )
            append_all(stage, chunks)
            stage.finish(count_solutions(stage.rows(Solution)) | reproduced.counts())
        return manifest_of(stage)

    def parent_stages(self) -> list[Stage]:
        """The stages whose solutions branching continues. Imports that came after it was started
        are parents only if it is run again."""
        sources = self.solution_stages()
        begun = self.stage("branches").manifest
        if begun is None or not made_anything(self.stage("branches")) or self._redo == "branches":
            return sources
        if late := [
            s.name for s in sources if s.name not in begun.inputs and s.name != "solutions"
        ]:
            self.watcher.note(
                "branches",
                f"{', '.join(late)}: imported after branching, so they were not continued;"
                f" `scdpo branch {self.path} --redo` continues them too",
            )
        return [source for source in sources if source.name not in late]

    def in_format(self, parents: list[Solution], sampler: Sampler) -> list[Solution]:
        """The parents that the policy could have written: in its format, after its prompt."""
        format = sampler.format
        fit = [
            p for p in parents if p.format == format.name and p.prompt == format.prompt(p.question)
        ]
        if unfit := len(parents) - len(fit):
            self.watcher.note(
                "branches",
                f"{unfit} preferred solutions are not continued: they are not in the run's format",
            )
        return fit

    def solution_stages(self) -> list[Stage]:
        """The finished stages of sampled and imported solutions. Raises InputError without any."""
        sources = [self.finished(name, "import") for name in self.imports()]
        if self.begun("solutions"):
            sources.insert(0, self.finished("solutions", "sample"))
        if not sources:
            raise InputError(
                f"{self.path}: no solutions yet; run `scdpo sample` or `scdpo import` first"
            )
        return sources

    def _note_shared_questions(self) -> None:
        """Say it if questions of the test set are also trained on, once both sets are read."""
        train, test = (self.stage(f"problems/{part}") for part in ("train", "test"))
        if train.done and test.done:
            n_test = sum(1 for _ in test.rows(Problem))
            if shared := shared_questions(test.rows(Problem), train.rows(Problem)):
                self.watcher.note(
                    "problems",
                    f"{shared} of {n_test} test questions are also training questions: accuracy on"
                    " them says nothing about new ones (keys offset, limit, ids of problems)",
                )

    def record(self, stage: Stage) -> None:
        """Record the environment of a stage that starts or resumes now."""
        keep_environment(self.path, self.services.environment(stage.name))
