"""A policy measured on benchmarks: one stage for each, in a folder for the policy.

OUT/problems/BENCHMARK      the questions as read
OUT/evaluations/BENCHMARK   one row per question, answered greedily
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from scdpo.errors import InputError
from scdpo.evaluation import GroupBy, count_evaluations, evaluate_greedy
from scdpo.pipeline.card import accuracies_on_benchmarks
from scdpo.pipeline.changes import Changes
from scdpo.pipeline.provenance import LOGS, keep_environment, made_anything, settings
from scdpo.pipeline.recipe import Recipe, make_recipe, read_yaml
from scdpo.pipeline.services import Services, Silent, Watcher, append_all
from scdpo.policies import EMBEDDED, policy_hash, stated_format
from scdpo.problems import BENCHMARKS, load_problems
from scdpo.problems.places import Place as Place
from scdpo.problems.places import places as places
from scdpo.records import Evaluation, Problem
from scdpo.store import RunFolder, Stage

_NO_PROBLEMS = {"train": {"source": EMBEDDED}, "test": {"source": EMBEDDED}}
"""Placeholder: a measurement does not read a recipe's problems."""


def measuring_recipe(
    recipe: str | None,
    policy: str | None,
    *,
    format: str | None = None,
    chat_template: bool = False,
    end: Sequence[str] = (),
    rows: int | None = None,
    changes: Changes | None = None,
) -> Recipe:
    """The settings for measuring a policy, from a recipe (a file or a packaged name); its problems
    are not read and may be missing.

    Without a recipe, the embedded policy is measured with its own, and another one in the format
    that its folder states. `policy`, `format` (a name), `chat_template` (use the tokenizer's),
    `end` (end strings) and `rows` (questions answered side by side) override the recipe, as do
    `changes` by dotted key. Raises RecipeError, and InputError if the policy or its format is not
    given.
    """
    if recipe is None and policy is None:
        raise InputError("--policy is needed: embedded, a folder, or a hub name owner/model")
    changes = changes or {}
    named = format is not None or any(key.partition(".")[0] == "format" for key in changes)
    stated = None
    if recipe is None and policy not in (None, EMBEDDED) and not named:
        stated = stated_format(str(policy))
    if recipe is None and policy != EMBEDDED and not named and stated is None:
        raise InputError(
            f"policy {policy}: its solution format is not known; give --format (blocks, fenced or "
            "plain) or a --recipe with a section format"
        )
    name = EMBEDDED if recipe is None and policy == EMBEDDED else recipe
    data: dict[str, Any] = {}
    where = "options"
    if name is not None:
        data, where = read_yaml(name)
    data = {"problems": _NO_PROBLEMS} | data | ({"format": stated} if stated else {})
    if policy is not None:
        data["policy"] = policy
    template = "auto" if chat_template else None
    _put(data, "format", {"name": format, "chat_template": template, "end": list(end) or None})
    _put(data, "evaluate", {"rows": rows})
    return make_recipe(data, where, changes)


def _put(data: dict[str, Any], section: str, values: Mapping[str, object]) -> None:
    """Set those values that are not None in a section of plain settings."""
    given = {key: value for key, value in values.items() if value is not None}
    if given:
        below = data.get(section)
        data[section] = (below if isinstance(below, dict) else {}) | given


def policy_name(policy: str) -> str:
    """The name of a policy in rows and folders: the last distinctive part of its path or hub
    name, such as scdpo for `policies/scdpo/policy`."""
    parts = [part for part in Path(policy).resolve().parts if part not in ("policy", "/")]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", parts[-1]).strip("._-") if parts else "policy"


class Measurement:
    """The measurement of one policy on some benchmarks, in a folder; a context manager.

    The constructor reads all problems before it makes the folder, and refuses `by` if no question
    has such a group. `run` resumes an existing folder; a folder started with another policy, other
    settings or other data is refused before anything is generated. `redo` measures the named
    benchmarks again. Raises InputError, DataError, MissingDependency, PolicyError and
    StoreError.
    """

    def __init__(
        self,
        recipe: Recipe,
        benchmarks: Sequence[Place],
        out: Path | None = None,
        watcher: Watcher | None = None,
        *,
        limit: int | None = None,
        by: GroupBy | None = None,
        redo: bool = False,
    ):
        self.recipe = recipe
        self.policy = policy_name(recipe.policy)
        self.path = out or Path("evaluations") / self.policy
        self._watcher = watcher or Silent()
        self._limit = limit
        self._redo = redo
        self._problems = {
            place.name: load_problems(place.name, place.path, limit=limit) for place in benchmarks
        }
        problems = [problem for group in self._problems.values() for problem in group]
        if by is not None and all(getattr(problem, by) is None for problem in problems):
            raise InputError(
                f"--by {by}: the questions of {', '.join(self._problems)} have no {by}"
            )
        self._hash = policy_hash(recipe.policy)
        self._services = Services(recipe, self._watcher, logs=self.path / LOGS)
        self.folder = RunFolder(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._services.close()
        finally:
            self.folder.close()

    def groups(self, benchmark: str, by: GroupBy | None = None) -> list[GroupBy]:
        """What results of a benchmark are usually broken down by, and `by`."""
        return list(dict.fromkeys((*BENCHMARKS[benchmark].groups, *([by] if by else []))))

    def run(self) -> dict[str, list[Evaluation]]:
        """Answer the remaining questions; returns all rows of each benchmark.

        Raises StoreError, EngineError, SandboxError and GradingError.
        """
        stages = {name: self._opened(name, group) for name, group in self._problems.items()}
        todo = {name: stage for name, stage in stages.items() if not stage.done}
        if todo:
            with self._services.sampler(self.recipe.policy, self.policy) as sampler:
                for name, stage in todo.items():
                    keep_environment(self.path, self._services.environment(stage.name))
                    rows = evaluate_greedy(
                        self._problems[name],
                        sampler,
                        self.recipe.evaluate,
                        existing=stage.ids("problem_id"),
                        progress=self._watcher.progress(name),
                    )
                    limits = self.recipe.evaluate.limits
                    append_all(stage, self._services.watched(rows, sampler, limits), "problem_id")
                    stage.finish(count_evaluations(stage.rows(Evaluation)))
        answered = {name: list(stage.rows(Evaluation)) for name, stage in stages.items()}
        accuracies_on_benchmarks(Path(self.recipe.policy), self.policy, answered)
        return answered

    def _opened(self, name: str, problems: Sequence[Problem]) -> Stage:
        """The stage of a benchmark, after storing its problems in their own stage."""
        kept = self._begun(
            f"problems/{name}",
            {"benchmark": name, "limit": self._limit},
            {"data": _content(problems)},
        )
        if not kept.done:
            kept.append_new(problems)
            kept.finish()
        manifest = kept.manifest
        inputs = {"policy": self._hash, "problems": (manifest and manifest.output_hash) or ""}
        stage = f"evaluations/{name}"
        return self._begun(stage, settings(self.recipe, stage), inputs)

    def _begun(self, name: str, config: Mapping[str, object], inputs: Mapping[str, str]) -> Stage:
        stage = self.folder.stage(name)
        return stage.open(config, inputs, redo=self._redo or not made_anything(stage))


def _content(problems: Sequence[Problem]) -> str:
    """A hash of the problems, in order."""
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(problem.model_dump_json(exclude_defaults=True).encode() + b"\n")
    return digest.hexdigest()[:16]
