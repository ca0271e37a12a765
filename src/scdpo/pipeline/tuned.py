"""A run whose initial policy is fine-tuned first, and the solutions that its stages begin from."""

from __future__ import annotations

from pathlib import Path

from scdpo.errors import InputError
from scdpo.pipeline.finetuning import (
    DEMONSTRATIONS,
    SFT_STAGE,
    data_inputs,
    demonstrate,
    fine_tune,
)
from scdpo.pipeline.opened import OpenRun
from scdpo.pipeline.provenance import keep_environment, made_anything
from scdpo.pipeline.services import Services, Watcher
from scdpo.pipeline.trained import EpochScore, fine_tuned_policy, fine_tuning_counts
from scdpo.pipeline.validation import choose_epoch
from scdpo.policies import policy_hash, policy_path, state_format
from scdpo.records import Solution
from scdpo.sampling import Sampler
from scdpo.store import Stage
from scdpo.training.processes import wait_for_all
from scdpo.training.sft_config import SFTReport


class TunedRun(OpenRun):
    """The stages before sampling, and what branching and pairing begin from. `run.Run` adds the
    others and sets the services."""

    _services: Services
    _watcher: Watcher

    def demonstrate(self) -> None:
        """Before stage 1: the rows of `sft.data`, executed, graded and written in the format."""
        stage = self.open(DEMONSTRATIONS, [], read=data_inputs(self.recipe))
        if not stage.done:
            self._record(stage)
        demonstrate(stage, self.recipe, self._services, self._watcher)

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
                self._record(stage)
            rows = list(data.rows(Solution))
            services, watcher = self._services, self._watcher
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

    def sft(self, out: Path) -> SFTReport:
        """Fine-tune the initial policy on the run's own correct solutions; writes to `out`."""
        from scdpo.training.supervised import sft

        stages = [self.stage(name) for name in ("solutions", *self.imports())]
        solutions = [row for stage in stages if stage.done for row in stage.rows(Solution)]
        if not solutions:
            raise InputError(f"{self.path}: no solutions to learn from; run `scdpo sample` first")
        self._services.device()
        bar, config = self._watcher.progress("sft"), self.recipe.sft
        initial = policy_path(self.initial_policy)
        made = sft(initial, solutions, out, config=config.training, progress=bar)
        if self.folder.write:
            state_format(Path(made.policy), self.recipe.format.model_dump(mode="json"))
        return made

    def _solution_stages(self) -> list[Stage]:
        """The finished stages of sampled and imported solutions. Raises InputError without any."""
        sources = [self.finished(name, "import") for name in self.imports()]
        if self.begun("solutions") or not sources:
            sources.insert(0, self.finished("solutions", "sample"))
        return sources

    def _parent_stages(self) -> list[Stage]:
        """The stages whose solutions branching continues. Imports that came after it was started
        are parents only if it is run again."""
        sources = self._solution_stages()
        begun = self.stage("branches").manifest
        if begun is None or not made_anything(self.stage("branches")) or self._redo == "branches":
            return sources
        if late := [
            s.name for s in sources if s.name not in begun.inputs and s.name != "solutions"
        ]:
            self._watcher.note(
                "branches",
                f"{', '.join(late)}: imported after branching, so no parents of branches;"
                f" `scdpo branch {self.path} --redo` makes them such",
            )
        return [source for source in sources if source.name not in late]

    def _in_format(self, parents: list[Solution], sampler: Sampler) -> list[Solution]:
        """The parents that the policy could have written: in its format, after its prompt."""
        format = sampler.format
        fit = [
            p for p in parents if p.format == format.name and p.prompt == format.prompt(p.question)
        ]
        if unfit := len(parents) - len(fit):
            self._watcher.note(
                "branches",
                f"{unfit} preferred solutions are not continued: they are not in the run's format",
            )
        return fit

    def _record(self, stage: Stage) -> None:
        """Record the environment of a stage that starts or resumes now."""
        keep_environment(self.path, self._services.environment(stage.name))
