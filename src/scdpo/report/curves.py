"""Learning curves of trainings, and the warning for one that learned its pairs and no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scdpo.evaluation import PolicyLine
from scdpo.report import notation
from scdpo.report.blocks import Charts, Text
from scdpo.report.charts import Chart, Point, Series, averaged
from scdpo.report.grid import Cell, Column, Grid
from scdpo.report.table import SIGNIFICANT, label
from scdpo.store import read_json_rows

LN_2 = 0.6931
SATURATED = 0.95
"""Preference accuracy on training pairs from which on it says nothing more about a training."""
KINDS = {"naive": "naive", "step_controlled": "step-controlled"}
_END = 0.1
"""The share of steps, the last ones, over which the preference accuracy at the end is taken."""

Log = Mapping[str, Sequence[Point]]
"""What a training logged: for each quantity its values by optimizer step."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Held-out pairs before and after a training, as (before, after): the loss (nats), the share
    with a positive margin, and the share whose chosen side the policy finds likelier."""

    pairs: int
    loss: tuple[float, float]
    accuracy: tuple[float, float]
    chosen_likelier: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Curve:
    """A training's name and log, its held-out pairs if it has some, and its tone in charts."""

    name: str
    log: Log
    held_out: HeldOut | None = None
    tone: int = 0


def read_log(path: Path) -> dict[str, list[Point]]:
    """The quantities in a training's `log.jsonl`, by name. Raises DataError."""
    found: dict[str, list[Point]] = {}
    for _, row in read_json_rows(path):
        step = row.get("step")
        for name, value in row.items():
            if isinstance(step, int) and isinstance(value, (int, float)) and name != "step":
                found.setdefault(name, []).append(Point(step, value))
    return found


def preference_charts(curves: Sequence[Curve]) -> list[Charts]:
    """Loss and preference accuracy of all trainings, then margins and rewards of each."""
    together = [
        _together("Loss on training pairs", "loss, nats", "loss", curves, (LN_2, "log 2")),
        _together(
            "Preference accuracy on training pairs",
            "share of pairs",
            "accuracy",
            curves,
            (0.5, "chance"),
            span=(1.0,),
        ),
    ]
    charts = [Charts(tuple(chart for chart in together if chart.series))]
    # The same axes for all trainings, so that they can be compared.
    margins = _span(curves, "margin")
    rewards = _span(curves, "chosen_reward", "rejected_reward")
    for curve in curves:
        own = [_margins(curve, margins), _rewards(curve, rewards)]
        charts.append(Charts(tuple(chart for chart in own if chart.series)))
    return [block for block in charts if block.charts]


def tuning_chart(title: str, log: Log) -> Charts | None:
    """The loss of a supervised fine-tuning, and that on held-out solutions."""
    series = tuple(
        Series(text, averaged(log[key]), tone)
        for tone, (key, text) in enumerate(
            (("loss", "training"), ("heldout_loss", "held-out solutions"))
        )
        if log.get(key)
    )
    return Charts((Chart(title, STEP, "loss, nats per token", series),)) if series else None


def held_out_table(curves: Sequence[Curve]) -> Grid | None:
    """Held-out pairs before and after each training; None where no training has any."""
    known = [(curve.name, curve.held_out) for curve in curves if curve.held_out]
    if not known:
        return None
    rows = tuple(
        (
            Cell(label(name), style="bold"),
            Cell(notation.count(held.pairs)),
            Cell(f"{held.loss[0]:.3f} → {held.loss[1]:.3f}"),
            _shares(held.accuracy),
            _shares(held.chosen_likelier),
        )
        for name, held in known
    )
    columns = (
        Column("training", "left", wrap=True),
        Column("pairs"),
        Column("loss"),
        Column("margin above 0, %"),
        Column("chosen likelier, %"),
    )
    notes = (
        "Pairs of questions that no training has seen, before → after. A margin of 0 counts half,",
        f"so the start is at 50 % and log 2 = {LN_2:.3f} nats.",
    )
    return Grid("Held-out pairs", columns, rows, notes)


