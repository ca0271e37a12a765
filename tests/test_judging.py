"""The one judge of solutions and predictions, its function for a single text, and verdicts."""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scdpo.grading import Claim, Grader, GradingConfig, Judgement, grade, grade_async, judge
from scdpo.records import CORRECT, WRONG, Verdict, undecided

CASES = json.loads((Path(__file__).parent / "cases" / "judging.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def graders() -> Iterator[dict[str, Grader]]:
    with Grader() as ours, Grader(GradingConfig(compat="paper")) as paper:
        yield {"none": ours, "paper": paper}


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["text"])[:30])
def test_claims(case: dict[str, Any], graders: dict[str, Grader]) -> None:
    claim = Claim(
        case["text"],
        tuple(case["golds"]),
        case.get("several", False),
        case.get("last", ""),
        case.get("is_answer", False),
    )
    [(answer, verdict)] = judge([claim], graders[case.get("compat", "none")])
    expected = (case["answer"], case["verdict"], case.get("reason", ""))
    assert (answer, verdict.name, verdict.reason) == expected


def test_judgements_keep_the_order_of_the_claims(graders: dict[str, Grader]) -> None:
    cases = [case for case in CASES if "compat" not in case]
    claims = [
        Claim(
            case["text"],
            tuple(case["golds"]),
            several=case.get("several", False),
            is_answer=case.get("is_answer", False),
        )
        for case in cases
    ]
    judged = judge(claims, graders["none"])
    assert [verdict.name for _, verdict in judged] == [case["verdict"] for case in cases]
    assert judge([], graders["none"]) == []


@pytest.mark.parametrize("several", [False, True])
def test_what_would_take_too_long_is_bounded(several: bool, graders: dict[str, Grader]) -> None:
    too_long = "longer than 100,000 characters"
    claims = [
        (Claim("x" * 150_000, ("3",), several, is_answer=True), too_long),
        (Claim("\\boxed{3}", ("x" * 150_000,), several), too_long),
        (Claim("\\" * 150_000 + "oops", ("3",), several), "no answer"),
        (Claim("\\boxed{3}" + "x" * 250_000, ("3",), several), "no answer"),
        (Claim("\\boxed{" + "(" * 90_000, ("3",), several), "no answer"),
    ]
    start = time.monotonic()
    judged = judge([claim for claim, _ in claims], graders["none"])
    assert time.monotonic() - start < 20
    assert [verdict.reason for _, verdict in judged] == [reason for _, reason in claims]
    assert all(verdict.undecided for _, verdict in judged)


def test_a_box_within_a_box_is_one_value(graders: dict[str, Grader]) -> None:
    claim = Claim(r"\boxed{\boxed{9}}", ("15",), several=True)
    [(_, verdict)] = judge([claim], graders["none"])
    assert verdict.undecided  # the other value may be the gold answer


# ---- one text


@pytest.mark.parametrize(
    ("text", "answer", "options", "expected"),
    [
        (r"Each pays \boxed{\frac{1}{2}}.", 0.5, {}, (r"\frac{1}{2}", "correct")),
        (r"\boxed{4}", ["3", 4], {}, ("4", "correct")),
        (r"\boxed{4}", (3, 5), {}, ("4", "wrong")),
        (r"\boxed{15} and \boxed{9}", 15, {"several": True}, ("15, 9", "correct")),
        ("15", 15, {}, (None, "undecided")),
        ("15", 15, {"is_answer": True}, ("15", "correct")),
        (15, 15, {}, ("15", "correct")),
        (0.25, "1/4", {}, ("0.25", "correct")),
        (math.inf, r"\infty", {}, (r"\infty", "correct")),
        (math.nan, 3, {}, ("", "undecided")),
        (None, 3, {}, (None, "undecided")),
        (None, 3, {"config": GradingConfig(compat="paper")}, (None, "wrong")),
    ],
)
def test_grade(text: Any, answer: Any, options: dict[str, Any], expected: tuple[Any, str]) -> None:
    found = grade(text, answer, **options)
    assert (found.answer, found.verdict.name) == expected


@pytest.mark.parametrize("wrong", [True, b"3", {"answer": 3}])
def test_grade_takes_texts_and_numbers_only(wrong: Any) -> None:
    with pytest.raises(TypeError, match="a text or a number is expected"):
        grade(wrong, 3)
    with pytest.raises(TypeError, match="a text or a number is expected"):
        grade("3", [wrong])


def test_grade_inside_a_running_event_loop() -> None:
    pair = (r"\boxed{(x - 1)(x + 1)}", "x^2 - 1")

    async def cell() -> list[Judgement]:
        return [grade(*pair), *await asyncio.gather(grade_async(*pair), grade_async(*pair))]

    assert asyncio.run(cell()) == [grade(*pair)] * 3 == [("(x - 1)(x + 1)", CORRECT)] * 3


def test_grade_shares_a_grader_which_a_forked_process_does_not_use() -> None:
    # An integral needs a worker, which belongs to the process that started it.
    pair = (r"\boxed{\int_0^1 x dx}", r"\frac{1}{2}")
    assert grade(*pair).verdict.correct
    child = os.fork()
    if not child:
        os._exit(0 if grade(r"\boxed{\int_0^2 x dx}", "2").verdict.correct else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert grade(r"\boxed{\int_0^4 x dx}", "8").verdict.correct


# ---- verdicts


def test_a_verdict_has_a_property_for_each_value() -> None:
    values = [(v.correct, v.wrong, v.undecided) for v in (CORRECT, WRONG, undecided("why"))]
    assert values == [(True, False, False), (False, True, False), (False, False, True)]
    assert undecided("why").reason == "why"


@pytest.mark.parametrize("verdict", [CORRECT, WRONG, undecided("why")], ids=str)
def test_a_verdict_has_no_truth_value(verdict: Verdict) -> None:
    with pytest.raises(TypeError, match=r"^a verdict has three values; use verdict\.correct$"):
        bool(verdict)


def test_the_rows_of_verdicts_stay_as_they_were() -> None:
    assert WRONG.model_dump_json() == '{"name":"wrong","reason":""}'
    assert Verdict.model_validate_json('{"name":"correct"}') == CORRECT
