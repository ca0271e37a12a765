"""Credit assignment on a run's own policies: solutions of questions that none was trained on, the
implicit reward of every token, and how well low rewards find the first wrong step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from scdpo.errors import InputError
from scdpo.evaluation import SFT
from scdpo.formats.base import Format
from scdpo.formats.compose import compose
from scdpo.insight.credit import labelled, step_scores
from scdpo.insight.finding import Finding, FindingDifference, FindingLine
from scdpo.insight.labels import (
    HumanLabelled,
    StepLabels,
    human_labels,
    oracle,
    read_processbench,
)
from scdpo.insight.rewards import SolutionRewards, fits, token_rewards
from scdpo.pipeline.opened import OpenRun, manifest_of
from scdpo.pipeline.provenance import settings
from scdpo.pipeline.services import append_all
from scdpo.pipeline.sources import NO_ORACLE, problems_with_oracle
from scdpo.policies import load_policy
from scdpo.records import CORRECT, WRONG, Solution, Step, WorkedStep
from scdpo.sampling import count_solutions, sample_solutions
from scdpo.store import Stage, file_hash, read_jsonl

if TYPE_CHECKING:
    from scdpo.pipeline.run import Run

By = Literal["mean", "total", "lowest"]
SOLUTIONS, REWARDS = "credit/solutions", "credit/rewards"
METHODS_FIRST = ("scdpo", "dpo", "dpo_equal")
"""The order of policies: as in the paper, SCDPO is on the left and DPO to its right."""


@dataclass(frozen=True, slots=True)
class Credit:
    """The rewards of solutions under a run's policies, and how well they find first wrong steps.

    `lines` has one entry for each policy and baseline, `differences` compares the first policy
    with the others and with the reference policy's log-probs. Both are empty where no step is
    known to be wrong; `unlabelled` says why. `first_wrong` are the known first wrong steps by
    solution. The rows are kept in `folder`.
    """

    by: By
    rewards: tuple[SolutionRewards, ...]
    first_wrong: dict[str, int]
    folder: Path
    lines: tuple[FindingLine, ...] = ()
    differences: tuple[FindingDifference, ...] = ()
    unlabelled: str = ""


def credit_on_own_solutions(run: Run, *, attempts: int, limit: int | None, by: By) -> Credit:
    """Sample solutions of test questions, and measure where the policies put the blame.

    Steps are labelled by the oracle where the problems have worked solutions (the embedded ones).
    """
    trained_names(run)  # raises before anything is sampled
    stage = sample_for_credit(run, attempts, limit)
    rows = [row for row in stage.rows(Solution) if row.steps and row.finish == "finished"]
    rewards = rewards_of(run, REWARDS, rows, manifest_of(stage).output_hash or "")
    return _on_own_solutions(run, rewards, rows, by)


def kept_credit(run: OpenRun, by: By) -> Credit | None:
    """What `credit_on_own_solutions` has kept in a run; None if it has not been done."""
    solutions, rewards = run.stage(SOLUTIONS), run.stage(REWARDS)
    if not solutions.done or not rewards.done:
        return None
    known = rewards.ids("solution_id")
    rows = [row for row in solutions.rows(Solution) if row.id in known]
    return _on_own_solutions(run, rewards, rows, by)


def _on_own_solutions(run: OpenRun, rewards: Stage, rows: Sequence[Solution], by: By) -> Credit:
    """How well the rewards of a run's own solutions find the steps that the oracle calls wrong."""
    known = problems_with_oracle(run.recipe, "test")
    if any(row.problem_id not in known for row in rows):
        every = tuple(rewards.rows(SolutionRewards))
        return Credit(by, every, {}, rewards.path, unlabelled=NO_ORACLE)
    return _measured(rewards, [oracle(known[row.problem_id], row) for row in rows], by)


def credit_on_processbench(run: Run, path: Path, *, limit: int | None, by: By) -> Credit:
    """Measure on solutions of other models whose first wrong step people have marked.

    Solutions that do not fit into the policies' context, or contain what their format reads as a
    marker, are left out and counted in a note. Raises InputError and DataError.
    """
    rows = read_processbench(path, limit)
    solutions = as_solutions(rows, run.services.format(run.initial_policy))
    reference = load_policy(run.initial_policy)
    fit = [row for row in solutions if fits(row, reference)]
    run.watcher.note("credit", f"{len(fit)} of {len(rows)} solutions in {path} can be used")
    if not fit:
        raise InputError(f"{path}: no solution fits into the policies' context")
    rewards = rewards_of(run, _stage_of(path), fit, f"{file_hash(path)} {limit}")
    return _measured(rewards, [human_labels(row) for row in rows], by)


def credit_on_file(run: Run, path: Path, *, limit: int | None, by: By) -> Credit:
    """Rewards of the solutions in a file of `Solution` rows, such as one of a run folder's.

    Their steps are labelled where they are solutions of embedded problems. Those that do not fit
    into the policies' context are left out and counted in a note. Raises InputError for rows in
    another format than the run's, and DataError.
    """
    rows = [row for row in islice(read_jsonl(path, Solution), limit) if row.steps]
    name = run.services.format(run.initial_policy).name
    if other := next((row for row in rows if row.format != name), None):
        raise InputError(f"{path}: solution {other.id} is in format {other.format!r}, not {name!r}")
    reference = load_policy(run.initial_policy)
    fit = [row for row in rows if fits(row, reference)]
    run.watcher.note("credit", f"{len(fit)} of {len(rows)} solutions in {path} can be used")
    if not fit:
        raise InputError(f"{path}: no solution fits into the policies' context")
    rewards = rewards_of(run, _stage_of(path), fit, f"{file_hash(path)} {limit}")
    known = problems_with_oracle(run.recipe, "test") | problems_with_oracle(run.recipe, "train")
    labels = [oracle(known[row.problem_id], row) for row in fit if row.problem_id in known]
    if not labels:
        every = tuple(rewards.rows(SolutionRewards))
        return Credit(by, every, {}, rewards.path, unlabelled=NO_ORACLE)
    return _measured(rewards, labels, by)


