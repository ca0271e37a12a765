"""Step-controlled pairs (Eq. 2): a preferred solution and its own branches that go wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from scdpo.pairs.candidates import PairResult, by_problem, counted, distinct, make_pair, result
from scdpo.pairs.candidates import same_prefix as shares
from scdpo.pairs.config import PairConfig
from scdpo.records import Pair, Solution
from scdpo.seeds import uniform


def step_controlled_pairs(
    solutions: Iterable[Solution], branches: Iterable[Solution], config: PairConfig
) -> PairResult:
    """D_SC: pairs of what a preferred solution and a branch write after step k (Eq. 2).

    Every branch names its parent among `solutions` and its branch step k. A question yields at
    most `step_controlled_per_question` pairs; its branch steps take turns, in an order drawn from
    the seed, so that the limit does not favour early steps. The counts add up: every branch is in
    `pairs` or in a count that says why it gave none.
    """
    parents = {solution.id: solution for solution in solutions}
    groups = ((parents, group) for group in by_problem(branches).values())
    counts: Counter[str] = Counter()
    return result(step_controlled_of_groups(groups, config, counts), counts)


def step_controlled_of_groups(
    groups: Iterable[tuple[Mapping[str, Solution], Sequence[Solution]]],
    config: PairConfig,
    counts: Counter[str],
) -> Iterator[Pair]:
    """`step_controlled_pairs` of branches that are read problem by problem, each group with the
    solutions among which its parents are, by id; makes the counts on the way."""
    return counted(
        (
            _pair(branch, parents, config)
            for parents, group in groups
            for branch in _of_group(parents, group, config, counts)
        ),
        counts,
    )


def _of_group(
    parents: Mapping[str, Solution],
    group: Sequence[Solution],
    config: PairConfig,
    counts: Counter[str],
) -> list[Solution]:
    """The branches of a question that give pairs."""
    counts["branches"] += len(group)
    fit = [branch for branch in group if _fits(branch, parents, config, counts)]
    turns = list(_turns(group[0].problem_id, fit, config))
    kept = distinct(turns, config)
    limit = config.step_controlled_limit(group[0].dataset)
    counts["duplicate_rejected"] += len(turns) - len(kept)
    counts["over_limit"] += len(kept[limit:])
    return kept[:limit]


def _fits(
    branch: Solution, parents: Mapping[str, Solution], config: PairConfig, counts: Counter[str]
) -> bool:
    reason = _misfit(branch, parents.get(branch.parent or ""), config)
    if reason:
        counts[reason] += 1
    return not reason


def _misfit(branch: Solution, parent: Solution | None, config: PairConfig) -> str:
    """Why a branch gives no pair; empty if it gives one."""
    taken, reason = branch.placement(truncated_is_wrong=config.truncated_is_wrong)
    if taken != "rejected":
        ended_well = branch.finish == "finished" and branch.verdict.name == "correct"
        return "correct" if ended_well else reason
    if parent is None:
        return "parent_missing"
    if parent.side(truncated_is_wrong=config.truncated_is_wrong) != "chosen":
        return "parent_not_preferred"
    if not shares(parent, branch, branch.branch_step):
        return "prefix_differs"
    if min(len(parent.steps), len(branch.steps)) == branch.branch_step:
        return "nothing_after_branch"
    return ""


def _turns(problem: str, branches: Sequence[Solution], config: PairConfig) -> Iterator[Solution]:
    """The branches of a question: the first of each branch step, then the second, and so on."""
    by_step: defaultdict[int, list[Solution]] = defaultdict(list)
    for branch in branches:
        by_step[branch.branch_step].append(branch)
    steps = sorted(by_step, key=lambda k: (uniform(config.seed, "branch", problem, str(k)), k))
    for turn in range(max(map(len, by_step.values()), default=0)):
        yield from (by_step[k][turn] for k in steps if turn < len(by_step[k]))


def _pair(branch: Solution, parents: Mapping[str, Solution], config: PairConfig) -> Pair:
    assert branch.parent is not None
    parent = parents[branch.parent]
    return make_pair("step_controlled", parent, branch, config, branch.branch_step)
