"""What the pairs of a run are like: where negatives first go wrong, how alike both sides are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Literal

from scdpo.errors import InputError
from scdpo.insight.labels import is_boxed, wrong_steps
from scdpo.records import NOISE, Pair, PairKind, Problem, Record, Solution, Split, Step, mean_logp
from scdpo.training.tokens import Encode, step_tokens

Mistake = Literal["program fails", "wrong value", "wrong sentence", "wrong answer"]
"""How a step is wrong: its program raises an error, it prints a value that is none of the true
ones, its sentence computes or states something false, or it only boxes another answer."""
Outcome = Literal["correct", "wrong", "garbled", "unfinished", "undecided"]
"""What became of a continuation. `garbled`: it has a flag of noise (see `sampling.flags`)."""


class PairQuality(Record):
    """What one pair is like. Lengths are after the shared steps, in tokens of the initial policy,
    with what the host appended.

    `same_tokens` are the first tokens that both sides have in common. `chosen_logp` and
    `rejected_logp` are mean log-probs per sampled token under the initial policy (nats), None for
    recorded steps. First wrong steps are indices into the whole solution, shared steps included;
    they are None if no step is known to be wrong, and where `labelled` is false. `mistake` is the
    kind of the rejected side's first wrong step.
    """

    id: str
    problem_id: str
    dataset: str
    kind: PairKind
    split: Split
    chosen_id: str
    rejected_id: str
    branch_step: int
    chosen_steps: int
    rejected_steps: int
    chosen_tokens: int
    rejected_tokens: int
    same_tokens: int
    chosen_logp: float | None
    rejected_logp: float | None
    labelled: bool
    chosen_first_wrong: int | None = None
    rejected_first_wrong: int | None = None
    mistake: Mistake | None = None

    @property
    def same_share(self) -> float:
        """The share of the shorter side that both sides have in common, from its beginning."""
        shorter = min(self.chosen_tokens, self.rejected_tokens)
        return self.same_tokens / shorter if shorter else 0.0

    @property
    def distance(self) -> int | None:
        """How many new steps of the rejected side are right before its first wrong one.

        0 if the first new step is wrong, negative if a shared step is; None if no step is known
        to be wrong.
        """
        first = self.rejected_first_wrong
        return None if first is None else first - self.branch_step


class Continuation(Record):
    """A branch as a row of statistics: from which step k, how many steps its parent has after
    that, and what became of it."""

    problem_id: str
    branch_step: int
    parent_steps_left: int
    outcome: Outcome


def pair_quality(
    pairs: Iterable[Pair], problems: Mapping[str, Problem], encode: Encode | None
) -> Iterator[PairQuality]:
    """A row for each pair.

    `problems` are those whose worked solutions tell which steps are wrong, by id; pairs of other
    problems get no labels. `encode` is for steps without token ids. Raises InputError for such
    steps without `encode`, and for a worked solution that cannot be read.
    """
    for pair in pairs:
        chosen, rejected = (_ids(side, pair, encode) for side in (pair.chosen, pair.rejected))
        alike = takewhile(lambda ids: ids[0] == ids[1], zip(chosen, rejected, strict=False))
        row = PairQuality(
            **{name: getattr(pair, name) for name in _COPIED},
            chosen_steps=len(pair.chosen),
            rejected_steps=len(pair.rejected),
            chosen_tokens=len(chosen),
            rejected_tokens=len(rejected),
            same_tokens=sum(1 for _ in alike),
            chosen_logp=mean_logp(pair.chosen),
            rejected_logp=mean_logp(pair.rejected),
            labelled=pair.problem_id in problems,
        )
        problem = problems.get(pair.problem_id)
        yield row if problem is None else _labelled(row, pair, problem)


_COPIED = (
    *("id", "problem_id", "dataset", "kind", "split"),
    *("chosen_id", "rejected_id", "branch_step"),
)


def _labelled(row: PairQuality, pair: Pair, problem: Problem) -> PairQuality:
    """The row with the first wrong steps of both sides."""
    chosen, rejected = (pair.shared + side for side in (pair.chosen, pair.rejected))
    first = _first_wrong(problem, rejected)
    return row.model_copy(
        update={
            "chosen_first_wrong": _first_wrong(problem, chosen),
            "rejected_first_wrong": first,
            "mistake": None if first is None else mistake(rejected[first]),
        }
    )


def _first_wrong(problem: Problem, steps: Sequence[Step]) -> int | None:
    return next((n for n, wrong in enumerate(wrong_steps(problem, steps)) if wrong), None)


def mistake(step: Step) -> Mistake:
    """How a step is wrong that is known to be."""
    if step.kind == "code":
        return "program fails" if step.cut or "Error" in (step.output or "") else "wrong value"
    return "wrong answer" if is_boxed(step) else "wrong sentence"


def _ids(steps: Sequence[Step], pair: Pair, encode: Encode | None) -> list[int]:
    def refuse(text: str, /, *, start: bool = False) -> Sequence[int]:
        raise InputError(f"{pair.id}: steps without token ids, and no tokenizer to make them")

    return step_tokens(steps, encode or refuse)[0]


def continuation(branch: Solution, parent_steps: int) -> Continuation:
    """A branch as a row of statistics; `parent_steps` is how many steps its parent has."""
    return Continuation(
        problem_id=branch.problem_id,
        branch_step=branch.branch_step,
        parent_steps_left=parent_steps - branch.branch_step,
        outcome=_outcome(branch),
    )


def _outcome(branch: Solution) -> Outcome:
    if any(flag.startswith(NOISE) for flag in branch.flags):
        return "garbled"
    return branch.verdict.name if branch.finish == "finished" else "unfinished"
