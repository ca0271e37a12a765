"""Naive pairs (Eq. 1), and the data-equal control made from the same solutions."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence

from scdpo.pairs.candidates import (
    PairResult,
    by_problem,
    distinct,
    make_pair,
    result,
    same_prefix,
)
from scdpo.pairs.config import PairConfig, is_heldout
from scdpo.records import Pair, Solution
from scdpo.seeds import uniform


def naive_pairs(solutions: Iterable[Solution], config: PairConfig) -> PairResult:
    """D_naive: per question, the first preferred and the first dispreferred attempt (Eq. 1).

    With `naive_per_question` above 1, further combinations follow, which use new solutions before
    reusing any. Continuations of other solutions are ignored. The counts add up: every solution
    is in `chosen`, `rejected` or a count that says why it is neither.
    """
    questions, counts = _questions(solutions, config)
    pairs = [
        pair
        for combinations in questions.values()
        for pair, _ in zip(combinations, range(config.naive_per_question), strict=False)
    ]
    return result(pairs, counts)


def data_equal(solutions: Iterable[Solution], size: int, config: PairConfig) -> PairResult:
    """D_naive, extended to `size` *training* pairs by further distinct combinations.

    Questions take turns, in an order drawn from the seed; held-out questions give the same pairs
    as in D_naive. The count `short` says how many pairs are missing from `size`.
    """
    questions, counts = _questions(solutions, config)
    heldout = {problem for problem in questions if is_heldout(problem, config)}
    pairs = [
        pair
        for problem in heldout
        for pair, _ in zip(questions[problem], range(config.naive_per_question), strict=False)
    ]
    order = {name: (uniform(config.seed, "turn", name), name) for name in questions}
    turns = deque(sorted(questions.keys() - heldout, key=order.__getitem__))
    train: list[Pair] = []
    while turns and len(train) < size:
        problem = turns.popleft()
        if pair := next(questions[problem], None):
            train.append(pair)
            turns.append(problem)
    counts["short"] = max(0, size - len(train))
    return result(sorted(pairs + train, key=lambda pair: (pair.problem_id, pair.id)), counts)


def _questions(
    solutions: Iterable[Solution], config: PairConfig
) -> tuple[dict[str, Iterator[Pair]], Counter[str]]:
    """For each question that has any, its possible pairs, best first; and the counts."""
    counts: Counter[str] = Counter()
    questions: dict[str, Iterator[Pair]] = {}
    groups = by_problem(solution for solution in solutions if solution.parent is None)
    for problem, group in groups.items():
        counts["questions"] += 1
        counts["solutions"] += len(group)
        chosen, rejected = _sides(group, config, counts)
        if chosen and rejected:
            questions[problem] = _combinations(chosen, rejected, config)
        elif chosen or rejected:
            counts[f"questions_without_{'rejected' if chosen else 'chosen'}"] += 1
        else:
            counts["questions_without_either"] += 1
    return questions, counts


def _sides(
    group: Sequence[Solution], config: PairConfig, counts: Counter[str]
) -> tuple[list[Solution], list[Solution]]:
    """A question's distinct preferred and dispreferred solutions, by attempt."""
    sides: dict[str, list[Solution]] = {"chosen": [], "rejected": []}
    prompted: Solution | None = None
    for solution in group:
        taken, reason = solution.placement(truncated_is_wrong=config.truncated_is_wrong)
        if taken is None:
            counts[reason] += 1
            continue
        prompted = prompted or solution
        if same_prefix(prompted, solution):
            sides[taken].append(solution)
        else:
            counts["other_prompt"] += 1
    for name, candidates in sides.items():
        kept = distinct(candidates, config)
        counts[f"duplicate_{name}"] += len(candidates) - len(kept)
        counts[name] += len(kept)
        sides[name] = kept
    return sides["chosen"], sides["rejected"]


def _combinations(
    chosen: Sequence[Solution], rejected: Sequence[Solution], config: PairConfig
) -> Iterator[Pair]:
    """Every combination once: both sides advance together and shift after each full cycle."""
    period = math.lcm(len(chosen), len(rejected))
    for turn in range(len(chosen) * len(rejected)):
        preferred = chosen[turn % len(chosen)]
        dispreferred = rejected[(turn + turn // period) % len(rejected)]
        yield make_pair("naive", preferred, dispreferred, config)
