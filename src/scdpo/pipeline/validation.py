"""The best epoch of a fine-tuning, by greedy accuracy on validation questions.

FOLDER/problems/validation        the questions as read
FOLDER/validation/epoch-N         one row per question, answered by the policy after epoch N
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from scdpo.errors import InputError
from scdpo.evaluation import count_evaluations, evaluate_greedy
from scdpo.pipeline.provenance import made_anything, settings
from scdpo.pipeline.recipe import Recipe
from scdpo.pipeline.services import Services, Watcher, append_all
from scdpo.pipeline.sources import read_problems
from scdpo.pipeline.trained import EpochScore
from scdpo.policies.stated import FORMAT_FILE
from scdpo.records import Evaluation, Problem
from scdpo.store import RunFolder, Stage, file_hash
from scdpo.training.card import CARD
from scdpo.training.sft_config import SFTReport


def choose_epoch(
    folder: RunFolder,
    out: Path,
    recipe: Recipe,
    report: SFTReport,
    services: Services,
    watcher: Watcher,
) -> list[EpochScore]:
    """Evaluate the policies of all epochs, and make the best one `out/policy`.

    `report` is that of the training in `out`, whose epochs were kept. A stopped evaluation resumes;
    once the best epoch is in place, the others are deleted. Of equal epochs, the best is the one
    with the lowest held-out loss or, without held-out solutions, the last. Raises InputError
    without validation questions, and what an evaluation raises.
    """
    problems = _problems(folder, recipe)
    policies = {epoch: Path(path) for epoch, path in report.epochs.items()}
    last = max(policies, default=0) + 1
    policies[last] = out / "policy"
    correct: dict[int, int] = {}
    for epoch, path in policies.items():
        stage = _stage(folder, epoch, out, recipe)
        if not stage.done:
            _evaluate(stage, problems, path, recipe, services, watcher)
        correct[epoch] = sum(row.verdict.correct for row in stage.rows(Evaluation))
    losses = {math.ceil(measured.epochs): -measured.loss for measured in report.heldout}
    best = max(correct, key=lambda epoch: (correct[epoch], losses.get(epoch, 0), epoch))
    _put_in_place(out, best, policies[best])
    n = len(problems)
    shares = ", ".join(f"{100 * correct[epoch] / n:.1f} %" for epoch in sorted(correct))
    watcher.note("epochs", f"{shares} of {n} validation questions right; epoch {best} is kept")
    return [
        EpochScore(epoch=epoch, correct=correct[epoch], n=n, kept=epoch == best)
        for epoch in sorted(correct)
    ]


def _problems(folder: RunFolder, recipe: Recipe) -> list[Problem]:
    if recipe.problems.validation is None:
        raise InputError("sft.keep_best needs questions to choose on: problems.validation")
    stage = folder.stage("problems/validation")
    if not stage.done:
        problems = read_problems(recipe, "validation")
        stage.open(settings(recipe, stage.name), redo=True)
        stage.append_new(problems)
        stage.finish()
    return list(stage.rows(Problem))


def _stage(folder: RunFolder, epoch: int, out: Path, recipe: Recipe) -> Stage:
    """The open stage of an epoch; rows of another training or other questions are deleted."""
    stage = folder.stage(f"validation/epoch-{epoch}")
    questions = folder.stage("problems/validation").manifest
    assert questions is not None
    inputs = {
        questions.stage: questions.output_hash or "",
        "training": file_hash(out / "training.json"),
    }
    stale = stage.manifest is not None and stage.manifest.inputs != inputs
    config = settings(recipe, stage.name)
    return stage.open(config, inputs, redo=stale or not made_anything(stage))


def _evaluate(
    stage: Stage,
    problems: list[Problem],
    policy: Path,
    recipe: Recipe,
    services: Services,
    watcher: Watcher,
) -> None:
    bar = watcher.progress(f"evaluate {stage.path.name}")
    with services.sampler(str(policy), stage.path.name) as sampler:
        rows = evaluate_greedy(
            problems,
            sampler,
            recipe.evaluate,
            existing=stage.ids("problem_id"),
            progress=bar,
        )
        limits = recipe.evaluate.limits
        append_all(stage, services.watched(rows, sampler, limits), "problem_id")
    stage.finish(count_evaluations(stage.rows(Evaluation)))


def _put_in_place(out: Path, best: int, policy: Path) -> None:
    """Make the policy of the best epoch the trained one; stopped anywhere, it can be repeated."""
    if policy != out / "policy" and policy.exists():
        for name in (CARD, FORMAT_FILE):  # those of the last epoch are for all of them
            if (out / "policy" / name).exists():
                shutil.copyfile(out / "policy" / name, policy / name)
        shutil.rmtree(out / "policy", ignore_errors=True)
        policy.rename(out / "policy")
        adapter = policy.with_name("adapter")
        if adapter.exists():
            shutil.rmtree(out / "adapter", ignore_errors=True)
            adapter.rename(out / "adapter")
    shutil.rmtree(out / "epochs", ignore_errors=True)
