"""A run: the stages in order, each on its own too, all in one run folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel

from scdpo.errors import InputError
from scdpo.evaluation.accuracy import compare, summarise
from scdpo.evaluation.greedy import evaluate_greedy
from scdpo.formats import Format, get_format
from scdpo.grading import Grader
from scdpo.pairs import data_equal, mixture, naive_pairs, step_controlled_pairs
from scdpo.policies import policy_hash, policy_path
from scdpo.problems.benchmarks import load_problems
from scdpo.problems.embedded import load_embedded
from scdpo.recipe import METHODS, Method, ProblemSource, Recipe, dump_recipe
from scdpo.records import Evaluation, Pair, Problem, Record, Solution
from scdpo.report import Difference, PolicyLine
from scdpo.sampling.branch import first_preferred, sample_branches
from scdpo.sampling.naive import sample_naive
from scdpo.sampling.recorded import import_recorded
from scdpo.sampling.solutions import Workshop
from scdpo.sandbox import ProcessSandbox
from scdpo.store import Manifest, RunFolder, Stage, file_hash, write_atomic

if TYPE_CHECKING:
    from scdpo.training.dpo_config import TrainingReport

Progress = Callable[[int, int], None]
ProgressOf = Callable[[str], Progress]
"""Makes the progress callback (done, all) of a named stage."""

SFT = "sft"
"""The initial policy's name in a run."""
SERVICES = ("engine", "sandbox", "grading")
"""Settings that shape the rows of every stage that generates."""


class TrainedPolicy(Record):
    """What a training gave: the hash of its weights, pairs used, first and last loss (nats)."""

    policy: str
    weights: str
    n_pairs: int
    n_naive: int
    n_step_controlled: int
    steps: int
    first_loss: float
    final_loss: float


