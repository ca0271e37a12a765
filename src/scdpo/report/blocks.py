"""What a report page is made of: sections of blocks, which the templates know how to draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from scdpo.records import Problem
from scdpo.report.charts import Chart, Intervals
from scdpo.report.grid import Grid


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph. `mark` says what kind: a warning, a result without one, or where a section has
    nothing to show yet; `command` is then what would make it."""

    text: str
    mark: Literal["", "warning", "fine", "missing"] = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class Charts:
    """Charts that stand side by side where there is room."""

    charts: tuple[Chart | Intervals, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a funnel's stage. `tone` is a verdict, or `kept`."""

    label: str
    n: int
    tone: Literal["correct", "wrong", "undecided", "kept"]


@dataclass(frozen=True, slots=True)
class FunnelStage:
    """A stage of a funnel: how many rows it has, what they are, and what it left out and why."""

    name: str
    n: int
    shares: tuple[Share, ...] = ()
    dropped: tuple[tuple[str, int], ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Funnel:
    """Stages from the problems to the pairs."""

    stages: tuple[FunnelStage, ...]

    @property
    def widest(self) -> int:
        """The largest number of a stage, which takes the whole width."""
        return max((stage.n for stage in self.stages), default=0)


@dataclass(frozen=True, slots=True)
class SideStep:
    """A step of one side of a pair: its heading, what both sides have in common, and the rest.

    `parts_here` marks the step in which the sides part; the host's text is execution output.
    """

    head: str
    same: str
    own: str
    same_host: str
    own_host: str
    parts_here: bool


@dataclass(frozen=True, slots=True)
class Side:
    """A side of a pair: its name, its verdict and answer, its length, and its steps."""

    name: str
    verdict: str
    answer: str | None
    about: str
    steps: tuple[SideStep, ...]


@dataclass(frozen=True, slots=True)
class PairView:
    """A pair for reading: the question, the steps that both sides share, and both sides."""

    title: str
    about: str
    question: str
    problem: Problem | None
    shared: tuple[SideStep, ...]
    sides: tuple[Side, Side]


@dataclass(frozen=True, slots=True)
class CreditStep:
    """A step under one policy: tokens with their shade (an index into the picture's), and what is
    said of the step; `marked` if that is more than its number."""

    tokens: tuple[tuple[str, int], ...]
    caption: str
    marked: bool


@dataclass(frozen=True, slots=True)
class CreditPicture:
    """A solution under several policies, side by side; `legend` names the rewards of a few
    shades."""

    title: str
    question: str
    policies: tuple[str, ...]
    columns: tuple[tuple[CreditStep, ...], ...]
    legend: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Fold:
    """A text in lines of its own, folded under a summary."""

    summary: str
    text: str


@dataclass(frozen=True, slots=True)
class FoldedTables:
    """Tables folded under a summary."""

    summary: str
    tables: tuple[Grid, ...]


Block: TypeAlias = Text | Charts | Grid | Funnel | PairView | CreditPicture | Fold | FoldedTables


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page; `name` is its anchor."""

    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A report. `facts` are lines below the title; `shades` the colours of ground and text of
    tokens in credit pictures, the palest first."""

    title: str
    facts: tuple[str, ...]
    sections: tuple[Section, ...]
    shades: tuple[tuple[str, str], ...] = ()
