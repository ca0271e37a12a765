"""Pairs for reading on a page: which ones, and where their sides part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from scdpo.records import Pair, Step
from scdpo.report.blocks import PairView, Side, SideStep
from scdpo.report.showing import PairSides, common_part, step_facts, where_they_part


def chosen_for_reading(pairs: Iterable[Pair]) -> list[str]:
    """The ids of a pair of the middle length of each kind; of step-controlled ones, with the
    fewest and with the most shared steps."""
    lengths: dict[tuple[str, int], list[tuple[int, str]]] = {}
    for pair in pairs:
        lengths.setdefault((pair.kind, pair.branch_step), []).append((_length(pair), pair.id))
    found = []
    for kind in ("naive", "step_controlled"):
        ks = [k for of, k in lengths if of == kind]
        for k in sorted({min(ks), max(ks)}) if ks else []:
            same = sorted(lengths[kind, k])
            found.append(same[len(same) // 2][1])
    return found


def pair_view(pair: Pair, known: PairSides) -> PairView:
    """A pair as it stands on a page; `known` is what the rows that it was made of say about it."""
    same, there = where_they_part(pair.chosen, pair.rejected)
    solutions = {"chosen": known.chosen, "rejected": known.rejected}
    sides = []
    for name, steps in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        solution = solutions[name]
        tokens = sum(len(step.token_ids) for step in steps)
        sides.append(
            Side(
                name=name,
                verdict="" if solution is None else solution.verdict.name,
                answer=None if solution is None else solution.answer,
                about=f"{_many(len(steps), 'step')}, {tokens or 'no'} sampled tokens",
                steps=_steps(steps, pair.branch_step, same, there),
            )
        )
    shared = f", {_many(pair.branch_step, 'shared step')}" if pair.branch_step else ""
    kind = pair.kind.replace("_", "-")
    return PairView(
        title=f"A {kind} pair{shared}",
        about=pair.id,
        question=pair.question,
        problem=known.problem,
        shared=_steps(pair.shared, 0, len(pair.shared), 0),
        sides=(sides[0], sides[1]),
    )


def _steps(steps: Sequence[Step], before: int, same: int, there: int) -> tuple[SideStep, ...]:
    """Steps whose first `same` ones, and `there` characters of the next, are common."""
    found = []
    for n, step in enumerate(steps):
        text, host = step.text, step.host_text
        own, of_host = common_part(step, n, same, there)
        found.append(
            SideStep(
                head=f"step {before + n + 1}: {step_facts(step)}",
                same=text[:own],
                own=text[own:],
                same_host=host[:of_host],
                own_host=host[of_host:],
                parts_here=n == same,
            )
        )
    return tuple(found)


def _length(pair: Pair) -> int:
    steps = (*pair.shared, *pair.chosen, *pair.rejected)
    return sum(len(step.text) + len(step.host_text) for step in steps)


def _many(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
