"""The temperature study of a run's initial policy: batches of solutions at constant temperatures, a
schedule for branching chosen from them and, to check it, real branching on other questions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from scdpo.errors import InputError
from scdpo.evaluation import SFT
from scdpo.insight.schedules import Continued, ScheduleFigures, measured
from scdpo.insight.study import LINES, STUDY, ScheduleLine, TemperatureStudy
from scdpo.insight.suggestion import Rule, suggest
from scdpo.insight.temperature import Drawn, temperature_lines
from scdpo.pipeline.provenance import settings
from scdpo.pipeline.services import append_all
from scdpo.records import Problem, Solution
from scdpo.sampling import (
    BranchConfig,
    Sampler,
    Schedule,
    branch_solutions,
    count_branches,
    count_solutions,
    first_preferred,
    sample_solutions,
)
from scdpo.store import Stage, write_atomic, write_jsonl
from scdpo.waiting import Progress

if TYPE_CHECKING:
    from scdpo.pipeline.run import Run

TEMPERATURES = (0.0, 0.5, 0.8, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.7)
"""The default ones; as in the paper they reach from 0 to 1.7, closer where schedules are."""
FROM_QUESTIONS, FROM_STEPS = "pilot/from_questions", "pilot/from_steps"

Draw = Callable[[Sampler, float, list[Solution], Progress], AsyncIterator[list[Solution]]]
"""Draws solutions at a temperature, given those that exist."""


@dataclass(frozen=True, slots=True)
class PilotSettings:
    """What is drawn: `draws` solutions of the first `questions` training problems, and as many
    continuations of each of their preferred solutions, at each of the `temperatures`. `check` is
    the number of further questions on which the schedules are tried by real branching."""

    temperatures: tuple[float, ...] = TEMPERATURES
    questions: int = 100
    draws: int = 4
    check: int = 0


def pilot(run: Run, wanted: PilotSettings, rule: Rule | None = None) -> TemperatureStudy:
    """Make or resume the study, and write it to the run folder (`study.STUDY`, `study.LINES`).

    The sampling temperature is measured too if it is not among the temperatures. Raises InputError
    if no question has both a right and a wrong solution, which branching needs.
    """
    rule = rule or Rule()
    sampling, config = run.recipe.sample.temperature, run.recipe.branch
    wanted = PilotSettings(**asdict(wanted) | {"temperatures": _with(wanted, sampling)})
    problems = run.problems("train")
    questions = problems[: wanted.questions]
    others = problems[wanted.questions : wanted.questions + wanted.check]
    if wanted.check and not others:
        raise InputError(
            f"--check needs questions besides the {wanted.questions} of the study; "
            f"{run.path} has {len(problems)} training questions"
        )
    _, parents = _parents(run, "pilot/solutions", questions)
    whole = list(_from_questions(run, questions, wanted).rows(Drawn))
    continued = list(_from_steps(run, questions, parents, wanted).rows(Drawn))
    lines = temperature_lines([*whole, *continued], truncated_is_wrong=config.truncated_is_wrong)
    study = Continued(continued, config)
    suggestion = suggest(study, sampling, rule)
    schedules = {"recipe": config.schedule, "suggested": suggestion.schedule}
    checked = _check(run, others, schedules) if others else {}
    made = TemperatureStudy(
        policy=run.recipe.policy,
        sampling=sampling,
        questions=len(questions),
        parents=len(parents),
        draws=wanted.draws,
        lines=tuple(lines),
        schedules=tuple(
            ScheduleLine(
                role="recipe" if role == "recipe" else "suggested",
                schedule=schedule,
                predicted=study.predict(schedule),
                measured=checked[role][0] if role in checked else None,
                measured_on=checked[role][1] if role in checked else 0,
            )
            for role, schedule in schedules.items()
        ),
        rule=rule,
        floor=suggestion.floor,
        most_lost=suggestion.most_lost,
        tried=suggestion.tried,
        allowed=suggestion.allowed,
    )
    write_jsonl(run.path / LINES, made.lines)
    write_atomic(run.path / STUDY, made.model_dump_json(indent=2) + "\n")
    return made


def _with(wanted: PilotSettings, sampling: float) -> tuple[float, ...]:
    """The temperatures in order, that of naive sampling included."""
    return tuple(sorted({*wanted.temperatures, sampling}))


# ---- stages


def _parents(run: Run, name: str, problems: Sequence[Problem]) -> tuple[str, list[Solution]]:
    """The solutions that branching would continue, and the stage that has them: the run's own
    `solutions` if these are finished, or else the stage `name`, sampled as stage 1 would."""
    begun = run.begun(name) and not run.redone(name)
    if run.stage("solutions").done and not begun:
        stage = run.stage("solutions")
    else:
        stage = _sampled(run, name, problems)
    ids = {problem.id for problem in problems}
    rows = (row for row in stage.rows(Solution) if row.problem_id in ids)
    wrong = run.recipe.branch.truncated_is_wrong
    found = first_preferred(rows, truncated_is_wrong=wrong)
    if not found:
        raise InputError(
            f"{run.path}: none of the {len(problems)} questions has both a right and a wrong "
            "solution, so there is nothing to continue; give more --questions"
        )
    return stage.name, found


def _sampled(run: Run, name: str, problems: Sequence[Problem]) -> Stage:
    stage = _opened(run, name, ["problems/train"], {"problems": [p.id for p in problems]})
    if not stage.done:
        bar = run.watcher.progress("pilot: sample")
        with run.services.sampler(run.initial_policy, SFT) as sampler:
            run.record(stage)
            config, have = run.recipe.sample, stage.rows(Solution)
            append_all(
                stage, sample_solutions(problems, sampler, config, existing=have, progress=bar)
            )
        stage.finish(count_solutions(stage.rows(Solution)))
    return stage


def _from_questions(run: Run, questions: Sequence[Problem], wanted: PilotSettings) -> Stage:
    """The stage of whole solutions at each temperature."""
    n = wanted.draws
    stops = {"correct": n, "wrong": n, "max_attempts": n}  # never reached before n attempts

    def draw(
        sampler: Sampler, temperature: float, have: list[Solution], bar: Progress
    ) -> AsyncIterator[list[Solution]]:
        changes = {**stops, "temperature": temperature}
        config = run.recipe.sample.model_copy(update=changes)
        return sample_solutions(questions, sampler, config, existing=have, progress=bar)

    sample = run.recipe.sample
    shaped = {"limits": sample.limits, "seed": sample.seed, "error": sample.error_words_in_question}
    return _drawn(run, FROM_QUESTIONS, ["problems/train"], wanted, shaped, draw, {})


def _from_steps(
    run: Run,
    questions: Sequence[Problem],
    parents: Sequence[Solution],
    wanted: PilotSettings,
) -> Stage:
    """The stage of continuations at each temperature, from branch steps in random order."""
    n = wanted.draws
    stops = {"negatives": n, "max_attempts": n, "branch_steps": "random"}

    def draw(
        sampler: Sampler, temperature: float, have: list[Solution], bar: Progress
    ) -> AsyncIterator[list[Solution]]:
        constant = Schedule(temperature, 0.0, temperature)
        config = run.recipe.branch.model_copy(update={**stops, "schedule": constant})
        return branch_solutions(
            parents, sampler, config, problems=questions, existing=have, progress=bar
        )

    branch = run.recipe.branch.model_dump(mode="json")
    shaped = {key: branch[key] for key in ("limits", "seed", "skip_last", "min_mean_logp")}
    shaped |= {"parents": [parent.id for parent in parents]}
    lengths = {parent.id: len(parent.steps) for parent in parents}
    return _drawn(run, FROM_STEPS, ["problems/train"], wanted, shaped, draw, lengths)


def _drawn(
    run: Run,
    name: str,
    inputs: Sequence[str],
    wanted: PilotSettings,
    shaped: dict[str, Any],
    draw: Draw,
    lengths: dict[str, int],
) -> Stage:
    """A stage of solutions at each temperature; `lengths` are the steps of parents."""
    given = asdict(wanted)
    shaped |= {key: given[key] for key in ("temperatures", "questions", "draws")}
    stage = _opened(run, name, inputs, shaped)
    if stage.done:
        return stage
    bar = run.watcher.progress(f"pilot: {name.split('_')[-1]}")
    have = list(stage.rows(Drawn))
    count = len(wanted.temperatures)

    async def rows(sampler: Sampler) -> AsyncIterator[list[Drawn]]:
        for n, temperature in enumerate(wanted.temperatures):
            existing = [row.solution for row in have if row.temperature == temperature]
            part = _part(bar, n, count)
            async for chunk in draw(sampler, temperature, existing, part):
                yield [_row(solution, temperature, lengths) for solution in chunk]

    with run.services.sampler(run.initial_policy, SFT) as sampler:
        run.record(stage)
        append_all(stage, rows(sampler))
    stage.finish(count_solutions(row.solution for row in stage.rows(Drawn)))
    return stage


def _row(solution: Solution, temperature: float, lengths: dict[str, int]) -> Drawn:
    parent = solution.parent
    return Drawn(
        id=f"{solution.id} T={temperature:g}",
        temperature=temperature,
        remaining=0 if parent is None else lengths[parent] - solution.branch_step,
        solution=solution,
    )


def _part(bar: Progress, n: int, count: int) -> Progress:
    """The progress of the n-th of `count` equal parts."""
    return lambda done, total: bar(n * total + done, count * total)


def _opened(run: Run, name: str, inputs: Sequence[str], shaped: dict[str, Any]) -> Stage:
    config = settings(run.recipe, name) | {"pilot": shaped}
    return run.open(name, inputs, policy=True, config=config)


# ---- checking the prediction


def _check(
    run: Run, questions: Sequence[Problem], schedules: dict[str, Schedule]
) -> dict[str, tuple[ScheduleFigures, int]]:
    """What branching really gives with each schedule on other questions than those of the study,
    and on how many parents."""
    source, parents = _parents(run, "pilot/check_solutions", questions)
    found = {}
    for role, schedule in schedules.items():
        config = run.recipe.branch.model_copy(update={"schedule": schedule})
        stage = _branched(run, f"pilot/check_{role}", source, questions, parents, config)
        rows = list(stage.rows(Solution))
        found[role] = measured(rows, config), len(parents)
    return found


def _branched(
    run: Run,
    name: str,
    source: str,
    questions: Sequence[Problem],
    parents: Sequence[Solution],
    config: BranchConfig,
) -> Stage:
    shaped = {"branch": config, "parents": [parent.id for parent in parents]}
    stage = _opened(run, name, [source], shaped)
    if not stage.done:
        bar = run.watcher.progress(f"pilot: {name.split('_')[-1]}")
        with run.services.sampler(run.initial_policy, SFT) as sampler:
            run.record(stage)
            chunks = branch_solutions(
                parents,
                sampler,
                config,
                problems=questions,
                existing=stage.rows(Solution),
                progress=bar,
            )
            append_all(stage, chunks)
        stage.finish(count_branches(stage.rows(Solution)))
    return stage