def verdicts(curves: Sequence[Curve], lines: Sequence[PolicyLine]) -> list[Text]:
    """For each training with a preference accuracy, a warning or the reason why there is none."""
    known = {line.policy: line for line in lines}
    return [_verdict(curve, known.get(curve.name)) for curve in curves if curve.log.get("accuracy")]


def _verdict(curve: Curve, line: PolicyLine | None) -> Text:
    """Whether a training ranks its own pairs ever better while answers get worse."""
    end = final_accuracy(curve.log["accuracy"])
    said = f"{label(curve.name)}: preference accuracy ends at {notation.percent(end)} %"
    worse, better = _evidence(curve.held_out, line)
    if end >= SATURATED and worse:
        advice = "It has learned its pairs by heart: lower learning_rate or epochs."
        return Text(f"{said} on training pairs, but {' and '.join(worse)}. {advice}", "warning")
    told = "; ".join([*worse, *better]) or "no policy has been evaluated yet"
    return Text(f"{said} on training pairs; {told}.", "fine")


def final_accuracy(points: Sequence[Point]) -> float:
    """The mean over the last tenth of the steps, at least one."""
    last = points[-max(1, round(_END * len(points))) :]
    return sum(point.y for point in last) / len(last)


def _evidence(held: HeldOut | None, line: PolicyLine | None) -> tuple[list[str], list[str]]:
    """What has become worse by a training, and what has not, in words."""
    worse: list[str] = []
    better: list[str] = []
    if line is not None and (found := line.vs_sft) is not None:
        interval = notation.points_interval(found.low, found.high)
        chance = "" if found.p < SIGNIFICANT else ", within chance"
        text = (
            f"greedy accuracy is {notation.points(found.difference)} points against SFT "
            f"{interval} {notation.p_value(found.p)}{chance}"
        )
        (worse if found.difference < 0 else better).append(text)
    if held is not None:
        before, after = held.loss
        text = f"the loss on {held.pairs} held-out pairs goes from {before:.3f} to {after:.3f}"
        (worse if after > before else better).append(text)
    return worse, better


STEP = "optimizer step"


def _together(
    title: str,
    y: str,
    key: str,
    curves: Sequence[Curve],
    level: tuple[float, str],
    *,
    span: tuple[float, ...] = (),
) -> Chart:
    series = tuple(
        Series(label(curve.name), averaged(curve.log[key]), curve.tone)
        for curve in curves
        if curve.log.get(key)
    )
    return Chart(title, STEP, y, series, span, level)


def _margins(curve: Curve, span: tuple[float, ...]) -> Chart:
    series = tuple(
        Series(text, averaged(points), tone)
        for tone, (kind, text) in enumerate(KINDS.items())
        if (points := curve.log.get(f"{kind}/margin"))
    )
    title = f"{label(curve.name)}: margin by kind of pair"
    return Chart(title, STEP, "implicit reward, nats", series, span, (0.0, ""))


def _rewards(curve: Curve, span: tuple[float, ...]) -> Chart:
    series = tuple(
        Series(f"{side}, {text}", averaged(points), tone, dashed=kind == "naive")
        for tone, side in enumerate(("chosen", "rejected"))
        for kind, text in KINDS.items()
        if (points := curve.log.get(f"{kind}/{side}_reward"))
    )
    title = f"{label(curve.name)}: rewards of chosen and rejected"
    return Chart(title, STEP, "implicit reward, nats", series, span, (0.0, ""))


def _span(curves: Sequence[Curve], *names: str) -> tuple[float, ...]:
    """The smallest and largest value of some quantities over all trainings and kinds of pairs."""
    values = [
        point.y
        for curve in curves
        for kind in KINDS
        for name in names
        for point in averaged(curve.log.get(f"{kind}/{name}", ()))
    ]
    return (min(values), max(values)) if values else ()


def _shares(pair: tuple[float, float]) -> Cell:
    return Cell(f"{notation.percent(pair[0])} → {notation.percent(pair[1])}")
