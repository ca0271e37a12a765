"""Kinds of answers that graders are known to misjudge, several pairs of each, both labels."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from scdpo.grading import Claim, Grader, judge

ROWS = json.loads((Path(__file__).parent / "cases" / "kinds.json").read_text(encoding="utf-8"))


def test_every_pair_of_every_kind_gets_its_verdict() -> None:
    claims = [
        Claim(row.get("answer", row.get("solution")), (row["gold"],), is_answer="answer" in row)
        for row in ROWS
    ]
    with Grader() as grader:
        verdicts = [judgement.verdict for judgement in judge(claims, grader)]
    off = [
        (row["kind"], row["gold"], claim.text, row["expected"], verdict.name, verdict.reason)
        for row, claim, verdict in zip(ROWS, claims, verdicts, strict=True)
        if verdict.name != row["expected"]
    ]
    assert off == []


def test_each_kind_has_several_pairs_and_more_than_one_verdict() -> None:
    kinds = Counter(row["kind"] for row in ROWS)
    assert min(kinds.values()) >= 7
    for kind in kinds:
        assert len({row["expected"] for row in ROWS if row["kind"] == kind}) > 1
