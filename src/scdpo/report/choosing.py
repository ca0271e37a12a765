"""Which rows of a folder are shown, and what else is read to show them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from rich.console import RenderableType

from scdpo.errors import InputError
from scdpo.records import Evaluation, Pair, Problem, Record, Solution
from scdpo.report.showing import (
    PairSides,
    show_evaluation,
    show_pair,
    show_problem,
    show_solutions,
)
from scdpo.store import RunFolder, Stage

R = TypeVar("R", bound=Record)

KINDS: dict[str, tuple[type[Record], str]] = {
    "problems": (Problem, "scdpo sample"),
    "solutions": (Solution, "scdpo sample"),
    "imports": (Solution, "scdpo import"),
    "branches": (Solution, "scdpo branch"),
    "pairs": (Pair, "scdpo pair"),
    "evaluations": (Evaluation, "scdpo evaluate"),
}
"""Kinds of rows that can be shown, with the command that makes them."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rows to show; None does not narrow the choice.

    `part` is a part of the kind: a set of pairs, a policy's evaluations, an import. `id` is a
    row's own, or that of its problem or of a solution that it was made of. `flag` is the
    beginning of one.
    """

    kind: str = "solutions"
    part: str | None = None
    id: str | None = None
    verdict: str | None = None
    finish: str | None = None
    flag: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"unknown kind {self.kind!r}; known: {', '.join(KINDS)}")
        record = KINDS[self.kind][0]
        known = {"verdict": "verdict", "finish": "finish", "flag": "flags"}
        for name, field in known.items():
            if getattr(self, name) is not None and field not in record.model_fields:
                kinds = [k for k, (cls, _) in KINDS.items() if field in cls.model_fields]
                raise InputError(f"--{name} is for {', '.join(kinds)}, not for {self.kind}")
        if self.verdict not in (None, "correct", "wrong", "undecided"):
            raise InputError(f"--verdict {self.verdict}: expected correct, wrong or undecided")

    def fits(self, row: Record) -> bool:
        """Whether a row is among those chosen."""
        if self.id is not None and self.id not in _ids(row):
            return False
        if isinstance(row, (Solution, Evaluation)):
            if self.verdict not in (None, row.verdict.name):
                return False
            if self.finish not in (None, row.finish):
                return False
        flags = row.flags if isinstance(row, Solution) else ()
        return self.flag is None or any(flag.startswith(self.flag) for flag in flags)

    def __str__(self) -> str:
        names = ("id", "verdict", "finish", "flag")
        return " and ".join(
            f"{n} {getattr(self, n)}" for n in names if getattr(self, n) is not None
        )


def _ids(row: Record) -> set[str | None]:
    fields = ("id", "problem_id", "parent", "chosen_id", "rejected_id")
    return {getattr(row, field, None) for field in fields}


def shown_rows(folder: RunFolder, choice: Choice, limit: int) -> tuple[list[RenderableType], bool]:
    """The first `limit` rows that fit, ready to print, and whether there are more.

    Raises InputError if nothing has been made or nothing fits.
    """
    stages = _stages(folder, choice)
    record = KINDS[choice.kind][0]
    found = list(islice((r for s in stages for r in s.rows(record) if choice.fits(r)), limit + 1))
    if not found:
        names = ", ".join(stage.name for stage in stages)
        wanted = f" with {choice}" if str(choice) else ""
        raise InputError(f"{folder.path}: no row{wanted} in {names}")
    rows = found[:limit]
    return list(_rendered(folder, rows)), len(found) > limit


def _stages(folder: RunFolder, choice: Choice) -> list[Stage]:
    """The stages of the kind that were started; imports stand in for solutions that are not."""
    kind, (_, command) = choice.kind, KINDS[choice.kind]
    names = _begun(folder.path, kind)
    if kind == "solutions" and not names:
        names = _begun(folder.path, "imports")
    if not names:
        raise InputError(f"{folder.path}: no {kind} yet; {command} makes them")
    if choice.part is not None:
        known = [name.partition("/")[2] for name in names if "/" in name]
        names = [name for name in names if name.partition("/")[2] == choice.part]
        if not names:
            raise InputError(
                f"--part {choice.part}: {kind} here has {', '.join(known) or 'no parts'}"
            )
    return [folder.stage(name) for name in names]


def _begun(path: Path, kind: str) -> list[str]:
    found = [*path.glob(f"{kind}/manifest.json"), *path.glob(f"{kind}/*/manifest.json")]
    names = [file.parent.relative_to(path).as_posix() for file in found]
    return sorted(names, key=lambda name: (PARTS.index(name) if name in PARTS else 99, name))


PARTS = ("pairs/naive", "pairs/step_controlled", "pairs/data_equal", "problems/train")
"""Parts that come first, in this order."""


def _rendered(folder: RunFolder, rows: list[Record]) -> Iterator[RenderableType]:
    wanted = {row.problem_id for row in rows if isinstance(row, (Solution, Pair, Evaluation))}
    problems = problems_of(folder, wanted)
    sides = sides_of(folder, [row for row in rows if isinstance(row, Pair)])
    yield from show_solutions((row for row in rows if isinstance(row, Solution)), problems)
    for row in rows:
        if isinstance(row, Pair):
            yield show_pair(row, sides[row.id])
        elif isinstance(row, Evaluation):
            yield show_evaluation(row, problems)
        elif isinstance(row, Problem):
            yield show_problem(row)


def sides_of(folder: RunFolder, pairs: Iterable[Pair]) -> dict[str, PairSides]:
    """What the rows of a run say about the sides of pairs, by pair."""
    pairs = list(pairs)
    problems = problems_of(folder, {pair.problem_id for pair in pairs})
    ids = {name for pair in pairs for name in (pair.chosen_id, pair.rejected_id)}
    drawn = [
        folder.stage(name)
        for kind in ("solutions", "imports", "branches")
        for name in _begun(folder.path, kind)
    ]
    known = _found(drawn, Solution, ids, lambda solution: solution.id)
    return {
        pair.id: PairSides(
            known.get(pair.chosen_id), known.get(pair.rejected_id), problems.get(pair.problem_id)
        )
        for pair in pairs
    }


def problems_of(folder: RunFolder, wanted: set[str]) -> dict[str, Problem]:
    """The problems of a run with these ids, as far as it has stored them."""
    sources = [folder.stage(name) for name in _begun(folder.path, "problems")]
    return _found(sources, Problem, wanted, lambda problem: problem.id)


def _found(
    stages: Iterable[Stage], record: type[R], wanted: set[str], name: Callable[[R], str]
) -> dict[str, R]:
    """The rows with the wanted names; stops reading when all are found."""
    found: dict[str, R] = {}
    for stage in stages:
        for row in stage.rows(record):
            if len(found) == len(wanted):
                return found
            if name(row) in wanted:
                found.setdefault(name(row), row)
    return found
