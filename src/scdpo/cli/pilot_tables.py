"""The tables of `scdpo pilot`."""

from __future__ import annotations

from collections.abc import Iterator

from scdpo.insight.resampling import Estimate
from scdpo.insight.schedules import ScheduleFigures
from scdpo.insight.study import ScheduleLine, TemperatureStudy
from scdpo.insight.temperature import Origin
from scdpo.report.grid import Cell, Column, Grid
from scdpo.report.notation import MINUS, count, percent, percent_interval
from scdpo.sampling import Schedule

_TITLES: dict[Origin, str] = {
    "question": "Solutions from the question, at constant temperatures",
    "step": "Continuations of right solutions, at constant temperatures",
}


def temperature_table(study: TemperatureStudy, origin: Origin) -> Grid:
    """What solutions are like at each temperature."""
    lines = [line for line in study.lines if line.origin == origin]
    columns = (
        Column("T", "right"),
        Column("right %", "number"),
        Column("wrong %", "number"),
        Column("gar-\nbled"),
        Column("cut"),
        Column("un-\ndecided"),
        Column("solu-\ntions"),
        Column("an-\nswers"),
        Column("log-\nprob"),
    )
    rows = tuple(
        (
            Cell(f"{line.temperature:g}", style="bold"),
            _share(line.accuracy),
            _share(line.negatives),
            *(Cell(percent(e.value)) for e in (line.garbled, line.unfinished, line.undecided)),
            Cell(f"{line.distinct_solutions.value:.2f}"),
            Cell(f"{line.distinct_answers.value:.2f}"),
            Cell(_signed(line.negatives_logp)),
        )
        for line in lines
    )
    first = lines[0]
    return Grid(_TITLES[origin], columns, rows, tuple(_notes(origin, first.n_questions, study)))


def _notes(origin: Origin, questions: int, study: TemperatureStudy) -> Iterator[str]:
    if origin == "step":
        yield (
            f"{count(study.parents)} right solutions, one of each question that has a right and a "
            f"wrong one, continued {study.draws} times from their steps."
        )
        return
    yield (
        f"{count(questions)} questions, {study.draws} solutions each; in brackets: 95 % bootstrap "
        "intervals over questions."
    )
    yield (
        "Shares in % of all solutions. Wrong: those that may be rejected in a pair. Cut: "
        "unfinished. Solutions, answers: distinct ones per question. Log-prob: of wrong ones, per "
        "new token."
    )


def schedule_table(study: TemperatureStudy) -> Grid:
    """The recipe's schedule and the suggested one, predicted and measured."""
    columns = (
        Column("schedule", "left"),
        Column("", "left"),
        Column("negatives\nper attempt", "number"),
        Column("per\nsolution", "number"),
        Column("tokens per\nnegative", "number"),
        Column("lost %", "number"),
        Column("log-prob", "number"),
    )
    rows: list[tuple[Cell, ...]] = []
    for line in study.schedules:
        rows.append(_schedule_row(line, "predicted", line.predicted))
        if line.measured is not None:
            rows.append(_schedule_row(line, "measured", line.measured))
    return Grid("Schedules of branching", columns, tuple(rows), tuple(_schedule_notes(study)))


def _schedule_notes(study: TemperatureStudy) -> Iterator[str]:
    floor = "unknown" if study.floor is None else _number(study.floor)
    yield (
        "Suggested: the fewest tokens per negative among schedules that lose at most "
        f"{percent(study.most_lost)} % (the sampling temperature's share "
        f"+ {percent(study.rule.lost)}) and whose negatives have a mean log-prob per new token of "
        f"at least {floor} (the {study.rule.quantile:.0%} quantile at the sampling temperature, "
        f"{study.sampling:g}); {study.allowed} of {study.tried} do."
    )
    if not study.allowed:
        yield "None does, so the suggestion is the sampling temperature itself."
    if on := max(line.measured_on for line in study.schedules):
        yield f"Measured: branching of {count(on)} solutions to other questions."


def schedule_text(schedule: Schedule) -> str:
    """A schedule in words: `1.1 + 0.05 per step up to 1.4`."""
    if not schedule.increment:
        return f"{schedule.start:g}, constant"
    return f"{schedule.start:g} + {schedule.increment:g} per step up to {schedule.cap:g}"


def _schedule_row(line: ScheduleLine, how: str, figures: ScheduleFigures) -> tuple[Cell, ...]:
    schedule = line.schedule
    numbers = f"{schedule.start:g} +{schedule.increment:g} ≤{schedule.cap:g}"
    return (
        Cell(line.role, numbers, style="bold") if how == "predicted" else Cell(),
        Cell(how),
        Cell(f"{figures.per_attempt.value:.3f}", _range(figures.per_attempt, ".3f")),
        Cell(f"{figures.per_parent.value:.2f}", _range(figures.per_parent, ".2f")),
        _maybe(figures.tokens, ".0f"),
        _share(figures.lost),
        _maybe(figures.logp, ".3f"),
    )


def _share(estimate: Estimate) -> Cell:
    return Cell(percent(estimate.value), percent_interval(estimate.low, estimate.high))


def _maybe(estimate: Estimate | None, form: str) -> Cell:
    if estimate is None:
        return Cell("–")
    return Cell(_number(estimate.value, form), _range(estimate, form))


def _range(estimate: Estimate, form: str) -> str:
    return f"[{_number(estimate.low, form)}, {_number(estimate.high, form)}]"


def _signed(estimate: Estimate | None) -> str:
    return "–" if estimate is None else _number(estimate.value)


def _number(value: float, form: str = ".3f") -> str:
    return f"{value:{form}}".replace("-", MINUS)
