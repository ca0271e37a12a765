"""Naive pairs (Eq. 1), and the data-equal control made from the same solutions."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from scdpo.pairs.candidates import (
    Groups,
    PairResult,
    by_problem,
    counted,
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
    counts: Counter[str] = Counter()
    return result(naive_of_groups(_grouped(solutions), config, counts), counts)


def data_equal(solutions: Iterable[Solution], size: int, config: PairConfig) -> PairResult:
    """D_naive, extended to `size` *training* pairs by further distinct combinations.

    Questions take turns, in an order drawn from the seed; held-out questions give the same pairs
    as in D_naive. The count `short` says how many pairs are missing from `size`.
    """
    counts: Counter[str] = Counter()
    return result(data_equal_of_groups(_grouped(solutions), size, config, counts), counts)


def naive_of_groups(groups: Groups, config: PairConfig, counts: Counter[str]) -> Iterator[Pair]:
    """`naive_pairs` of solutions that are read problem by problem; makes the counts on the way."""
    return counted(
        (
            pair
            for chosen, rejected in _questions(groups, config, counts)
            for pair in islice(_combinations(chosen, rejected, config), config.naive_per_question)
        ),
        counts,
    )


def data_equal_of_groups(
    groups: Groups, size: int, config: PairConfig, counts: Counter[str]
) -> Iterator[Pair]:
    """`data_equal` of solutions that are read problem by problem, twice."""
    possible = {
        chosen[0].problem_id: len(chosen) * len(rejected)
        for chosen, rejected in _questions(groups, config, counts)
    }
    wanted = _in_turn(possible, size, config)
    counts["short"] = max(0, size - sum(wanted.values()))
    for problem, most in possible.items():
        if is_heldout(problem, config):
            wanted[problem] = min(most, config.naive_per_question)
    return counted(
        (
            pair
            for chosen, rejected in _questions(groups, config, Counter())
            for pair in sorted(
                islice(_combinations(chosen, rejected, config), wanted[chosen[0].problem_id]),
                key=lambda pair: pair.id,
            )
        ),
        counts,
    )


def _in_turn(possible: Mapping[str, int], size: int, config: PairConfig) -> Counter[str]:
    """How many pairs each question gives to the training, of so many that are possible."""
    wanted: Counter[str] = Counter()
    train = [name for name in possible if not is_heldout(name, config)]
    turns = deque(sorted(train, key=lambda name: (uniform(config.seed, "turn", name), name)))
    for _ in range(size):
        if not turns:
            break
        problem = turns.popleft()
        wanted[problem] += 1
        if wanted[problem] < possible[problem]:
            turns.append(problem)
    return wanted


def _grouped(solutions: Iterable[Solution]) -> Groups:
    groups = by_problem(solutions)
    return groups.values


def _questions(
    groups: Groups, config: PairConfig, counts: Counter[str]
) -> Iterator[tuple[list[Solution], list[Solution]]]:
    """The preferred and dispreferred solutions of each question that has both."""
    for group in groups():
        naive = [solution for solution in group if solution.parent is None]
        if not naive:
            continue
        counts["questions"] += 1
        counts["solutions"] += len(naive)
        chosen, rejected = _sides(naive, config, counts)
        if chosen and rejected:
            yield chosen, rejected
        elif chosen or rejected:
            counts[f"questions_without_{'rejected' if chosen else 'chosen'}"] += 1
        else:
            counts["questions_without_either"] += 1


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
