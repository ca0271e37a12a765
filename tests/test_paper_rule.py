"""The answer rule of the paper's released code: what it reads, what it accepts, hostile input."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scdpo.grading import Grader, GradingConfig, final_answer
from scdpo.grading.paper import paper_answer, paper_equal

# Gold answer, solution, whether the released rule accepts it; ours says the opposite. One or more
# rows for every line of the table in docs/grading.md. All were compared with the original.
DIFFERENCES = [
    ("5", r"\boxed{5}, no, \boxed{6}", True),
    ("x^{2}", r"\boxed{x^{2}}, so \boxed{x^{2}}", False),
    ("4", r"\boxed{\boxed{4}}", False),
    ("18", "18", True),
    ("18", "The answer is 18.", False),
    ("18", "#### 18", False),
    ("0.001", r"\boxed{0.004}", True),
    ("1/3", r"\boxed{0.33}", True),
    ("3", r"\boxed{\frac{6}{2}}", False),
    ("4", r"\boxed{3.999999}", False),
    ("150%", r"\boxed{150\%}", False),
    ("0.5", r"\boxed{50\%}", False),
    ("1(1/2)", r"\boxed{1.5}", False),
    ("1(1/2)", r"\boxed{0.5}", True),
    (r"\frac{1}{2}", r"\boxed{\frac12}", False),
    (r"2\sqrt{2}", r"\boxed{\sqrt{8}}", False),
    ("x+1", r"\boxed{1+x}", False),
    ("x+y=0", r"\boxed{z=0}", True),
    ("1,2", r"\boxed{1,2,2}", True),
    (r"[\frac{1}{2},1]", r"\boxed{[0.5,1]}", False),
    (r"\text{Evelyn}", r"\boxed{Evelyn}", False),
    ("10_{2}", r"\boxed{10_{3}}", True),
    ("1500", r"\boxed{1.5e3}", False),
    ("1000", r"\boxed{1{,}000}", False),
    ("-5", r"\boxed{−5}", False),
    ("20", r"\boxed{20 \, \text{kg}}", False),
]

# Further verdicts of the original, on gold answers as its own files spell them.
RELEASED = [
    ("18", r"The answer is \boxed{18", False),
    ("20", r"\boxed{20\text{ km}}", True),
    ("90", r"\boxed{90^\circ}", True),
    ("50", r"\boxed{50\%}", True),
    ("50", r"\boxed{50%}", False),
    ("5", r"costs \boxed{\$5}.", True),
    ("5", r"\boxed{5.}", True),
    ("5", r"\boxed{5元}", False),
    ("70000", r"\boxed{70,000}", True),
    ("1,000", r"\boxed{1000}", True),
    ("12", r"\boxed{12} \text{dollars}", True),
    (r"\frac{1}{2}", r"\boxed{\frac{1}{2}} \text{ hours}", True),
    (r"\frac{1}{2}", r"\boxed{\frac{1}{2}}, that is \boxed{7}", True),
    (r"\sqrt{2}", r"\boxed{\sqrt2}", True),
    (r"\frac{\sqrt{2}}{2}", r"\boxed{\dfrac{\sqrt2}{2}}", True),
    (r"2\sqrt{13}", r"\boxed{7.211}", False),
    (r"(\frac{1}{2},-\infty)", r"\boxed{\left(0.5, -\infty\right)}", True),
    ("(1,2)", r"\boxed{(2,1)}", False),
    ("(1,x)", r"\boxed{(1.0,x)}", False),
    ("1,2", r"\boxed{2, 1}", True),
    ("x", r"\boxed{X}", True),
    ("4", r"\boxed{x = 4}", True),
    ("0.13", r"\boxed{0.125}", False),
    ("0.12", r"\boxed{\frac{1}{8}}", True),
    ("-0.001", r"\boxed{0.001}", False),
    ("0", r"\boxed{0.001}", False),
    ("51.0", r"\boxed{51}", True),
    ("1024", r"\boxed{2^{10}}", True),
    ("1024", r"\boxed{2**10}", False),
    ("0.5", r"\boxed{2^{-1}}", True),
    ("1.41", r"\boxed{2^{1/2}}", True),
    ("-4", r"\boxed{-2^2}", True),
    ("64", r"\boxed{2^3^2}", True),
    ("-1", r"\boxed{2-(1+2)}", True),
    ("0.22", r"\boxed{2/3(3)}", True),
    ("1.5", r"\boxed{6\div2\cdot[1/2]}", True),
    ("6", r"\boxed{2\times3}", True),
    ("3:4", r"\boxed{0.75}", True),
    ("0.87", r"\boxed{(7/10)/(4/5)}", True),
    ("1/0", r"\boxed{2/0}", False),
    ("(", r"\boxed{(1}", False),
    ("", "", False),
    ("5", "", False),
    (" ", "5", False),
]


def test_documented_differences() -> None:
    items = [(gold, final_answer(text)) for gold, text, _ in DIFFERENCES]
    with Grader(GradingConfig(workers=1)) as grader:
        ours = [verdict.name == "correct" for verdict in grader.grade_many(items)]
    released = [paper_equal(gold, paper_answer(text)) for gold, text, _ in DIFFERENCES]
    assert released == [accepted for _, _, accepted in DIFFERENCES]
    same = zip(DIFFERENCES, released, ours, strict=True)
    assert [row[:2] for row, theirs, verdict in same if theirs == verdict] == []


@pytest.mark.parametrize(("gold", "text", "accepted"), RELEASED)
def test_released_verdicts(gold: str, text: str, accepted: bool) -> None:
    assert paper_equal(gold, paper_answer(text)) == accepted


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So \boxed{5} or \boxed{6}.", "5"),
        (r"\boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{x^{2}}, \boxed{6}", r"x^{2}}, \boxed{6"),
        (r"\boxed{X = 1{}0}", "X = 10"),
        (r"\boxed{18", r"\boxed{18"),
        ("The answer is 18.", "The answer is 18."),
        (" 18\n", "18"),
        (r"\boxed{}", r"\boxed"),
        (r"\boxed{ }", None),
        (" \n", None),
        ("", None),
    ],
)
def test_what_is_read_off_a_solution(text: str, answer: str | None) -> None:
    assert paper_answer(text) == answer


def test_gold_answers_may_be_as_the_data_sets_have_them() -> None:
    """The authors' files had these as `5`, `\\frac{6}{5}` and `(0,-\\frac{1}{2})`."""
    assert paper_equal(r"5\text{ digits}", "5")
    assert paper_equal(r"\frac65", "1.2")
    assert paper_equal(r"\left(0, -\frac 12\right)", r"(0,-\frac{1}{2})")
    assert not paper_equal(r"\frac{6}{5}", r"\frac65")


