"""Intervals, paired tests, and what they are computed from."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scdpo.errors import InputError
from scdpo.evaluation.accuracy import by, compare, summarise
from scdpo.evaluation.significance import mcnemar_exact, paired_bootstrap, wilson_interval
from scdpo.records import Evaluation, Finish, Verdict, VerdictName


def answered(
    number: int | str,
    verdict: VerdictName = "correct",
    finish: Finish = "finished",
    *,
    dataset: str = "math",
    level: str | None = None,
    gold: str = "7",
) -> Evaluation:
    return Evaluation(
        problem_id=f"q{number}",
        dataset=dataset,
        policy="sft",
        level=level,
        gold=gold,
        answer="7",
        verdict=Verdict(name=verdict, reason="timeout" if verdict == "undecided" else ""),
        finish=finish,
        n_steps=1,
        n_tokens=10,
        text="",
    )


def outcomes(n: int, only_a: int, only_b: int) -> tuple[np.ndarray, np.ndarray]:
    """Two policies on n questions with the given discordant counts, the rest alternating."""
    a = np.arange(n) % 2 == 0
    b = a.copy()
    a[:only_a], b[:only_a] = True, False
    a[only_a : only_a + only_b], b[only_a : only_a + only_b] = False, True
    return a, b


# Limits worked out by the formula with z = 1.959964 (also in Newcombe 1998, table I: 81/263,
# 15/148, 0/20 and 1/29 by the score method without continuity correction).
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (5, 10, 0.2366, 0.7634),
        (1, 1, 0.2065, 1.0),
    ],
)
def test_wilson_matches_published_limits(successes: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_mirrors_and_holds_the_share(case: tuple[int, int]) -> None:
    successes, n = case
    low, high = wilson_interval(successes, n)
    mirrored = wilson_interval(n - successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert (low, high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low), abs=1e-12)


def test_wilson_limits_are_where_the_score_test_just_rejects() -> None:
    for limit in wilson_interval(37, 90, confidence=0.9):
        statistic = abs(37 / 90 - limit) / math.sqrt(limit * (1 - limit) / 90)
        assert statistic == pytest.approx(1.6448536, abs=1e-6)


@pytest.mark.parametrize(
    ("successes", "n", "confidence"),
    [(0, 0, 0.95), (3, 2, 0.95), (-1, 5, 0.95), (1, 2, 1.0), (1, 2, 0.0), (1, 2, math.nan)],
)
def test_wilson_rejects_what_is_no_proportion(successes: int, n: int, confidence: float) -> None:
    with pytest.raises(InputError):
        wilson_interval(successes, n, confidence)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (0, 5, 2 / 32),
        (1, 9, 2 * (1 + 10) / 1024),
        (2, 8, 2 * (1 + 10 + 45) / 1024),
        (5, 5, 1.0),
        (4, 5, 1.0),
        (3, 5, 2 * (1 + 8 + 28 + 56) / 256),
    ],
)
def test_mcnemar_matches_binomials_by_hand(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar_exact(only_a, only_b) == pytest.approx(p, rel=1e-12)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_symmetric_and_a_probability(only_a: int, only_b: int) -> None:
    p = mcnemar_exact(only_a, only_b)
    assert 0 < p <= 1
    assert p == mcnemar_exact(only_b, only_a)
    if only_a < only_b:
        assert mcnemar_exact(only_a, only_b + 1) <= p


def test_mcnemar_stays_exact_for_many_questions() -> None:
    # Normal approximation with continuity correction, good to a few per cent here.
    z = (abs(5100 - 4900) - 1) / math.sqrt(10_000)
    assert mcnemar_exact(5100, 4900) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.01)
    with pytest.raises(InputError, match="negative"):
        mcnemar_exact(-1, 3)


def test_bootstrap_interval_has_the_width_of_the_paired_standard_error() -> None:
    n, only_a, only_b = 2000, 120, 80
    result = paired_bootstrap(*outcomes(n, only_a, only_b), seed=1)
    difference = (only_a - only_b) / n
    error = math.sqrt((only_a + only_b) / n - difference**2) / math.sqrt(n)
    assert result.difference == pytest.approx(difference)
    assert result.low == pytest.approx(difference - 1.96 * error, abs=0.1 * error)
    assert result.high == pytest.approx(difference + 1.96 * error, abs=0.1 * error)


def test_bootstrap_equals_resampling_the_questions() -> None:
    a, b = outcomes(300, 40, 20)
    drawn = np.random.default_rng(5).integers(0, 300, size=(20_000, 300))
    plain = np.quantile((a.astype(int) - b.astype(int))[drawn].mean(axis=1), [0.025, 0.975])
    result = paired_bootstrap(a, b, resamples=20_000, seed=6)
    assert (result.low, result.high) == pytest.approx(tuple(plain), abs=0.006)


def test_bootstrap_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    true_difference, covered, runs = 0.15 - 0.08, 0, 400
    for run in range(runs):
        cell = rng.choice(3, p=[0.15, 0.08, 0.77], size=400)
        result = paired_bootstrap(cell == 0, cell == 1, resamples=1000, seed=run)
        covered += result.low <= true_difference <= result.high
    # 0.95 with a standard error of 0.011 over 400 runs.
    assert 0.915 <= covered / runs <= 0.985


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=30, max_size=200))
def test_bootstrap_turns_round_with_its_sides(pairs: list[tuple[bool, bool]]) -> None:
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    there = paired_bootstrap(a, b, seed=3)
    back = paired_bootstrap(b, a, seed=4)
    assert there.difference == -back.difference
    assert there.low <= there.difference <= there.high
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=2.5 / len(a))


def test_bootstrap_is_fixed_by_its_seed() -> None:
    a, b = outcomes(500, 30, 20)
    assert paired_bootstrap(a, b, seed=2) == paired_bootstrap(a, b, seed=2)
    draws = {paired_bootstrap(a, b, resamples=99, seed=seed).low for seed in range(8)}
    assert len(draws) > 1
    assert paired_bootstrap(a, a).low == paired_bootstrap(a, a).high == 0


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.ones(3, bool), np.ones(4, bool), "same questions on both sides, found 3 and 4"),
        (np.ones(0, bool), np.ones(0, bool), "non-empty"),
        (np.ones((2, 2), bool), np.ones(4, bool), r"shape \(2, 2\)"),
        (np.ones(3, bool), np.array([0, 1, 2]), "b must be .* int64"),
    ],
)
def test_bootstrap_rejects_other_questions(a: np.ndarray, b: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        paired_bootstrap(a, b)
    with pytest.raises(InputError, match="resamples"):
        paired_bootstrap(np.ones(3, bool), np.ones(3, bool), resamples=0)


def test_summary_splits_every_question_into_one_outcome() -> None:
    rows = [
        *(answered(i) for i in range(5)),
        answered(5, "wrong"),
        answered(6, "undecided"),
        answered(7, "correct", "max_steps"),
        answered(8, "wrong", "context"),
        answered(9, "undecided", "sandbox"),
    ]
    accuracy = summarise(rows)
    assert (accuracy.correct, accuracy.wrong, accuracy.undecided, accuracy.unfinished) == (
        5,
        1,
        1,
        3,
    )
    assert accuracy.n == 10
    assert accuracy.accuracy == 0.5
    assert (accuracy.low, accuracy.high) == wilson_interval(5, 10)


def test_summary_rejects_no_rows_and_repeated_questions() -> None:
    with pytest.raises(InputError, match="no evaluated questions"):
        summarise([])
    row = answered(3)
    for repeated in (row, answered(3, "wrong")):
        with pytest.raises(InputError, match="q3 of math was evaluated more than once"):
            summarise([row, repeated])


def test_break_down_keeps_natural_order_and_leaves_out_what_has_no_group() -> None:
    rows = [
        answered(1, level="Level 10"),
        answered(2, "wrong", level="Level 2"),
        answered(3, level="Level 2"),
        answered(4),
        answered(4, dataset="gsm8k"),
    ]
    levels = by(rows, "level")
    assert list(levels) == ["Level 2", "Level 10"]
    assert levels["Level 2"].accuracy == 0.5
    assert {name: group.n for name, group in by(rows, "dataset").items()} == {
        "gsm8k": 1,
        "math": 4,
    }
    assert by(rows, "subject") == {}


def test_comparison_joins_by_question_not_by_position() -> None:
    a = [answered(i, "correct" if i < 8 else "wrong") for i in range(12)]
    b = [answered(i, "correct" if i in (0, 1, 9) else "undecided") for i in reversed(range(12))]
    result = compare(a, b)
    assert (result.n, result.only_a, result.only_b) == (12, 6, 1)
    assert result.p == mcnemar_exact(6, 1)
    assert result.a_accuracy == pytest.approx(8 / 12)
    assert result.b_accuracy == pytest.approx(3 / 12)
    assert result.difference == pytest.approx(5 / 12)
    assert result.low < result.difference < result.high
    assert compare(a, a).p == 1
    assert compare(a, a).low == compare(a, a).high == 0


def test_comparison_counts_an_unfinished_right_answer_as_not_correct() -> None:
    result = compare([answered(1)], [answered(1, "correct", "max_steps")])
    assert (result.only_a, result.only_b, result.b_accuracy) == (1, 0, 0)


def test_comparison_needs_the_same_questions() -> None:
    a, b = [answered(i) for i in range(4)], [answered(i) for i in range(1, 6)]
    message = "1 of 4 only in the first, 2 of 5 only in the second, such as q0 of math"
    with pytest.raises(InputError, match=message):
        compare(a, b)
    with pytest.raises(InputError, match="such as q4 of math"):
        compare(a[1:], b)
    with pytest.raises(InputError, match="only in the first"):
        compare(a, [])
    with pytest.raises(InputError, match="no evaluated questions"):
        compare([], [])
    with pytest.raises(InputError, match="more than once"):
        compare(a, [*a, a[0]])
    with pytest.raises(InputError, match="gold answer '7' in the first evaluation and '8'"):
        compare([answered(1)], [answered(1, gold="8")])