class Run:
    """A run folder with its recipe, and the services its stages share; a context manager.

    Every stage may be called again: it continues where it stood, and does nothing when it is
    done. Raises StoreError for a folder in use or begun with other settings.
    """

    def __init__(self, recipe: Recipe, path: Path, progress: ProgressOf | None = None):
        self.recipe = recipe
        self._progress = progress or (lambda name: lambda done, total: None)
        self._stack = ExitStack()
        self.folder = self._stack.enter_context(RunFolder(path))
        self._sandbox: ProcessSandbox | None = None
        self._grader: Grader | None = None
        if not (path / "recipe.yaml").exists():
            write_atomic(path / "recipe.yaml", dump_recipe(recipe))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def everything(self) -> list[PolicyLine]:
        """The whole recipe: sample, branch, pair, train and evaluate; lines of the table."""
        self.sample()
        self.branch()
        self.pair()
        for method in self.recipe.methods:
            self.train(method)
        for policy in (SFT, *self.recipe.methods):
            self.evaluate(policy)
        return self.report()

    # ---- stages

    def problems(self, name: str, source: ProblemSource) -> list[Problem]:
        """The problems of a source, kept in the run folder as they were first read."""
        stage = self.folder.stage(f"problems/{name}")
        if not stage.done:
            problems = read_problems(source)
            stage.open(_plain(source))
            stage.append_new(problems)
            stage.finish()
        elif (stage.manifest or _missing(stage)).config != _plain(source):
            stage.open(_plain(source))
        return list(stage.rows(Problem))

    def sample(self) -> None:
        """Stage 1: naive solutions of the training problems."""
        problems = self.problems("train", self.recipe.problems.train)
        stage = self.folder.stage("solutions")
        inputs = ["problems/train"]
        self._open(stage, self.recipe.sample, inputs, self.recipe.policy, SERVICES)
        if not stage.done:
            with self._workshop(self.recipe.policy, SFT) as shop:
                counts = asyncio.run(
                    sample_naive(
                        problems, self.recipe.sample, shop, stage, self._progress("sample")
                    )
                )
            stage.finish(counts)

    def branch(self) -> None:
        """Stage 2: continuations of preferred solutions from their steps."""
        self._need("solutions", "sample")
        stage = self.folder.stage("branches")
        inputs = ["solutions"]
        self._open(stage, self.recipe.branch, inputs, self.recipe.policy, SERVICES)
        if not stage.done:
            parents = first_preferred(self.folder.stage("solutions").rows(Solution))
            with self._workshop(self.recipe.policy, SFT) as shop:
                counts = asyncio.run(
                    sample_branches(
                        parents, self.recipe.branch, shop, stage, self._progress("branch")
                    )
                )
            stage.finish(counts)

    def pair(self) -> None:
        """Naive pairs, step-controlled pairs, and the data-equal control's pairs."""
        sources = [name for name in ("solutions", *self.imports()) if self._done(name)]
        if not sources:
            raise InputError(f"{self.folder.path}: no solutions to pair; sample or import first")
        solutions = [s for name in sources for s in self.folder.stage(name).rows(Solution)]
        branches = (
            list(self.folder.stage("branches").rows(Solution)) if self._done("branches") else []
        )
        config = self.recipe.pairs
        naive = naive_pairs(solutions, config)
        controlled = step_controlled_pairs(solutions, branches, config)
        size = sum(p.split == "train" for p in (*naive.pairs, *controlled.pairs))
        equal = data_equal(solutions, size, config)
        inputs = [*sources, *(["branches"] if branches else [])]
        for name, result in (
            ("naive", naive),
            ("step_controlled", controlled),
            ("data_equal", equal),
        ):
            stage = self.folder.stage(f"pairs/{name}")
            self._open(stage, config, inputs)
            if not stage.done:
                stage.append_new(result.pairs)
                stage.finish(result.counts)

    def pairs_of(self, method: Method) -> list[Pair]:
        """The pairs a method trains on, held-out ones included."""
        naive = list(self.folder.stage("pairs/naive").rows(Pair))
        if method == "dpo":
            return naive
        if method == "dpo_equal":
            return list(self.folder.stage("pairs/data_equal").rows(Pair))
        controlled = list(self.folder.stage("pairs/step_controlled").rows(Pair))
        return mixture(naive, controlled, self.recipe.pairs.seed)

    def train(self, method: Method) -> None:
        """Stage 3: train the initial policy on a method's pairs."""
        from scdpo.training.dpo import train_dpo

        self._threads()
        for name in ("naive", "step_controlled", "data_equal"):
            self._need(f"pairs/{name}", "pair")
        stage = self.folder.stage(f"policies/{method}")
        inputs = {"dpo": ["naive"], "dpo_equal": ["data_equal"]}.get(
            method, ["naive", "step_controlled"]
        )
        self._open(
            stage, self.recipe.train, [f"pairs/{i}" for i in inputs], policy=self.recipe.policy
        )
        if not stage.done:
            pairs = self.pairs_of(method)
            report = train_dpo(
                policy_path(self.recipe.policy),
                [p for p in pairs if p.split == "train"],
                self.recipe.train,
                stage.path,
                heldout=[p for p in pairs if p.split == "heldout"],
                references=self.folder.path / "references.npz",
                progress=self._progress(f"train {method}"),
            )
            stage.append_new([_trained(method, report, stage.path)], "policy")
            stage.finish(_training_counts(report))

    def evaluate(self, policy: str) -> None:
        """Greedy accuracy of a policy of the run (`sft` or a method) on the test problems."""
        problems = self.problems("test", self.recipe.problems.test)
        stage = self.folder.stage(f"evaluations/{policy}")
        inputs = ["problems/test"]
        path = self.recipe.policy
        if policy != SFT:
            self._need(f"policies/{policy}", "train")
            inputs.append(f"policies/{policy}")
            path = str(self.folder.path / "policies" / policy / "policy")
        self._open(stage, self.recipe.evaluate, inputs, path, SERVICES)
        if not stage.done:
            with self._workshop(path, policy) as shop:
                counts = asyncio.run(
                    evaluate_greedy(
                        problems,
                        self.recipe.evaluate,
                        shop,
                        stage,
                        self._progress(f"evaluate {policy}"),
                    )
                )
            stage.finish(counts)

    def import_solutions(self, path: Path, layout: str, dataset: str) -> Manifest:
        """Recorded solutions as graded rows of this run, executed again on the way."""
        stage = self.folder.stage(f"imports/{path.stem}")
        stage.open({"layout": layout, "dataset": dataset}, {path.name: file_hash(path)})
        if not stage.done:
            counts = asyncio.run(
                import_recorded(
                    path,
                    layout,
                    dataset,
                    self._grading(),
                    self._executor(),
                    stage,
                    self._progress(f"import {path.stem}"),
                )
            )
            stage.finish(counts)
        return stage.manifest or _missing(stage)

    def report(self) -> list[PolicyLine]:
        """One line for every evaluated policy, compared with SFT and with data-equal DPO."""
        rows = {
            name: list(self.folder.stage(f"evaluations/{name}").rows(Evaluation))
            for name in (SFT, *METHODS)
            if self._done(f"evaluations/{name}")
        }
        if not rows:
            raise InputError(f"{self.folder.path}: nothing was evaluated there yet")
        lines = [_line(name, rows, self._pairs_used(name)) for name in rows]
        text = "".join(line.model_dump_json() + "\n" for line in lines)
        write_atomic(self.folder.path / "report.jsonl", text)
        return lines

    def imports(self) -> list[str]:
        """Names of the stages that hold imported solutions."""
        return [
            f"imports/{path.parent.name}"
            for path in sorted((self.folder.path / "imports").glob("*/manifest.json"))
        ]

    def manifests(self) -> list[Manifest]:
        """The manifests of all stages begun, in the order they were begun."""
        found = (
            self.folder.stage(str(path.parent.relative_to(self.folder.path))).manifest
            for path in self.folder.path.rglob("manifest.json")
            if "checkpoints" not in path.parts
        )
        return sorted((m for m in found if m is not None), key=lambda m: (m.started, m.stage))

    # ---- what stages share

    def _done(self, name: str) -> bool:
        return self.folder.stage(name).done

    def _need(self, name: str, command: str) -> None:
        if not self._done(name):
            raise InputError(f"{self.folder.path}: {name} is not there yet; run `scdpo {command}`")

    def _open(
        self,
        stage: Stage,
        config: BaseModel,
        inputs: Sequence[str],
        policy: str | None = None,
        services: Sequence[str] = (),
    ) -> None:
        """Open a stage under its config and the hashes of what it reads."""
        hashes = {name: self._hash(name) for name in inputs}
        if policy is not None:
            hashes["policy"] = policy_hash(policy)
        settings = _plain(config) | {
            key: _plain(getattr(self.recipe, key)) for key in ("format", *services)
        }
        stage.open(settings, hashes)

    def _hash(self, name: str) -> str:
        manifest = self.folder.stage(name).manifest
        return "" if manifest is None or manifest.output_hash is None else manifest.output_hash

    @contextmanager
    def _workshop(self, policy: str, name: str) -> Iterator[Workshop]:
        from scdpo.engines.local import LocalEngine
        from scdpo.policies import load_policy

        self._threads()
        loaded = load_policy(policy, device=self.recipe.engine.device)
        loaded.name = name
        engine = LocalEngine(loaded, config=self.recipe.engine)
        try:
            yield Workshop(engine, self._format(), self._grading(), self._executor())
        finally:
            engine.close()

    def _format(self) -> Format:
        return get_format(**self.recipe.format.model_dump())

    def _grading(self) -> Grader:
        if self._grader is None:
            self._grader = self._stack.enter_context(Grader(self.recipe.grading))
        return self._grader

    def _executor(self) -> ProcessSandbox:
        if self._sandbox is None:
            self._sandbox = self._stack.enter_context(ProcessSandbox(self.recipe.sandbox))
        return self._sandbox

    def _threads(self) -> None:
        if self.recipe.threads is not None:
            import torch

            torch.set_num_threads(self.recipe.threads)

    def _pairs_used(self, policy: str) -> int | None:
        if policy == SFT:
            return None
        return next(self.folder.stage(f"policies/{policy}").rows(TrainedPolicy)).n_pairs


