"""The whole pipeline: `Run.everything` runs the stages in order; each can also run alone."""

from __future__ import annotations

from pathlib import Path

from scdpo.errors import InputError
from scdpo.evaluation import SFT, PolicyLine, count_evaluations, evaluate_greedy
from scdpo.pairs import (
    LabelKind,
    StepLabels,
    mixture,
    step_labels,
    trl_rows,
)
from scdpo.pipeline.card import accuracies_of_run, card_of_training
from scdpo.pipeline.changes import Changes
from scdpo.pipeline.input_stages import InputStages
from scdpo.pipeline.opened import manifest_of
from scdpo.pipeline.pairing import PAIR_PARTS, make_pairs
from scdpo.pipeline.recipe import Method
from scdpo.pipeline.services import append_all, begun_when_reported
from scdpo.pipeline.shortages import pairs_lack, solutions_lack
from scdpo.pipeline.trained import (
    Training,
    references_used,
    trained_policy,
    training_counts,
    training_of,
)
from scdpo.policies import policy_path, state_format
from scdpo.records import Evaluation, Pair, Solution, SolutionHead
from scdpo.sampling import (
    branch_solutions,
    count_branches,
    count_solutions,
    first_preferred,
    sample_solutions,
)
from scdpo.store import Stage, write_jsonl
from scdpo.training.dpo_config import DPOConfig, TrainingReport
from scdpo.training.processes import wait_for_all
from scdpo.training.sft_config import SFTReport