def _stage_of(path: Path) -> str:
    """The stage of the rewards of a file's solutions."""
    return f"credit/{re.sub(r'[^A-Za-z0-9]+', '_', f'{path.parent.name}-{path.stem}').strip('_')}"


def sample_for_credit(run: Run, attempts: int, limit: int | None) -> Stage:
    """The stage `credit/solutions`: `attempts` solutions of each test question by the initial
    policy, at the temperature of naive sampling. No training has seen these questions."""
    problems = run.problems("test")[:limit]
    config = run.recipe.sample.model_copy(
        update={"correct": attempts, "wrong": attempts, "max_attempts": attempts}
    )
    kept = {"credit": {"attempts": attempts, "limit": limit}}
    stage = run.open(
        SOLUTIONS,
        ["problems/test"],
        policy=True,
        config=settings(run.recipe, SOLUTIONS) | kept,
    )
    if not stage.done:
        bar = run.watcher.progress("credit: sample")
        with run.services.sampler(run.initial_policy, SFT) as sampler:
            run.record(stage)
            have = stage.rows(Solution)
            append_all(
                stage, sample_solutions(problems, sampler, config, existing=have, progress=bar)
            )
        stage.finish(count_solutions(stage.rows(Solution)))
    return stage


def rewards_of(run: Run, name: str, solutions: Sequence[Solution], source: str) -> Stage:
    """A stage with a row for each of these solutions and each trained policy of the run.

    `source` is a hash of where the solutions are from. Computed again whenever that or a training
    has changed. Each policy's rewards have the β of its own training. Raises InputError where no
    training is finished.
    """
    names = trained_names(run)
    inputs = {n: manifest_of(run.stage(f"policies/{n}")).output_hash or "" for n in names}
    inputs["solutions"] = source
    stage = run.derived(name, inputs, {"policies": names}, resume=True)
    if not stage.done:
        run.record(stage)
        trainings = run.trainings()
        betas = {n: float(trainings[n].train["beta"]) for n in names}
        policies = {n: load_policy(run.stage(f"policies/{n}").path / "policy") for n in names}
        reference = load_policy(run.initial_policy)
        have = stage.ids("policy", "solution_id")
        left = [s for s in solutions if any((n, s.id) not in have for n in names)]
        bar = run.watcher.progress("credit: rewards")
        for row in token_rewards(policies, reference, left, beta=betas, progress=bar):
            stage.append_new([row], "policy", "solution_id")
        stage.finish({"solutions": len(solutions), "policies": len(names)})
    return stage


def trained_names(run: Run) -> list[str]:
    """The finished trainings, SCDPO first. Raises InputError where there are none."""
    done = [name for name in run.trainings() if run.stage(f"policies/{name}").done]
    if not done:
        raise InputError(f"{run.path}: no trained policy; run `scdpo train {run.path}` first")
    last = len(METHODS_FIRST)
    return sorted(done, key=lambda n: METHODS_FIRST.index(n) if n in METHODS_FIRST else last)


def _measured(stage: Stage, labels: Sequence[StepLabels], by: By) -> Credit:
    """How well the rewards find the first wrong steps; each policy against the first."""
    rewards = tuple(stage.rows(SolutionRewards))
    known, problems = labelled(rewards, labels)
    first = {row.solution_id: row.first_wrong for row in known if row.first_wrong is not None}
    if not first:
        why = "none of the solutions has a step known to be wrong"
        return Credit(by, rewards, first, stage.path, unlabelled=why)
    finding = Finding(known, problems, step_scores(rewards, by=by))
    names = list(dict.fromkeys(row.policy for row in rewards))
    others = [*names[1:], "reference log-prob"]
    return Credit(
        *(by, rewards, first, stage.path),
        lines=tuple(finding.lines()),
        differences=tuple(finding.difference(names[0], other) for other in others),
    )


def as_solutions(rows: Sequence[HumanLabelled], format: Format) -> list[Solution]:
    """Solutions of ProcessBench written in a policy's format, a step for each of theirs.

    A row that contains what the format reads as a marker or as the end of a step is left out.
    """
    made = []
    for row in rows:
        try:
            written = [compose([WorkedStep(text=text)], format) for text in row.steps]
        except InputError:
            continue
        steps = tuple(_joined(parts, last=n == len(written) - 1, format=format)
                      for n, parts in enumerate(written))  # fmt: skip
        made.append(_solution(row, format, steps))
    return made


def _joined(parts: Sequence[Step], *, last: bool, format: Format) -> Step:
    """One step of what a text was composed to; only the last one of a solution ends it."""
    text = "".join(part.text for part in parts)
    if last:
        return Step(kind="text", text=text)
    for end in format.end:
        text = text.removesuffix(end)
    boundary = "" if format.stop and text.endswith(tuple(format.stop)) else (*format.stop, "\n")[0]
    return Step(kind="text", text=text + boundary)


def _solution(row: HumanLabelled, format: Format, steps: tuple[Step, ...]) -> Solution:
    return Solution(
        id=row.id,
        problem_id=row.id,
        dataset="processbench",
        question=row.problem,
        format=format.name,
        policy=row.generator,
        prompt=format.prompt(row.problem),
        steps=steps,
        finish="finished",
        answer=None,
        verdict=CORRECT if row.final_answer_correct else WRONG,
        attempt=0,
        seed=0,
    )
