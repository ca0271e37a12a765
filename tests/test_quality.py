"""Branch quality: where negatives first go wrong, how alike both sides of a pair are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from hand_made import make_paired
from scdpo.errors import InputError
from scdpo.insight.branch_lines import QualityLine, quality_lines
from scdpo.insight.branches import (
    Continuation,
    Outcome,
    PairQuality,
    continuation,
    mistake,
    pair_quality,
)
from scdpo.records import CORRECT, WRONG, Finish, Pair, Problem, Solution, Step, Verdict
from scdpo.store import read_jsonl
from small_runs import fail, succeed

APPLES = Problem(
    id="p",
    dataset="d",
    question="Ann has 3 bags of 12 apples and gives 6 away. How many are left?",
    answer="30",
    solution="She has 3 * 12 = 36 apples.\nShe has 36 - 6 = 30 left.",
)


def said(text: str, *ids: int, logp: float | None = None) -> Step:
    return Step(kind="text", text=text, token_ids=ids, mean_logp=logp)


def ran(output: str, *ids: int, host: tuple[int, ...] = ()) -> Step:
    return Step(kind="code", text="x", output=output, token_ids=ids, host_ids=host)


BAGS, GIVEN = said("She has 3*12 apples.", 1, 2, logp=-0.5), ran("30", 3, 4, host=(5,))
BOXED = said("\\boxed{30}", 6, 7)


def pair(rejected: tuple[Step, ...], k: int = 1, **changes: Any) -> Pair:
    steps = (BAGS, GIVEN, BOXED)
    fields: dict[str, Any] = {
        "id": "a|b",
        "problem_id": "p",
        "dataset": "d",
        "question": APPLES.question,
        "kind": "step_controlled" if k else "naive",
        "format": "blocks",
        "prompt": "q",
        "shared": steps[:k],
        "chosen": steps[k:],
        "rejected": rejected,
        "branch_step": k,
        "chosen_id": "a",
        "rejected_id": "b",
    }
    return Pair.model_validate(fields | changes)


def quality(rejected: tuple[Step, ...], k: int = 1, **changes: Any) -> PairQuality:
    (row,) = pair_quality([pair(rejected, k, **changes)], {"p": APPLES}, None)
    return row


# ---- one pair


def test_the_two_sides_are_compared_after_the_shared_steps() -> None:
    row = quality((ran("30", 3, 4, host=(5,)), said("\\boxed{36}", 6, 8, 9, logp=-1.0)))
    assert (row.chosen_tokens, row.rejected_tokens, row.same_tokens) == (5, 6, 4)
    assert row.same_share == 4 / 5
    assert (row.chosen_steps, row.rejected_steps) == (2, 2)
    assert (row.chosen_logp, row.rejected_logp) == (None, -1.0)


@pytest.mark.parametrize(
    ("k", "rejected", "distance", "kind"),
    [
        (1, (ran("42", 3), said("\\boxed{42}", 6)), 0, "wrong value"),
        (1, (ran("NameError: x", 3), said("\\boxed{42}", 6)), 0, "program fails"),
        (1, (ran("30", 3), said("\\boxed{31}", 6)), 1, "wrong answer"),
        (1, (ran("30", 3), said("So 36 - 6 = 31.", 6)), 1, "wrong sentence"),
        (0, (BAGS, ran("42", 3)), 1, "wrong value"),
        (1, (ran("30", 3),), None, None),
    ],
)
def test_the_distance_counts_right_new_steps_before_the_first_wrong_one(
    k: int, rejected: tuple[Step, ...], distance: int | None, kind: str | None
) -> None:
    row = quality(rejected, k)
    assert (row.distance, row.mistake) == (distance, kind)
    assert row.chosen_first_wrong is None


def test_a_wrong_step_of_the_preferred_side_is_seen() -> None:
    shared = said("She has 3*12 = 35 apples.", 1)
    row = quality((ran("42", 3),), shared=(shared,))
    assert row.chosen_first_wrong == 0
    assert row.distance == -1


def test_pairs_of_other_problems_have_no_labels() -> None:
    (row,) = pair_quality([pair((ran("42", 3),))], {}, None)
    assert (row.labelled, row.distance, row.mistake) == (False, None, None)
    assert row.same_share == 1.0


def test_recorded_steps_need_a_tokenizer() -> None:
    recorded = pair((Step(kind="text", text="ab"),))
    with pytest.raises(InputError, match="steps without token ids"):
        list(pair_quality([recorded], {}, None))
    (row,) = pair_quality([recorded], {}, lambda text, start=False: tuple(map(ord, text)))
    assert row.rejected_tokens == 2


def test_a_program_that_was_cut_has_failed() -> None:
    assert mistake(ran("1").model_copy(update={"cut": "deadline"})) == "program fails"


# ---- branches


@pytest.mark.parametrize(
    ("verdict", "finish", "flags", "outcome"),
    [
        (CORRECT, "finished", (), "correct"),
        (WRONG, "finished", ("error_word:error",), "wrong"),
        (WRONG, "finished", ("noise:length",), "garbled"),
        (WRONG, "step_tokens", (), "unfinished"),
        (Verdict(name="undecided", reason="r"), "finished", (), "undecided"),
    ],
)
def test_what_became_of_a_branch(
    verdict: Verdict, finish: Finish, flags: tuple[str, ...], outcome: Outcome
) -> None:
    branch = Solution(
        id="a@0",
        problem_id="p",
        dataset="d",
        question="q",
        format="blocks",
        policy="sft",
        prompt="q",
        steps=(BAGS, BOXED),
        finish=finish,
        answer=None,
        verdict=verdict,
        flags=flags,
        attempt=0,
        seed=0,
        parent="a",
        branch_step=1,
    )
    row = continuation(branch, parent_steps=3)
    assert (row.outcome, row.parent_steps_left) == (outcome, 2)


# ---- figures


def figures(lines: list[QualityLine]) -> dict[tuple[str, str, int | None, str], QualityLine]:
    return {(line.part, line.by, line.group, line.measure): line for line in lines}


def test_figures_are_shares_and_means_by_step() -> None:
    wrong = quality((ran("42", 3), said("\\boxed{42}", 6)))
    late = quality((ran("30", 3, 4, host=(5,)), said("\\boxed{31}", 9)))
    hidden = quality((BAGS, ran("42", 3)), k=0, chosen=(BAGS, ran("35", 3), BOXED))
    rows = [
        wrong.model_copy(update={"problem_id": f"p{n}", "chosen_id": f"c{n}"}) for n in range(3)
    ]
    rows += [late, hidden.model_copy(update={"problem_id": "p9", "chosen_id": "c9"})]
    branches = [
        Continuation(
            problem_id=f"p{n}",
            branch_step=1 + n % 2,
            parent_steps_left=2,
            outcome="wrong" if n % 2 else "correct",
        )
        for n in range(8)
    ]
    found = figures(quality_lines(rows, branches))
    at_once = found["step_controlled", "all", None, "wrong_at_once"]
    assert (at_once.value, at_once.n, at_once.questions) == (0.75, 4, 4)
    assert at_once.low < 0.75 < at_once.high
    assert found["step_controlled", "distance", 1, "negatives"].value == 0.25
    assert found["step_controlled", "branch_step", 1, "distance"].value == 0.25
    assert found["naive", "distance", 1, "negatives"].value == 1.0
    preferred = found["preferred", "all", None, "hidden_wrong"]
    assert (preferred.value, preferred.n) == (0.2, 5)
    steps = found["preferred", "all", None, "hidden_wrong_steps"]
    assert (steps.value, steps.n) == (pytest.approx(1 / 15), 15)
    # A share of 0 or 1 has Wilson's interval, as resampling would give none.
    correct = found["branches", "branch_step", 2, "correct"]
    assert (correct.value, correct.low) == (0.0, 0.0)
    assert correct.high == pytest.approx(0.49, abs=0.01)
    assert found["branches", "steps_left", 2, "wrong"].value == 0.5
    alone = found["naive", "all", None, "rejected_tokens"]  # of one question
    assert (alone.value, alone.low, alone.high) == (3.0, None, None)


def test_the_interval_is_that_of_questions_not_of_pairs() -> None:
    """Twenty pairs of two questions that differ say no more than two pairs."""
    wrong = quality((ran("42", 3),))
    late = quality((ran("30", 3), said("\\boxed{31}", 9)))
    rows = [row.model_copy(update={"problem_id": row.id}) for row in 10 * [wrong]]
    rows += [row.model_copy(update={"problem_id": "other"}) for row in 10 * [late]]
    line = figures(quality_lines(rows, []))["step_controlled", "all", None, "wrong_at_once"]
    assert (line.value, line.low, line.high, line.questions) == (0.5, 0.0, 1.0, 2)


# ---- the command


def test_the_quality_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run = make_paired(tmp_path)
    capsys.readouterr()
    succeed("quality", run)
    shown = capsys.readouterr().out
    assert "Branches by branch step k" in shown
    assert max(map(len, shown.splitlines())) <= 80
    rows = list(read_jsonl(run / "quality/pairs/rows-00000.jsonl", PairQuality))
    assert [row.kind for row in rows] == 3 * ["naive"] + 3 * ["step_controlled"]
    assert all(row.labelled for row in rows)
    lines = list(read_jsonl(run / "quality/figures/rows-00000.jsonl", QualityLine))
    assert figures(lines)["branches", "branch_step", 1, "wrong"].n == 3
    before = (run / "quality/figures/manifest.json").read_text()
    succeed("quality", run)
    assert (run / "quality/figures/manifest.json").read_text() == before
    succeed("pair", run, "--redo", "--set", "pairs.heldout_share=0.99")
    succeed("quality", run)
    rows = list(read_jsonl(run / "quality/pairs/rows-00000.jsonl", PairQuality))
    assert {row.split for row in rows} == {"heldout"}


def test_a_run_without_pairs_has_no_quality(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_paired(tmp_path)
    shutil.rmtree(run / "pairs")
    assert "run `scdpo pair` first" in fail(capsys, "quality", run)