def read_problems(source: ProblemSource) -> list[Problem]:
    """The problems of a source. Raises InputError and DataError."""
    if source.source == "embedded":
        return load_embedded(source.split, source.limit)  # type: ignore[arg-type]
    assert source.path is not None
    return load_problems(source.source, source.path, split=source.split, limit=source.limit)


def _line(name: str, rows: dict[str, list[Evaluation]], pairs: int | None) -> PolicyLine:
    accuracy = summarise(rows[name])
    return PolicyLine(
        policy=name,
        n=accuracy.n,
        accuracy=accuracy.accuracy,
        low=accuracy.low,
        high=accuracy.high,
        undecided=accuracy.undecided,
        unfinished=accuracy.unfinished,
        pairs=pairs,
        vs_sft=_difference(name, SFT, rows),
        vs_data_equal=_difference(name, "dpo_equal", rows),
    )


def _difference(name: str, other: str, rows: dict[str, list[Evaluation]]) -> Difference | None:
    if name == other or other not in rows or (other == "dpo_equal" and name == SFT):
        return None
    comparison = compare(rows[name], rows[other])
    return Difference(**comparison.model_dump(include={"difference", "low", "high", "p"}))


def _trained(method: str, report: TrainingReport, path: Path) -> TrainedPolicy:
    return TrainedPolicy(
        policy=method,
        weights=policy_hash(str(path / "policy")),
        n_pairs=report.n_pairs,
        n_naive=report.n_naive,
        n_step_controlled=report.n_step_controlled,
        steps=report.steps,
        first_loss=report.first_loss,
        final_loss=report.final_loss,
    )


def _training_counts(report: TrainingReport) -> dict[str, int | float]:
    counts: dict[str, int | float] = {
        "pairs": report.n_pairs,
        "steps": report.steps,
        "first_loss": round(report.first_loss, 4),
        "final_loss": round(report.final_loss, 4),
    }
    return counts | {f"dropped:{k}": n for k, n in report.dropped.items()}


def _plain(config: BaseModel) -> dict[str, object]:
    return config.model_dump(mode="json")


def _missing(stage: Stage) -> Manifest:
    raise InputError(f"{stage.path}: the stage has no manifest")
