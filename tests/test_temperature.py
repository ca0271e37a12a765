"""The temperature study: figures by hand, predictions for schedules, the rule that chooses one."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from scdpo.errors import DataError, InputError, RecipeError
from scdpo.insight.schedules import Continued, measured
from scdpo.insight.study import LINES, STUDY, TemperatureStudy, read_study
from scdpo.insight.suggestion import Rule, schedules, suggest
from scdpo.insight.temperature import Drawn, TemperatureLine, outcome, temperature_lines
from scdpo.insight.temperature_plot import draw_study, panels
from scdpo.pipeline.pilot import FROM_STEPS, PilotSettings, pilot
from scdpo.pipeline.recipe import make_recipe
from scdpo.pipeline.recipe_files import recipe_names, recipe_text
from scdpo.pipeline.run import Run
from scdpo.pipeline.schedule_in_recipe import with_schedule
from scdpo.problems.embedded import load_embedded
from scdpo.records import CORRECT, WRONG, Solution, Step, Verdict, undecided
from scdpo.sampling import BranchConfig, Limits, Schedule
from scdpo.store import read_jsonl
from scripted_policies import END, engine, text, written
from small_runs import fail, recipe, succeed, write_recipe

CONFIG = BranchConfig(negatives=1, max_attempts=1, limits=Limits(max_steps=8))


def drawn(
    question: int,
    attempt: int,
    temperature: float,
    verdict: Verdict = CORRECT,
    *,
    steps: int = 2,
    tokens: int = 10,
    logp: float = -0.1,
    step: bool = True,
    **changes: Any,
) -> Drawn:
    """A solution of a question, by default one that continues the first step of a right one."""
    name = f"q{question}#{attempt}"
    shared = [Step(kind="text", text="a", token_ids=(1,), mean_logp=0.0)] if step else []
    new = Step(kind="text", text=name, token_ids=tuple(range(tokens)), mean_logp=logp)
    fields: dict[str, Any] = {
        "id": name,
        "problem_id": f"q{question}",
        "dataset": "d",
        "question": "q",
        "format": "plain",
        "policy": "sft",
        "prompt": "p",
        "steps": [*shared, *[new] * steps],
        "finish": "finished",
        "answer": "1" if verdict.correct else "2",
        "verdict": verdict,
        "attempt": attempt,
        "seed": 0,
        "parent": f"q{question}#0" if step else None,
        "branch_step": 1 if step else 0,
    }
    return Drawn(
        id=f"{name} T={temperature}",
        temperature=temperature,
        remaining=steps if step else 0,
        solution=Solution.model_validate(fields | changes),
    )


def batch(temperature: float, wrong: int, lost: int = 0, of: int = 10, **more: Any) -> list[Drawn]:
    """Continuations at a temperature, one a question, of which some go wrong or are lost."""
    rows = []
    for n in range(of):
        if n < lost:
            rows.append(drawn(n, 1, temperature, undecided("?"), **more))
        else:
            rows.append(drawn(n, 1, temperature, WRONG if n < lost + wrong else CORRECT, **more))
    return rows


# ---- figures


def test_an_attempt_is_right_a_negative_or_lost() -> None:
    cut = {"finish": "step_tokens", "verdict": undecided("unfinished"), "answer": None}
    assert outcome(drawn(0, 0, 1.0).solution) == "correct"
    assert outcome(drawn(0, 0, 1.0, flags=("error_word:error",)).solution) == "correct"
    assert outcome(drawn(0, 0, 1.0, WRONG).solution) == "negative"
    assert outcome(drawn(0, 0, 1.0, WRONG, flags=("noise:length",)).solution) == "lost"
    assert outcome(drawn(0, 0, 1.0, undecided("?")).solution) == "lost"
    assert outcome(drawn(0, 0, 1.0, **cut).solution) == "lost"
    assert outcome(drawn(0, 0, 1.0, **cut).solution, truncated_is_wrong=True) == "negative"


def test_the_figures_of_a_temperature_add_up_by_hand() -> None:
    one = {"step": False, "tokens": 3, "steps": 1}
    rows = [
        drawn(0, 0, 1.0, **one),
        drawn(0, 1, 1.0, WRONG, logp=-0.2, **one),
        drawn(1, 0, 1.0, WRONG, logp=-0.4, **one),
        drawn(1, 1, 1.0, WRONG, flags=("noise:length",), finish="step_tokens", **one),
        drawn(0, 0, 0.5, **one),
    ]
    low, line = temperature_lines(rows)
    assert (low.temperature, low.accuracy.value, low.negatives_logp) == (0.5, 1.0, None)
    assert (line.origin, line.n_questions, line.n_solutions, line.draws) == ("question", 2, 4, 2)
    assert line.accuracy.value == 0.25
    assert line.negatives.value == 0.5
    assert line.garbled.value == line.unfinished.value == line.lost.value == 0.25
    assert line.undecided.value == 0
    assert line.distinct_solutions.value == 2
    assert line.distinct_answers.value == 1.5  # both of question 0, one of question 1 ended
    assert line.distinct_2.value == 0.5  # each question has the bigrams 01 and 12 twice
    assert line.tokens.value == 3
    assert line.negatives_logp is not None
    assert line.negatives_logp.value == pytest.approx(-0.3)
    # Question by question accuracy is 1/2 and 0: what resampling two of them can give.
    assert (line.accuracy.low, line.accuracy.high) == (0.0, 0.5)
    with pytest.raises(InputError, match="no solutions"):
        temperature_lines([])


# ---- predictions


def test_a_constant_schedule_gives_back_what_was_measured_at_it() -> None:
    rows = [*batch(1.0, wrong=2), *batch(1.2, wrong=4, lost=2)]
    rows += [drawn(9, 2, 1.0, steps=5), drawn(8, 2, 1.2, WRONG, steps=5)]
    figures = Continued(rows, CONFIG).predict(Schedule(1.2, 0.0, 1.2))
    assert figures.per_attempt.value == pytest.approx(5 / 11, abs=0.01)
    assert figures.lost.value == pytest.approx(2 / 11, abs=0.01)
    assert figures.per_attempt.low < figures.per_attempt.value < figures.per_attempt.high


def test_each_step_of_a_schedule_counts_as_measured_at_its_temperature() -> None:
    """With two steps left, 19 % go wrong at 1.0 (10 % a step) and 36 % at 1.1 (20 % a step)."""
    rows = batch(1.0, wrong=19, of=100, logp=-0.1, tokens=10)
    rows += batch(1.1, wrong=36, of=100, logp=-0.3, tokens=30)
    study = Continued(rows, CONFIG)
    rising = study.predict(Schedule(1.0, 0.1, 1.1))
    assert rising.per_attempt.value == pytest.approx(1 - 0.9 * 0.8)
    assert rising.tokens is not None
    assert rising.tokens.value == pytest.approx((10 + 30) / 0.28)
    assert rising.logp is not None
    assert rising.logp.value == pytest.approx((-0.1 - 0.3) / 2)  # half of the tokens each
    between = study.predict(Schedule(1.05, 0.0, 1.05))
    assert between.per_attempt.value == pytest.approx(1 - 0.9 * 0.8)
    outside = study.predict(Schedule(1.4, 0.0, 1.4))
    assert outside.per_attempt.value == pytest.approx(0.36)


@pytest.mark.parametrize(("p", "wanted", "most"), [(0.5, 1, 2), (0.25, 2, 3)])
def test_the_stop_rule_is_that_of_branching(p: float, wanted: int, most: int) -> None:
    """Unlike solutions do not matter here: each question has one attempt, so none are alike."""
    rows = [*batch(1.0, wrong=round(100 * p), of=100), *batch(1.5, wrong=90, of=100)]
    config = CONFIG.model_copy(update={"negatives": wanted, "max_attempts": most})
    figures = Continued(rows, config).predict(Schedule(1.0, 0.0, 1.0))
    if wanted == 1:
        attempts, negatives = 1 + (1 - p), p + (1 - p) * p
    else:
        attempts = 2 + (1 - p**2)
        negatives = 2 * (p**2 + 2 * p**2 * (1 - p)) + 3 * p * (1 - p) ** 2
    assert figures.attempts is not None
    assert figures.attempts.value == pytest.approx(attempts / negatives, rel=1e-3)
    assert figures.per_parent.value == pytest.approx(negatives, rel=1e-3)


def test_attempts_at_one_solution_are_alike() -> None:
    """Half of the solutions always go wrong, and half never: a second attempt adds nothing."""
    rows = [
        drawn(q, n, t, WRONG if q % 2 else CORRECT)
        for t in (1.0, 1.1)
        for q in range(50)
        for n in range(1, 5)
    ]
    config = CONFIG.model_copy(update={"max_attempts": 10})
    alike = Continued(rows, config).predict(Schedule(1.0, 0.0, 1.0))
    assert alike.per_parent.value == pytest.approx(0.5, abs=0.02)
    assert alike.per_attempt.value == pytest.approx(0.5 / (0.5 * 1 + 0.5 * 10), abs=0.01)


def test_a_study_needs_two_temperatures_and_a_negative() -> None:
    with pytest.raises(InputError, match="two temperatures"):
        Continued(batch(1.0, wrong=1), CONFIG)
    with pytest.raises(InputError, match="went wrong"):
        Continued([*batch(1.0, wrong=0), *batch(1.1, wrong=0)], CONFIG)


def test_what_branching_gave_is_measured_by_hand() -> None:
    rows = [drawn(0, 0, 1.0), drawn(0, 1, 1.0, WRONG, logp=-0.2), drawn(1, 0, 1.0, undecided("?"))]
    found = measured([row.solution for row in rows], CONFIG)
    assert found.per_attempt.value == pytest.approx(1 / 3)
    assert found.per_parent.value == 0.5
    assert found.attempts is not None
    assert found.attempts.value == 3
    assert found.tokens is not None
    assert found.tokens.value == 60
    assert found.lost.value == pytest.approx(1 / 3)
    assert found.logp is not None
    assert found.logp.value == pytest.approx(-0.2)
    nothing = measured([drawn(0, 0, 1.0).solution], CONFIG)
    assert (nothing.attempts, nothing.tokens, nothing.logp) == (None, None, None)
    with pytest.raises(InputError, match="no continuations"):
        measured([], CONFIG)


# ---- the rule


def test_the_rule_takes_the_cheapest_schedule_that_keeps_its_limits() -> None:
    """Hotter is cheaper here; at 1.4 negatives are too unlikely, and at 1.6 much is lost."""
    rows = [
        *batch(1.0, wrong=10, of=100, logp=-0.5),
        *batch(1.2, wrong=30, of=100, logp=-0.5),
        *batch(1.4, wrong=60, of=100, logp=-0.9),
        *batch(1.6, wrong=70, lost=30, of=100, logp=-0.5),
    ]
    study = Continued(rows, CONFIG)
    chosen = suggest(study, 1.0, Rule())
    assert chosen.schedule == Schedule(1.2, 0.0, 1.2)
    assert chosen.floor == pytest.approx(-0.5)
    assert chosen.most_lost == pytest.approx(0.05)
    assert 0 < chosen.allowed < chosen.tried
    # Where everything may be lost, the hottest is the cheapest.
    assert suggest(study, 1.0, Rule(lost=1.0)).schedule == Schedule(1.6, 0.0, 1.6)
    with pytest.raises(InputError, match=r"sampling temperature 0.9 \(measured: 1, 1.2"):
        suggest(study, 0.9)


def test_of_schedules_that_cost_about_the_same_the_likeliest_negatives_are_taken() -> None:
    rows = [*batch(1.0, wrong=50, of=100, logp=-0.1), *batch(1.4, wrong=51, of=100, logp=-0.3)]
    study = Continued(rows, CONFIG)
    near = suggest(study, 1.0, Rule(quantile=0.0)).schedule
    assert near == Schedule(1.0, 0.0, 1.0)


def test_where_no_schedule_keeps_the_limits_it_is_the_sampling_temperature() -> None:
    rows = [drawn(n, 1, 1.0, WRONG, logp=-0.1 if n < 9 else -9.0) for n in range(10)]
    rows += batch(1.4, wrong=10, logp=-5.0)
    chosen = suggest(Continued(rows, CONFIG), 1.0, Rule(quantile=0.5))
    assert (chosen.allowed, chosen.schedule) == (0, Schedule(1.0, 0.0, 1.0))


def test_schedules_are_tried_between_the_measured_temperatures() -> None:
    tried = list(schedules([0.0, 1.0, 1.2]))
    assert Schedule(1.0, 0.0, 1.0) in tried
    assert Schedule(1.05, 0.1, 1.15) in tried
    assert all(1.0 <= s.start <= s.cap <= 1.2 for s in tried)
    assert len({s.model_dump_json() for s in tried}) == len(tried)


# ---- recipes

HOT = Schedule(1.05, 0.0, 1.05)


@pytest.mark.parametrize(
    "before",
    [
        "policy: embedded # mine\n",
        "branch:\n  negatives: 2 # two\n",
        "branch: {negatives: 2}\nseed: 1\n",
        "branch: {}\n",
        "branch:\n  schedule: {start: 1.1, increment: 0.05, cap: 1.4} # paper\n  negatives: 2\n",
        "branch:\n  schedule:\n    # first\n    start: 1.1\n    cap: 1.4 # last\nseed: 1 # one\n",
    ],
)
def test_a_schedule_is_put_into_a_recipe_and_the_rest_stays(before: str) -> None:
    after = with_schedule(before, HOT)
    data = yaml.safe_load(before)
    branch = (data.get("branch") or {}) | {"schedule": HOT.model_dump()}
    assert yaml.safe_load(after) == data | {"branch": branch}
    assert re.findall("#.*", after) == re.findall("#.*", before)


@pytest.mark.parametrize("name", recipe_names())
def test_a_schedule_is_put_into_every_packaged_recipe(name: str) -> None:
    before, _ = recipe_text(name)
    after = with_schedule(before, HOT)
    data = yaml.safe_load(after)
    assert data["branch"]["schedule"] == HOT.model_dump()
    assert make_recipe(data).branch.schedule == HOT
    assert re.findall("#.*", after) == re.findall("#.*", before)


def test_a_recipe_that_cannot_be_changed_line_by_line_says_what_to_write() -> None:
    shared = "a: &a {start: 1.1, increment: 0.05, cap: 1.4}\nbranch: {schedule: *a}\n"
    with pytest.raises(RecipeError, match=r"by hand: schedule: \{start: 1.05, increment: 0.0, cap"):
        with_schedule(shared, HOT)
    with pytest.raises(RecipeError, match="by hand"):
        with_schedule("branch:\n", HOT)


# ---- a whole study, of a policy whose hazards are known

QUESTIONS = 40
ANSWERS = {p.question: p.answer for p in load_embedded("train", limit=2 * QUESTIONS)}
STEPS = 5


def wanderer(request: Any) -> str:
    """Writes five steps and an answer. In each step it leaves the right way with a chance that
    grows with the temperature; when it is hot, it may also end without an answer."""
    so_far = written(request)
    prompt = "".join(map(chr, (i for i in request.prompt_ids if i < 0x110000)))
    answer = next(a for q, a in ANSWERS.items() if q in prompt)
    chance = random.Random(f"{request.seed}/{request.position}").random()
    if "boxed" in so_far or "dunno" in so_far:
        return END
    if chance > 1 - max(0.0, 0.3 * (request.temperature - 1.2)):
        return text("dunno")
    if so_far.count("step") < STEPS:
        return text("wrong step" if chance < 0.08 * request.temperature**2 else "step")
    return text(rf"\boxed{{{-1 if 'wrong' in so_far else answer}}}")


def wandering_run(path: Path, **changes: Any) -> Run:
    settings = recipe(
        problems={"train": {"source": "embedded", "split": "train", "limit": 2 * QUESTIONS}},
        sample={"max_attempts": 8, "chunk": 64, "limits": {"max_steps": 10}},
        branch={"negatives": 2, "max_attempts": 8, "chunk": 8, "limits": {"max_steps": 10}},
        **changes,
    )
    return Run(make_recipe(settings), path, engine=engine(wanderer))


WANTED = PilotSettings((0.5, 1.0, 1.2, 1.4), questions=QUESTIONS, draws=4, check=QUESTIONS)


class Killed(BaseException):
    """What a killed process looks like from inside."""


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TemperatureStudy]:
    path = tmp_path_factory.mktemp("wandering") / "run"
    with wandering_run(path) as run:
        return path, pilot(run, WANTED)


def test_a_study_predicts_what_branching_gives(studied: tuple[Path, TemperatureStudy]) -> None:
    path, study = studied
    for line in study.schedules:
        assert line.measured is not None
        assert line.measured_on > 20
        for figure in ("per_attempt", "per_parent", "attempts", "tokens", "lost"):
            told, found = getattr(line.predicted, figure), getattr(line.measured, figure)
            assert told.low <= found.high, figure
            assert found.low <= told.high, figure
    accuracy = {line.temperature: line.accuracy.value for line in study.lines
                if line.origin == "question"}  # fmt: skip
    for temperature in (0.5, 1.0, 1.2):
        right = (1 - 0.08 * temperature**2) ** STEPS
        assert accuracy[temperature] == pytest.approx(right, abs=0.1)
    assert read_study(path) == study
    assert list(read_jsonl(path / LINES, TemperatureLine)) == list(study.lines)


def test_a_study_that_is_killed_goes_on_and_ends_the_same(
    studied: tuple[Path, TemperatureStudy], tmp_path: Path
) -> None:
    class Watching:
        """Kills the study in the middle of the continuations."""

        def note(self, label: str, text: str) -> None: ...

        def progress(self, name: str) -> Any:
            def report(done: int, total: int) -> None:
                if name == "pilot: steps" and done > total / 2:
                    raise Killed

            return report

    run = wandering_run(tmp_path / "run")
    run.watcher = Watching()
    with pytest.raises(Killed), run:
        pilot(run, WANTED)
    kept = sum(1 for _ in (tmp_path / "run" / FROM_STEPS).glob("rows-*"))
    assert kept
    assert read_study(tmp_path / "run") is None
    with wandering_run(tmp_path / "run") as run:
        again = pilot(run, WANTED)
        assert run.stage(FROM_STEPS).manifest.resumes == 1  # type: ignore[union-attr]
    assert again == studied[1]


def test_a_study_uses_the_solutions_of_its_run(tmp_path: Path) -> None:
    with wandering_run(tmp_path / "run") as run:
        run.sample()
        few = PilotSettings((1.0, 1.2), questions=10, draws=2)
        study = pilot(run, few)
        assert not run.begun("pilot/solutions")
        assert 0 < study.parents <= 10
        with pytest.raises(InputError, match="--check needs questions"):
            pilot(run, PilotSettings((1.0, 1.2), questions=2 * QUESTIONS, draws=2, check=1))


def test_the_plots_are_pictures(studied: tuple[Path, TemperatureStudy], tmp_path: Path) -> None:
    assert len(panels(studied[1])) == 4
    for name in ("plot.png", "plot.svg"):
        draw_study(studied[1], tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000


def test_a_damaged_study_is_said(tmp_path: Path) -> None:
    (tmp_path / STUDY).parent.mkdir()
    (tmp_path / STUDY).write_text('{"policy": 1}')
    with pytest.raises(DataError, match="policy"):
        read_study(tmp_path)


# ---- the command


def test_the_command_measures_suggests_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # Warm, so that the policy is surely both right and wrong on some of them.
    limits = {"max_steps": 12, "step_tokens": 48, "context": 512}
    warm = {"temperature": 1.3, "max_attempts": 6, "chunk": 8, "limits": limits}
    write_recipe(
        tmp_path / "my.yaml",
        problems={"train": {"source": "embedded", "split": "train", "limit": 5}},
        grading={"workers": 1},
        sample=warm,
        branch={"limits": limits},
    )
    small = ("--questions", 5, "--draws", 2, "--temperatures", "1.3,1.5")
    assert "expected numbers" in fail(capsys, "pilot", "my.yaml", "--temperatures", "1,x")
    assert "two or more" in fail(capsys, "pilot", "my.yaml", "--temperatures", "1")
    assert "exists; --force" in fail(capsys, "pilot", "my.yaml", "--write", "my.yaml")
    assert "a .yaml file" in fail(capsys, "pilot", "my.yaml", "--write", "my.json")
    assert "a .png or .svg" in fail(capsys, "pilot", "my.yaml", "--draw", "x.gif")
    assert not Path("runs").exists()
    succeed("pilot", "my.yaml", *small, "--write", "hot.yaml")
    shown = capsys.readouterr().out
    assert "Schedules of branching" in shown
    assert "suggested" in shown
    study = read_study(tmp_path / "runs" / "my")
    assert study is not None
    after = yaml.safe_load(Path("hot.yaml").read_text())["branch"]["schedule"]
    assert after == study.suggested.model_dump()
    # A run folder works too, and only what differs is refused.
    assert "draws" in fail(capsys, "pilot", "runs/my", "--questions", 5, "--draws", 3)
    assert "--out is the run folder" in fail(capsys, "pilot", "runs/my", "--out", "x")
    succeed("pilot", "runs/my", *small, "--write", "my.yaml", "--force")
    assert yaml.safe_load(Path("my.yaml").read_text())["branch"]["schedule"] == after
    # The suggested schedule does not make the study that it comes from another one.
    succeed("pilot", "my.yaml", *small)
    succeed("report", "runs/my")
