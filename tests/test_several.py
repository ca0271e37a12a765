"""Questions that ask for several values, of which the gold answer is one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from scdpo.formats import get_format, read_recorded
from scdpo.grading import Claim, Grader, GradingConfig, judge
from scdpo.grading.several import AMONG_NUMBERS, ONLY_ONE, TOO_MANY, stated_values
from scdpo.problems.benchmarks import load_problems
from scdpo.problems.gold import one_of_several
from scdpo.sampling.solutions import claim_of


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader() as opened:
        yield opened


STATEMENTS = [
    (r"So \(\boxed{15}\) novelists and \(\boxed{9}\) poets.", ("15", "9")),
    (r"\[ \boxed{10,000 \text{ dollars}} \] at 4 % and \[ \boxed{5,000} \] at 3 %", None),
    (r"\boxed{x = 15, y = 9}", ("15", "9")),
    (r"\boxed{(15, 9)}", ("15", "9")),
    (r"\boxed{\{15, 9\}}", ("15", "9")),
    (r"\boxed{(x, y) = (15, 9)}", ("15", "9")),
    (r"\boxed{15 \text{ novelists and } 9 \text{ poets}}", ("15", "9")),
    (r"\boxed{\text{Speed} = 120 \text{ mph}, \quad \text{wind} = 30}", ("120", "30")),
    (r"\boxed{\begin{cases} x = 1,500 \\ y = 2 \end{cases}}", ("1,500", "2")),
    (r"\boxed{\frac{55}{2}, \frac{37}{2}}", (r"\frac{55}{2}", r"\frac{37}{2}")),
    (r"\boxed{40 \text{ liters of } 40\% \text{ acid}}", ("40",)),
    (r"\boxed{15} and again \boxed{15}", ("15",)),
    (r"First \boxed{3}." + " We go on." * 30 + r" \boxed{15} and \boxed{9}", ("15", "9")),
    (r"\boxed{15} and \boxed{9", ("15",)),
    ("The answer is 15 and 9.", ("15", "9")),
    ("Who knows?", ()),
    (r"\boxed{}", ()),
]


@pytest.mark.parametrize(("text", "values"), STATEMENTS, ids=lambda value: str(value)[:40])
def test_values_in_which_a_solution_ends(text: str, values: tuple[str, ...] | None) -> None:
    assert stated_values(text).values == (values if values is not None else ("10,000", "5,000"))


VERDICTS = [
    (r"\boxed{15} and \boxed{9}", "correct", ""),
    (r"\boxed{9} and \boxed{15.0}", "correct", ""),
    (r"\boxed{15}", "correct", ""),
    (r"\boxed{9}", "undecided", ONLY_ONE),
    (r"\boxed{9} and \boxed{16}", "wrong", ""),
    (r"\boxed{3, 15, 9}", "correct", ""),
    (r"\boxed{15, 9, 24}", "undecided", TOO_MANY),
    (r"\boxed{" + ", ".join(map(str, range(99))) + "}", "undecided", TOO_MANY),
    (r"\boxed{15:25\%, 9:75\%}", "undecided", AMONG_NUMBERS),
    ("I give up.", "undecided", "no answer"),
]


@pytest.mark.parametrize(("text", "name", "reason"), VERDICTS, ids=lambda value: str(value)[:30])
def test_verdicts(text: str, name: str, reason: str, grader: Grader) -> None:
    [(_, verdict)] = judge([Claim(text, ("15",), several=True)], grader)
    assert (verdict.name, verdict.reason) == (name, reason)


def test_other_questions_are_judged_by_their_last_answer(grader: Grader) -> None:
    claims = [
        Claim(r"\boxed{15}; no: \boxed{9}", ("9",)),
        Claim(r"\boxed{9}; no: \boxed{15}", ("9",)),
        Claim(r"\boxed{9}", ("8", "9")),
        Claim(None, ("9",)),
        Claim(None, ("9",), several=True),
        Claim("Who knows?", ("9",)),
        Claim(r"\boxed{9} and \boxed{15}", ("9",), several=True),
    ]
    judged = judge(claims, grader)
    assert [answer for answer, _ in judged] == ["9", "15", "9", None, None, None, "9, 15"]
    names = ["correct", "wrong", "correct", "undecided", "undecided", "undecided", "correct"]
    assert [verdict.name for _, verdict in judged] == names


def test_under_the_papers_rule_any_boxed_number_counts() -> None:
    form = get_format("blocks")
    steps = form.parse(
        r"<|text|>First \boxed{4}.<|endofblock|>"
        r"<|text|>So \boxed{9} and \boxed{15}.<|endofblock|><|endofmessage|>"
    )
    with Grader(GradingConfig(compat="paper")) as grader:
        for gold, several, name in (("15", True, "correct"), ("4", True, "wrong")):
            [(_, verdict)] = judge([claim_of(steps, form, (gold,), several=several)], grader)
            assert verdict.name == name
        [(answer, verdict)] = judge([claim_of(steps, form, ("9",))], grader)
        assert (answer, verdict.name) == ("9", "correct")


@pytest.mark.parametrize(
    ("question", "several"),
    [
        ("They won 9 games more. How many wins and how many ties did they have?", True),
        ("How many small ones are there? How many large ones?", True),
        ("How much did she invest at 10 %? At 8 %?", True),
        ("Find the numbers.", True),
        ("How fast is each snail crawling?", True),
        ("What are the lengths of the pieces?", True),
        ("There are 30 legs.", True),
        ("A board is cut into 2 pieces and sold. Find the length of the shorter piece.", False),
        ("If adults and children paid 50 dollars , how many children attended?", False),
        ("At 8.25 dollars each. How many did he buy?", False),
    ],
)
def test_which_questions_ask_for_several(question: str, several: bool) -> None:
    assert one_of_several("simuleq", question) == several
    assert not one_of_several("gsm8k", question)


def test_own_rows_may_say_so(tmp_path: Path) -> None:
    row = {"question": "Q", "answer": 1}
    path = tmp_path / "rows.jsonl"
    for value, several in ((True, True), (False, False)):
        path.write_text(json.dumps(row | {"several": value}))
        assert load_problems("jsonl", path)[0].several == several


def test_recorded_solutions_of_simuleq(shared_data: Path, grader: Grader) -> None:
    """On MathCoder-CL-7b's solutions the rule finds what the code released with the paper finds
    (arXiv 2407.00782: any number boxed in the last paragraph), 311 of 514, and a few that it
    misses; the box that the authors extracted alone is right 252 times."""
    recorded = list(
        read_recorded(shared_data / "solutions" / "MathCoder-CL-7b_simuleq.jsonl", "mathcoder")
    )
    form = get_format(recorded[0].format)
    claims = [
        claim_of(r.steps, form, (r.gold,), several=one_of_several("simuleq", r.question))
        for r in recorded
    ]
    assert sum(claim.several for claim in claims) == 349
    names = Counter(verdict.name for _, verdict in judge(claims, grader))
    assert 305 <= names["correct"] <= 320
    single = judge([Claim(claim.text, claim.golds) for claim in claims], grader)
    assert names["wrong"] < sum(verdict.name == "wrong" for _, verdict in single) / 2