HOSTILE = ["{" * 10_000, "[" * 999, "(" * 10_000 + "1" + ")" * 10_000, "(1," * 5_000 + ")"]
HOSTILE += ["9**9**9", "9^{9^{9}}", "9^{9^9}", "9^9^9^9^9", "2^{9999}^{9999}", "(9^{99})^{0.1}"]
HOSTILE += ["\x00" * 50, "5\x00", "\ud800", "1" * 10_000, "1/" * 499 + "3", "-" * 999, "²", "٣"]
HOSTILE += ["10^{9000}/3", "0^{-1}", "0^{-1/2}", "(-8)^{1/3}", "\\frac{" * 190, "\\sqrt" * 2_000]
HOSTILE += [r"\boxed{" * 20_000, "__import__('os').getcwd()", "[1,2][0]", "(lambda:5)()"]


@pytest.mark.parametrize("answer", HOSTILE, ids=lambda answer: ascii(answer[:20]))
def test_hostile_answers_are_wrong_at_once(answer: str) -> None:
    start = time.process_time()
    for gold in ("5", "(5,5)", "5.5", "1,5"):
        assert not paper_equal(gold, paper_answer(answer))
        paper_equal(answer, answer)
    assert time.process_time() - start < 1


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789+-*/^(){}[]\\.,=_ frac", max_size=40), st.text(max_size=20))
def test_any_text_gets_a_verdict(gold: str, text: str) -> None:
    paper_equal(gold, paper_answer(text))
    assert not paper_equal(gold, None)
    assert paper_equal(text, paper_answer(gold)) in (True, False)


@pytest.mark.parametrize(
    ("name", "n_correct", "rejected"),
    [
        ("MathCoder-L-13b_GSM8K", 964, 6),
        ("MathCoder-L-7b_GSM8K", 849, 2),
        ("MathCoder-L-7b_MATH_correct", 1179, 49),
    ],
)
def test_recorded_solutions(shared_data: Path, name: str, n_correct: int, rejected: int) -> None:
    """The authors' correct solutions come first; they were judged by MathCoder's older rule.

    On GSM8K that rule deletes letters, so that `20{kg}` is 20. On MATH it computes roots and pi
    (`\\sqrt{13}` is 3.61) and allows a distance of 0.01 between any two numbers. The last block
    repeats the answer found in the one before, unless the solution ended in an execution.
    """
    path = shared_data / "solutions" / f"{name}.jsonl"
    verdicts = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        *_, before, last = row["debug_result"]
        text = (last if last["role"] == "execution" else before)["content"]
        verdicts.append(paper_equal(str(row["ground_truth"]["answer"]), paper_answer(text)))
    assert verdicts[:n_correct].count(False) == rejected
    assert verdicts[n_correct:].count(True) == 0


def test_math_verify_pairs(shared_data: Path) -> None:
    """The rule knows no algebra, but what it accepts is seldom wrong."""
    pairs = json.loads((shared_data / "math_verify_pairs.json").read_text(encoding="utf-8"))
    accepted = [row for row in pairs if paper_equal(row["gold"], paper_answer(row["pred"]))]
    equal = sum(row["label"] for row in pairs)
    assert (equal, len(pairs) - equal) == (232, 43)
    assert (sum(row["label"] for row in accepted), len(accepted)) == (103, 111)
