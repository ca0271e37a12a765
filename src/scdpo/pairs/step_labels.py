"""Solutions with a label for each step, for a process reward model: TRL's step supervision.

What the verdicts prove is less than a label for every step. A step through which a solution goes
on to a right answer counts as right (the paper found 2 wrong steps of 369 in such solutions). Of
a solution that ends wrong, the steps that it shares with a right one are right; the solution as a
whole is wrong; where in between it went wrong is not known: the first step after branch step k
may be sound and the error three steps later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from scdpo.pairs.config import PairConfig, is_heldout
from scdpo.records import Solution

LabelKind: TypeAlias = Literal["known", "estimated"]
SEPARATOR = "\n"
"""What TRL puts after each step (`step_separator`)."""

_Prefix: TypeAlias = tuple[str, str, tuple[str, ...]]


@dataclass(slots=True)
class StepLabels:
    """Rows of step labels, and counts of what they hold.

    `right` and `wrong` are solutions; `unlabelled` are the steps of wrong solutions that have no
    label, because whether they are right is not known.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    right: int = 0
    wrong: int = 0
    unlabelled: int = 0

    @property
    def text(self) -> str:
        """The counts as one line."""
        found = [label for row in self.rows for label in row["labels"]]
        steps = f"{sum(found)} right and {len(found) - sum(found)} wrong steps"
        more = f", {self.unlabelled} without a label" if self.unlabelled else ""
        return f"{self.right} right and {self.wrong} wrong solutions ({steps}{more})"


def step_labels(
    solutions: Iterable[Solution], config: PairConfig, labels: LabelKind = "known"
) -> StepLabels:
    """Rows of `prompt`, `completions` (list of steps) and `labels` (list of bool).

    Taken are the solutions that could be in a pair (`Solution.side`), without those of held-out
    questions and repetitions. A right solution has every step labelled right. In a wrong one the
    steps that some right solution shares are right, and the rest depends on `labels`:

    - `known`: the rest is one completion, labelled wrong. TRL puts a label on the end of each
      completion, so the steps inside the rest have none.
    - `estimated`: every step of the rest is wrong, as no solution that was drawn goes through it
      to a right answer (the hard estimate of Math-Shepherd, arXiv 2312.08935). With the single
      continuation that most of these steps have, it is often mistaken for the first of them.

    `right` and `tried` say, for each completion, how many of the solutions through its end are
    right, and how many there are: soft estimates for who wants them. Continuations of a branch
    are drawn at a raised temperature, so they err more often than the policy itself.
    """
    taken: dict[_Prefix, bool] = {}
    through: dict[_Prefix, list[int]] = {}
    for solution in solutions:
        side = solution.side()
        if side is None or is_heldout(solution.problem_id, config):
            continue
        steps = _texts(solution)
        whole = (solution.problem_id, solution.prompt, steps)
        if not steps or whole in taken:
            continue
        right = side == "chosen"
        taken[whole] = right
        for prefix in _prefixes(whole):
            count = through.setdefault(prefix, [0, 0])
            count[0] += right
            count[1] += 1
    made = StepLabels()
    for whole, right in sorted(taken.items()):
        counts = [through[prefix] for prefix in _prefixes(whole)]
        made.rows.append(_row(whole, right, counts, labels))
        made.right += right
        made.wrong += not right
        made.unlabelled += len(whole[2]) - len(made.rows[-1]["labels"])
    return made


def _row(
    whole: _Prefix, right: bool, counts: Sequence[Sequence[int]], labels: LabelKind
) -> dict[str, Any]:
    steps = list(whole[2])
    shared = len(steps) if right else sum(1 for n, _ in counts if n)
    ends = list(range(len(steps)))
    if not right and labels == "known":
        steps = [*steps[:shared], SEPARATOR.join(steps[shared:])]
        ends = [*ends[:shared], ends[-1]]
    return {
        "prompt": whole[1],
        "completions": steps,
        "labels": [n < shared for n in range(len(steps))],
        "right": [counts[end][0] for end in ends],
        "tried": [counts[end][1] for end in ends],
    }


def _texts(solution: Solution) -> tuple[str, ...]:
    """The steps as texts, execution output included, without the white space around them."""
    texts = ((step.text + step.host_text).strip() for step in solution.steps)
    return tuple(text for text in texts if text)


def _prefixes(whole: _Prefix) -> Iterator[_Prefix]:
    problem, prompt, steps = whole
    return ((problem, prompt, steps[:n]) for n in range(1, len(steps) + 1))
