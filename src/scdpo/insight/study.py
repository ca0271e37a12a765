"""The temperature study as one record, and where a run keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from scdpo.errors import DataError
from scdpo.errors.validation import explain
from scdpo.insight.schedules import ScheduleFigures
from scdpo.insight.suggestion import Rule
from scdpo.insight.temperature import TemperatureLine
from scdpo.records import Record
from scdpo.sampling import Schedule

STUDY = "pilot/study.json"
"""Where in a run folder the study is."""
LINES = "pilot/temperatures.jsonl"
"""Where its lines are, one for each origin and temperature."""


class ScheduleLine(Record):
    """What branching with one schedule gives: predicted from the study and, where that was done,
    `measured` by branching with it on `measured_on` other solutions."""

    role: Literal["recipe", "suggested"]
    schedule: Schedule
    predicted: ScheduleFigures
    measured: ScheduleFigures | None = None
    measured_on: int = 0


class TemperatureStudy(Record):
    """What a policy's solutions are like at different temperatures, and a schedule chosen by that.

    `lines` are ordered by origin and temperature. `schedules` has the recipe's schedule and the
    suggested one (`suggestion.suggest`); `sampling` is the temperature of naive sampling, `floor`
    and `most_lost` are the limits that the suggestion had to keep, `allowed` of `tried` schedules
    did.
    """

    policy: str
    sampling: float
    questions: int
    parents: int
    draws: int
    lines: tuple[TemperatureLine, ...]
    schedules: tuple[ScheduleLine, ...]
    rule: Rule
    floor: float | None
    most_lost: float
    tried: int
    allowed: int

    @property
    def suggested(self) -> Schedule:
        """The suggested schedule."""
        return next(line.schedule for line in self.schedules if line.role == "suggested")


def read_study(run: Path) -> TemperatureStudy | None:
    """The study of a run folder; None if it has none. Raises DataError."""
    path = run / STUDY
    try:
        return TemperatureStudy.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise DataError(explain(error, TemperatureStudy), path) from error