class Run(InputStages):
    """A run: its recipe, its folder, and the services that its stages share; a context manager.

    Calling a stage again resumes it, or does nothing if it is done. A folder started with another
    recipe is refused if a setting that shaped existing rows differs. `engine` is an engine to use
    for the initial policy instead of the recipe's, or the name of a registered kind with which to
    open every policy. `redo` names stages (`pairs`, `policies/dpo`) to delete and run again.
    Without `write`, the folder is only read, which is safe while another process writes to it. A
    new folder is removed if the run fails before it has made anything. Raises InputError and
    StoreError.
    """

    def everything(self) -> list[PolicyLine]:
        """Run the whole recipe: sample, branch, pair, train and evaluate; returns the report."""
        self.problems("train")
        self.problems("test")  # read now, so that an error in them does not surface hours later
        if self.recipe.sft.data is not None:
            self.fine_tune()
        self.sample()
        self._stop_if(self.solutions_lack())
        self.branch()
        self.pair()
        for method in self.recipe.methods:
            self._stop_if(self.pairs_lack(method), f"{method} has ")
        for method in self.recipe.methods:
            self.train(method)
        for policy in (SFT, *self.recipe.methods):
            self.evaluate(policy)
        return self.report()

    # ---- stages

    def _stop_if(self, lacking: str, what: str = "") -> None:
        """Raise InputError if the methods of the recipe have nothing to train on."""
        if lacking and self.recipe.methods:
            raise InputError(f"{self.path}: {what}{lacking}")

    def sample(self) -> None:
        """Stage 1: naive solutions of the training problems."""
        problems, config = self.problems("train"), self.recipe.sample
        stage = self.open("solutions", ["problems/train"], policy=True)
        if not stage.done:
            bar = self.watcher.progress("sample")
            drawn = self.watcher.counter("sample", "solutions")
            with self.services.sampler(self.initial_policy, SFT) as sampler:
                self.record(stage)
                have = stage.rows(SolutionHead)
                chunks = sample_solutions(
                    problems, sampler, config, existing=have, progress=bar, drawn=drawn
                )
                append_all(stage, self.services.watched(chunks, sampler, config.limits))
            stage.finish(count_solutions(stage.rows(SolutionHead)))

    def branch(self) -> None:
        """Stage 2: continuations of preferred solutions from their steps."""
        sources, config = self.parent_stages(), self.recipe.branch
        stage = self.open("branches", [source.name for source in sources], policy=True)
        if not stage.done:
            bar = self.watcher.progress("branch")
            drawn = self.watcher.counter("branch", "continuations")
            rows = (row for source in sources for row in source.rows(Solution))
            found = first_preferred(rows, truncated_is_wrong=config.truncated_is_wrong)
            with self.services.sampler(self.initial_policy, SFT) as sampler:
                parents = self.in_format(found, sampler)
                self.record(stage)
                chunks = branch_solutions(
                    parents,
                    sampler,
                    config,
                    problems=self.problems("train"),
                    existing=stage.rows(SolutionHead),
                    progress=bar,
                    drawn=drawn,
                )
                append_all(stage, chunks)
            stage.finish(count_branches(stage.rows(Solution)))

    def pair(self) -> None:
        """Make naive pairs, step-controlled pairs, and the pairs of the data-equal control."""
        sources = self.solution_stages()
        branched = [self.finished("branches", "branch")] if self.begun("branches") else []
        inputs = [stage.name for stage in (*sources, *branched)]
        stages = [self.open(f"pairs/{part}", inputs) for part in PAIR_PARTS]
        if not all(stage.done for stage in stages):
            make_pairs(stages, sources, branched, self.recipe.pairs)

    def solutions_lack(self) -> str:
        """Why no pair can be made of the solutions so far, in a line; empty if one can."""
        names = [*(["solutions"] if self.begun("solutions") else []), *self.imports()]
        rows = (row for name in names for row in self.stage(name).rows(Solution))
        return solutions_lack(rows, self.recipe)

    def pairs_lack(self, method: Method) -> str:
        """Why a method has no pairs to train on, in a line; empty if it has some."""
        lacking = [self.part_lacks(stage.path.name) for stage in self._pair_stages(method)]
        return "; ".join(lacking) if all(lacking) else ""

    def part_lacks(self, part: str) -> str:
        """Why a set of pairs (`naive`, `step_controlled`) has none to train on, in a line."""
        counts = manifest_of(self.finished(f"pairs/{part}", "pair")).counts
        return pairs_lack(part, counts, self.recipe)

    def pairs_of(self, method: Method) -> list[Pair]:
        """The pairs that a method trains on, held-out pairs included."""
        sets = [list(stage.rows(Pair)) for stage in self._pair_stages(method)]
        return sets[0] if len(sets) == 1 else mixture(sets[0], sets[1], self.recipe.pairs.seed)

    def export(self, method: Method, out: Path) -> int:
        """Write a method's training pairs in TRL's preference format; returns how many."""
        pairs = [pair for pair in self.pairs_of(method) if pair.split == "train"]
        return write_jsonl(out, trl_rows(pairs))

    def export_step_labels(self, out: Path, labels: LabelKind = "known") -> StepLabels:
        """Write the run's solutions and branches in TRL's step supervision format."""
        stages = [self.stage(name) for name in ("solutions", *self.imports(), "branches")]
        solutions = [row for stage in stages if stage.done for row in stage.rows(Solution)]
        made = step_labels(solutions, self.recipe.pairs, labels)
        if not made.rows:
            raise InputError(
                f"{self.path}: no right or wrong solutions to label; run `scdpo sample` first"
            )
        write_jsonl(out, made.rows)
        return made

    def train(
        self, method: Method | None = None, name: str | None = None, changes: Changes | None = None
    ) -> str:
        """Stage 3: train the initial policy on a method's pairs (scdpo); returns its name.

        Trainings with a `name` of their own, by default that of the method, are kept apart.
        `changes` (`{"train.learning_rate": 1e-5}`) are this training's own settings; without
        them it goes on, or begins again, with those that it has. All trainings share the
        reference log-probs. If several processes are launched, only the one that writes opens the
        stage; the others wait for it and share the training. Raises InputError and StoreError.
        """
        if self.folder.write:
            training = self.training(method, name, changes or {})
            inputs = [stage.name for stage in self._pair_stages(training.method)]
            self.open(training.stage, inputs, policy=True, config=training.settings(self.recipe))
        wait_for_all()
        stage = self.stage(f"policies/{name or method or 'scdpo'}")
        training = training_of(manifest_of(stage))
        if not stage.done:
            report = self._train(training, stage)
            if not self.folder.write:
                return training.name
            self.watcher.note("reference", references_used(report))
            state_format(stage.path / "policy", self.recipe.format.model_dump(mode="json"))
            stage.append_new([trained_policy(training.name, report, stage.path)], "policy")
            stage.finish(training_counts(report))
            card_of_training(self, training.name)
        return training.name

    def sft(self, out: Path) -> SFTReport:
        """Fine-tune the initial policy on the run's own correct solutions; writes to `out`."""
        from scdpo.training.supervised import sft

        stages = [self.stage(name) for name in ("solutions", *self.imports())]
        solutions = [row for stage in stages if stage.done for row in stage.rows(Solution)]
        if not solutions:
            raise InputError(f"{self.path}: no solutions to learn from; run `scdpo sample` first")
        self.services.device()
        made = sft(
            policy_path(self.initial_policy),
            solutions,
            out,
            config=self.recipe.sft.training,
            progress=begun_when_reported(self.watcher, "sft"),
            note=lambda text: self.watcher.note("sft", text),
        )
        if self.folder.write:
            state_format(Path(made.policy), self.recipe.format.model_dump(mode="json"))
        return made

    def evaluate(self, policy: str) -> None:
        """Evaluate a policy of the run (`sft` or a training) greedily on the test problems."""
        problems = self.problems("test")
        inputs, path = ["problems/test"], ""
        if policy != SFT:
            trained = self.finished(f"policies/{policy}", f"train --method {policy}")
            inputs.append(trained.name)
            path = str(trained.path / "policy")
        else:
            path = self.initial_policy
        stage = self.open(f"evaluations/{policy}", inputs, policy=policy == SFT)
        if not stage.done:
            config, bar = self.recipe.evaluate, self.watcher.progress(f"evaluate {policy}")
            with self.services.sampler(path, policy) as sampler:
                self.record(stage)
                have = stage.ids("problem_id")
                rows = evaluate_greedy(problems, sampler, config, existing=have, progress=bar)
                watched = self.services.watched(rows, sampler, config.limits)
                append_all(stage, watched, "problem_id")
            stage.finish(count_evaluations(stage.rows(Evaluation)))
        accuracies_of_run(self, self.evaluations())

    def _train(self, training: Training, stage: Stage) -> TrainingReport:
        from scdpo.training.preference import train

        method, name = training.method, training.name
        pairs = self.pairs_of(method)
        used = [pair for pair in pairs if pair.split == "train"]
        if not used:
            raise InputError(
                f"{self.path}: {method} has no pairs to train on; "
                f"`scdpo report {self.path}` shows what became of the solutions "
                f"({self.pairs_lack(method)})"
            )
        if self.folder.write:
            self.record(stage)
        return train(
            policy_path(self.initial_policy),
            used,
            stage.path,
            config=DPOConfig.model_validate(training.train),
            heldout=[pair for pair in pairs if pair.split == "heldout"],
            references=self.path / "references.npz",
            progress=begun_when_reported(self.watcher, f"train {name}"),
            reference_progress=begun_when_reported(self.watcher, f"reference {name}"),
            note=lambda text: self.watcher.note("training", text),
        )

    def _pair_stages(self, method: Method) -> list[Stage]:
        names = {"dpo": ["naive"], "dpo_equal": ["data_equal"]}
        parts = names.get(method, ["naive", "step_controlled"])
        return [self.finished(f"pairs/{part}", "pair") for part in parts]
