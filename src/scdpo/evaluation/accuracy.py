"""Accuracy of a policy, breakdowns of it, and the comparison of two policies."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from scdpo.errors import InputError
from scdpo.evaluation.significance import mcnemar_exact, paired_bootstrap, wilson_interval
from scdpo.records import Evaluation, Record

AnswerStatus = Literal["correct", "wrong", "undecided", "unfinished"]
GroupBy = Literal["level", "subject", "dataset"]

QuestionKey = tuple[str, str]


class Accuracy(Record):
    """A policy's results on `n` questions; n = correct + wrong + undecided + unfinished.

    `accuracy` is correct / n, and `low`, `high` its 95 % Wilson interval, all as fractions of 1.
    """

    n: int
    correct: int
    wrong: int
    undecided: int
    unfinished: int
    accuracy: float
    low: float
    high: float


class Comparison(Record):
    """Two policies on the same `n` questions; accuracies and differences are fractions of 1.

    `difference` is a − b with its 95 % bootstrap interval `low`, `high`. `only_a` and `only_b`
    count the questions that only that policy answered correctly; `p` is the two-sided exact
    McNemar p-value of these counts.
    """

    n: int
    a_accuracy: float
    b_accuracy: float
    difference: float
    low: float
    high: float
    only_a: int
    only_b: int
    p: float


def status(row: Evaluation) -> AnswerStatus:
    """What became of one question.

    A rollout cut by a limit is `unfinished`, whatever answer it contains: a policy that does not
    stop has not solved the question.
    """
    return row.verdict.name if row.finish == "finished" else "unfinished"


def summarise(rows: Sequence[Evaluation]) -> Accuracy:
    """Accuracy of one policy, with its interval.

    Undecided and unfinished questions count as not correct. Raises InputError if there are no
    rows, or if a question occurs twice.
    """
    if not rows:
        raise InputError("no evaluated questions to summarise")
    _by_question(rows)
    counts = Counter(status(row) for row in rows)
    interval = wilson_interval(counts["correct"], len(rows))
    return Accuracy(
        n=len(rows),
        correct=counts["correct"],
        wrong=counts["wrong"],
        undecided=counts["undecided"],
        unfinished=counts["unfinished"],
        accuracy=counts["correct"] / len(rows),
        low=interval.low,
        high=interval.high,
    )


def by(rows: Sequence[Evaluation], key: GroupBy) -> dict[str, Accuracy]:
    """Accuracy per level, subject or data set, in natural order (Level 2 before Level 10).

    Questions without such a group are left out; the result is empty if no question has one.
    Raises InputError if a question occurs twice in a group.
    """
    groups: dict[str, list[Evaluation]] = {}
    for row in rows:
        name = getattr(row, key)
        if name is not None:
            groups.setdefault(name, []).append(row)
    return {name: summarise(groups[name]) for name in sorted(groups, key=_natural)}


def compare(
    a_rows: Sequence[Evaluation],
    b_rows: Sequence[Evaluation],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare two policies question by question; `resamples` and `seed` are for the bootstrap.

    Raises InputError if the two did not answer the same questions with the same gold answers, or
    if a question occurs twice on one side.
    """
    a_of, b_of = same_questions(a_rows, b_rows)
    a = np.array([status(a_of[key]) == "correct" for key in a_of], dtype=np.bool_)
    b = np.array([status(b_of[key]) == "correct" for key in a_of], dtype=np.bool_)
    only_a, only_b = int(np.count_nonzero(a & ~b)), int(np.count_nonzero(b & ~a))
    bootstrap = paired_bootstrap(a, b, resamples=resamples, seed=seed)
    return Comparison(
        n=a.size,
        a_accuracy=float(a.mean()),
        b_accuracy=float(b.mean()),
        difference=bootstrap.difference,
        low=bootstrap.low,
        high=bootstrap.high,
        only_a=only_a,
        only_b=only_b,
        p=mcnemar_exact(only_a, only_b),
    )


def _by_question(rows: Sequence[Evaluation]) -> dict[QuestionKey, Evaluation]:
    by_key: dict[QuestionKey, Evaluation] = {}
    for row in rows:
        key = (row.dataset, row.problem_id)
        if key in by_key:
            raise InputError(
                f"question {row.problem_id} of {row.dataset} was evaluated more than once"
            )
        by_key[key] = row
    return by_key


def same_questions(
    a_rows: Sequence[Evaluation], b_rows: Sequence[Evaluation]
) -> tuple[dict[QuestionKey, Evaluation], dict[QuestionKey, Evaluation]]:
    """The rows of both sides by their questions. Raises InputError as `compare` does."""
    a, b = _by_question(a_rows), _by_question(b_rows)
    if not a and not b:
        raise InputError("no evaluated questions to compare")
    missing_b = [key for key in a if key not in b]
    missing_a = [key for key in b if key not in a]
    if missing_a or missing_b:
        dataset, problem_id = (missing_b or missing_a)[0]
        raise InputError(
            "the evaluations do not cover the same questions: "
            f"{len(missing_b)} of {len(a)} only in the first, "
            f"{len(missing_a)} of {len(b)} only in the second, such as {problem_id} of {dataset}"
        )
    for key, row in a.items():
        if row.gold != b[key].gold:
            raise InputError(
                f"question {row.problem_id} of {row.dataset} has gold answer {row.gold!r} in the "
                f"first evaluation and {b[key].gold!r} in the second"
            )
    return a, b


def _natural(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
