"""Where the rows of a run come from: the settings and environment of each stage."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from scdpo.evaluation import SFT
from scdpo.pipeline.recipe import METHODS, Recipe
from scdpo.records import Record
from scdpo.store import (
    Manifest,
    Stage,
    changed_keys,
    read_jsonl,
    utc_now,
    versions,
    write_jsonl,
)

GENERATES = ("format", "engine", "sandbox", "grading", "threads")
SHAPED_BY: dict[str, tuple[str, ...]] = {
    "problems": (),
    "demonstrations": ("sft", "format", "sandbox", "grading"),
    "sft": ("sft", "threads"),
    "validation": ("evaluate", *GENERATES),
    "solutions": ("sample", *GENERATES),
    "imports": ("format", "sandbox", "grading"),
    "branches": ("branch", *GENERATES),
    "pairs": ("pairs",),
    "policies": ("train", "threads"),
    "evaluations": ("evaluate", *GENERATES),
    "quality": (),
    "credit": (),
    "credit/solutions": ("sample", *GENERATES),
}
"""The recipe keys that shape the rows of each stage, besides its inputs: by kind, in the order in
which they run, or by the stage's whole name."""
ONLY_SPEED = {"sandbox": {"max_sessions", "parallel"}, "grading": {"workers"}}
"""Settings that affect only speed and may therefore change during a run."""
OWN = "own"
"""Key of a training's manifest: which settings of section `train` are its own, not the recipe's."""
ENVIRONMENTS = "environment.jsonl"
PARTS = ("train", "test", "naive", "step_controlled", "data_equal", SFT, *METHODS)
"""The order of stages of the same kind."""


class Environment(Record):
    """What a stage ran on; one row for each time a process worked on it.

    `sandbox` is the isolation obtained for model-written code, such as `user+pid+ipc+net+seccomp`,
    and empty for stages that execute none. `device` and `threads` are torch's.
    """

    stage: str
    started: str
    host: str
    cpus: int
    device: str
    threads: int
    sandbox: str
    versions: dict[str, str]


def environment(stage: str, *, device: str, threads: int, sandbox: str) -> Environment:
    """The current environment, as that of a stage."""
    return Environment(
        stage=stage,
        started=utc_now(),
        host=f"{platform.node()} {platform.machine()} {platform.system()} {platform.release()}",
        cpus=os.cpu_count() or 1,
        device=device,
        threads=threads,
        sandbox=sandbox,
        versions=versions(),
    )


def keep_environment(folder: Path, now: Environment) -> None:
    """Append the environment of a stage that starts or resumes now to the folder's list."""
    write_jsonl(folder / ENVIRONMENTS, [*environments(folder), now])


def environments(folder: Path) -> list[Environment]:
    """The environments of a folder's stages, in the order in which they ran."""
    path = folder / ENVIRONMENTS
    return list(read_jsonl(path, Environment)) if path.exists() else []


def settings(recipe: Recipe, stage: str) -> dict[str, Any]:
    """The recipe's settings that shape the rows of a stage, under the recipe's own keys."""
    kind, _, part = stage.partition("/")
    plain = recipe.model_dump(mode="json", exclude=ONLY_SPEED)
    if kind == "problems":
        return {"problems": {part: plain["problems"][part]}}
    if kind == "demonstrations":  # the other keys of sft shape the training
        plain["sft"] = {key: plain["sft"][key] for key in ("data", "add_tokens")}
    elif kind == "sft":
        del plain["sft"]["data"]
    return {key: plain[key] for key in SHAPED_BY.get(stage, SHAPED_BY[kind])}


def changed_settings(recipe: Recipe, manifest: Manifest) -> list[str]:
    """`key old → new` for every setting of the recipe that has changed since a stage was started.

    What a training has of its own is not the recipe's.
    """
    now = settings(recipe, manifest.stage)
    for key in manifest.config.get(OWN, ()):
        now["train"] = now["train"] | {key: manifest.config["train"].get(key)}
    if manifest.stage.startswith("imports/"):
        now = imported_settings(now, manifest)
    return changed_keys({key: manifest.config.get(key) for key in now}, now)


def imported_settings(now: dict[str, Any], manifest: Manifest | None) -> dict[str, Any]:
    """The settings of an import. Rows that were imported before imports took the run's format
    stay as they are: for those, the format is no setting."""
    if manifest is None or "format" in manifest.config or manifest.status != "done":
        return now
    return {key: value for key, value in now.items() if key != "format"}


def made_anything(stage: Stage) -> bool:
    """Whether a stage is done or has output that would be lost by running it again."""
    files = [path for path in stage.path.rglob("*") if path.is_file()]
    made = any(path.name != "manifest.json" and path.stat().st_size for path in files)
    return made or stage.done


def in_order(manifests: list[Manifest]) -> list[Manifest]:
    """Manifests in the order in which a whole run starts their stages."""

    def place(manifest: Manifest) -> tuple[int, int, str]:
        kind, _, part = manifest.stage.partition("/")
        kinds = list(SHAPED_BY)
        first = kinds.index(kind) if kind in kinds else len(kinds)
        second = PARTS.index(part) if part in PARTS else len(PARTS)
        return first, second, manifest.started

    return sorted(manifests, key=place)
