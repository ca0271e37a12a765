"""What all kinds of pairs share: grouping of solutions, duplicates, and the pair itself."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from scdpo.pairs.config import PairConfig, is_heldout
from scdpo.records import Pair, PairKind, Solution, Step

_NEAR = 500
"""Difference in characters up to which the released code treats two solutions as equal."""


@dataclass(frozen=True, slots=True)
class PairResult:
    """Pairs, with counts of what became of the solutions and questions."""

    pairs: tuple[Pair, ...]
    counts: dict[str, int]


Groups = Callable[[], Iterable[Sequence[Solution]]]
"""Gives, as often as it is called, each problem's solutions, in a fixed order (`by_problem`)."""


def in_order(solutions: Iterable[Solution]) -> list[Solution]:
    """Each solution once, ordered by problem, attempt and id."""
    unique = {solution.id: solution for solution in solutions}
    return sorted(unique.values(), key=lambda s: (s.problem_id, s.attempt, s.id))


def by_problem(solutions: Iterable[Solution]) -> dict[str, list[Solution]]:
    """The solutions of each problem; problems and solutions are in a fixed order."""
    groups: defaultdict[str, list[Solution]] = defaultdict(list)
    for solution in in_order(solutions):
        groups[solution.problem_id].append(solution)
    return dict(groups)


def distinct(solutions: Iterable[Solution], config: PairConfig) -> list[Solution]:
    """The solutions without duplicates of earlier ones, as defined by `config.duplicates`."""
    if config.duplicates == "exact":
        first: dict[str, Solution] = {}
        for solution in solutions:
            first.setdefault(solution.text, solution)
        return list(first.values())
    kept: list[tuple[int, int, Solution]] = []
    for solution in solutions:
        blocks = len(solution.steps) + sum(step.kind == "code" for step in solution.steps)
        length = len(solution.text)
        if not any(blocks == b and abs(length - n) <= _NEAR for b, n, _ in kept):
            kept.append((blocks, length, solution))
    return [solution for _, _, solution in kept]


def same_prefix(a: Solution, b: Solution, k: int = 0) -> bool:
    """Whether two solutions share their prompt and first k steps, in text and token ids."""
    return (
        (a.format, a.prompt, a.prompt_ids) == (b.format, b.prompt, b.prompt_ids)
        and len(a.steps) >= k <= len(b.steps)
        and [_written(step) for step in a.steps[:k]] == [_written(step) for step in b.steps[:k]]
    )


def make_pair(
    kind: PairKind, chosen: Solution, rejected: Solution, config: PairConfig, k: int = 0
) -> Pair:
    """The pair made of two solutions that share their first k steps."""
    return Pair(
        id=f"{chosen.id}|{rejected.id}",
        problem_id=chosen.problem_id,
        dataset=chosen.dataset,
        question=chosen.question,
        kind=kind,
        format=chosen.format,
        prompt=chosen.prompt,
        prompt_ids=chosen.prompt_ids,
        shared=chosen.steps[:k],
        chosen=chosen.steps[k:],
        rejected=rejected.steps[k:],
        branch_step=k,
        chosen_id=chosen.id,
        rejected_id=rejected.id,
        split="heldout" if is_heldout(chosen.problem_id, config) else "train",
    )


def counted(pairs: Iterable[Pair], counts: Counter[str]) -> Iterator[Pair]:
    """The same pairs; `counts` receives their number and that of held-out pairs."""
    counts["pairs"] = counts["heldout_pairs"] = 0
    for pair in pairs:
        counts["pairs"] += 1
        counts["heldout_pairs"] += pair.split == "heldout"
        yield pair


def result(pairs: Iterable[Pair], counts: Counter[str]) -> PairResult:
    """All pairs, and the counts that are made along with them."""
    made = tuple(pairs)
    return PairResult(made, dict(sorted(counts.items())))


def _written(step: Step) -> tuple[object, ...]:
    return step.text, step.token_ids, step.host_text, step.host_ids
