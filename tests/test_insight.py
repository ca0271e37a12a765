"""Credit assignment: rewards of tokens, wrong steps by an oracle, how well one finds the other."""

from __future__ import annotations

import io
import itertools
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from scdpo.cli import main
from scdpo.errors import DataError, InputError
from scdpo.formats import get_format
from scdpo.insight.drawing import draw, in_terminal, scale_of, shades
from scdpo.insight.finding import Finding
from scdpo.insight.labels import (
    StepLabels,
    human_labels,
    oracle,
    read_processbench,
    true_values,
)
from scdpo.insight.rewards import SolutionRewards, StepReward, token_rewards, token_texts
from scdpo.policies import load_policy
from scdpo.problems.embedded import load_embedded
from scdpo.records import CORRECT, Problem, Solution, Step
from scdpo.store import read_jsonl, write_jsonl
from scdpo.training import train
from small_runs import succeed, write_recipe, write_recorded
from tiny_pairs import make_pair, make_policy

APPLES = Problem(
    id="p",
    dataset="d",
    question="Ann has 3 bags of 12 apples and gives 6 away. How many are left?",
    answer="30",
    solution="She has 3 * 12 = 36 apples.\nShe has 36 - 6 = 30 left.",
)


def solution(*steps: Step, problem: str = "p", name: str = "s") -> Solution:
    return Solution(
        id=name,
        problem_id=problem,
        dataset="d",
        question="q",
        format="blocks",
        policy="sft",
        prompt="w1",
        steps=steps,
        finish="finished",
        answer=None,
        verdict=CORRECT,
        attempt=0,
        seed=0,
    )


def said(text: str) -> Step:
    return Step(kind="text", text=text)


def ran(output: str) -> Step:
    return Step(kind="code", text="x", output=output)


# ---- the oracle


def test_the_true_values_are_those_of_the_worked_solution() -> None:
    assert true_values(APPLES) == {36, 30}
    with pytest.raises(InputError, match="no worked solution"):
        true_values(APPLES.model_copy(update={"solution": ""}))


@pytest.mark.parametrize(
    ("step", "wrong"),
    [
        (said("She has 3*12 apples."), False),
        (said("She has 3 bags * 12 apples = 36 apples."), False),
        (said("She has 3 * 12 = 38 apples."), True),  # a false equation
        (said("She has 3 + 12 apples."), True),  # a value that is none of the true ones
        (said("Ann gives 6 apples away."), False),  # no arithmetic
        (said("The share is 6/36, so 36 - 6 are left."), False),  # the last calculation counts
        (ran("36"), False),
        (ran("36.0"), False),
        (ran("12"), False),  # a number of the question
        (ran("35"), True),
        (ran("Traceback (most recent call last): NameError: x"), True),
        (said("The answer is \\boxed{30}."), False),
        (said("The answer is \\boxed{36}."), True),
    ],
)
def test_a_step_is_wrong_if_it_states_or_computes_what_is_not_true(step: Step, wrong: bool) -> None:
    assert oracle(APPLES, solution(step)).wrong == (wrong,)


def test_nothing_is_known_of_the_steps_after_the_first_wrong_one() -> None:
    labels = oracle(APPLES, solution(ran("36"), ran("31"), said("The answer is \\boxed{31}.")))
    assert labels.wrong == (False, True, None)
    assert labels.first_wrong == 1


def test_every_embedded_problem_has_a_worked_solution_that_reaches_its_answer() -> None:
    for split in ("train", "validation", "test"):
        for problem in load_embedded(split):
            assert float(problem.answer) in true_values(problem)


# ---- finding wrong steps


Scores = list[list[float]]


def finding(scores: Scores | dict[str, Scores], firsts: list[int | None]) -> Finding:
    by_name = scores if isinstance(scores, dict) else {"a": scores}
    rows = next(iter(by_name.values()))
    labels = [
        StepLabels(
            solution_id=f"s{n}",
            wrong=tuple(
                None if first is not None and i > first else i == first for i in range(len(row))
            ),
            first_wrong=first,
        )
        for n, (row, first) in enumerate(zip(rows, firsts, strict=True))
    ]
    return Finding(labels, [f"p{n}" for n in range(len(rows))], by_name, resamples=50)


def test_roc_auc_is_the_chance_that_a_wrong_step_scores_below_a_right_one() -> None:
    rng = np.random.default_rng(3)
    scores = [rng.integers(0, 6, size=5).astype(float).tolist() for _ in range(30)]
    firsts: list[int | None] = [int(rng.integers(0, 5)) if n % 3 else None for n in range(30)]
    wrong = [row[f] for row, f in zip(scores, firsts, strict=True) if f is not None]
    right = [s for row, f in zip(scores, firsts, strict=True) for s in row[: 5 if f is None else f]]
    won = [(a < b) + (a == b) / 2 for a, b in itertools.product(wrong, right)]
    (line,) = finding(scores, firsts).lines()
    assert line.auc.value == pytest.approx(np.mean(won))
    assert line.auc.low < line.auc.value < line.auc.high
    hits = [np.argmin(row) == f for row, f in zip(scores, firsts, strict=True) if f is not None]
    assert line.first_error.value == pytest.approx(np.mean(hits))


def test_scores_that_know_the_first_wrong_step_find_it_always() -> None:
    firsts = [0, 2, None, 1, None, 3, None, 2]
    scores = [[-5.0 if n == first else float(n) for n in range(4)] for first in firsts]
    (line,) = finding(scores, firsts).lines()
    assert (line.auc.value, line.first_error.value) == (1.0, 1.0)
    assert line.f1 is not None and line.f1.value == 1.0


def test_scorers_are_compared_in_every_measure() -> None:
    rng = np.random.default_rng(5)
    firsts: list[int | None] = [int(rng.integers(0, 4)) if n % 2 else None for n in range(40)]
    knows = [[-5.0 if n == first else float(n) for n in range(4)] for first in firsts]
    guesses = rng.normal(size=(40, 4)).tolist()
    both = finding({"knows": knows, "guesses": guesses}, firsts)
    one, other = both.lines()
    found = both.difference("knows", "guesses")
    assert found.auc.value == pytest.approx(one.auc.value - other.auc.value)
    assert one.f1 is not None and other.f1 is not None and found.f1 is not None
    assert found.f1.value == pytest.approx(one.f1.value - other.f1.value)
    assert max(found.auc_p, found.first_error_p, found.f1_p or 0.0) < 0.05
    same = both.difference("guesses", "guesses")
    assert (same.f1_p, same.first_error_p) == (1.0, 1.0)


def test_solutions_without_a_wrong_step_cannot_be_measured() -> None:
    with pytest.raises(InputError, match="none of 2 solutions has a step that is known to be wr"):
        finding([[1.0], [2.0]], [None, None])


# ---- rewards


def test_rewards_of_a_solution_add_up_to_that_of_the_training(tmp_path: Path) -> None:
    initial = make_policy(tmp_path / "policy")
    held, *pairs = (make_pair(n) for n in range(9))
    report = train(
        *(initial, pairs, tmp_path / "out"),
        heldout=[held],
        learning_rate=1e-3,
        batch_size=2,
        beta=0.3,
    )
    assert report.heldout_after is not None
    trained, reference = load_policy(report.policy), load_policy(initial)
    sides = [
        solution(*steps, name=name).model_copy(update={"prompt": held.prompt})
        for name, steps in (("chosen", held.chosen), ("rejected", held.rejected))
    ]
    chosen, rejected = token_rewards({"dpo": trained}, reference, sides, beta=0.3)
    margin = chosen.total - rejected.total
    assert abs(margin) > 1e-3
    assert margin == pytest.approx(report.heldout_after.margin, abs=1e-5)
    assert [len(s.tokens) for s in chosen.steps] == [len(s.rewards) for s in chosen.steps]


def test_each_policy_has_the_beta_of_its_own_training(tmp_path: Path) -> None:
    reference = load_policy(make_policy(tmp_path / "a"))
    one = solution(said("w3 w4"))
    trained = load_policy(make_policy(tmp_path / "b"))
    with torch.no_grad():
        trained.model.get_output_embeddings().weight[3] += 0.1
    policies = {"a": trained, "b": trained}
    a, b = token_rewards(policies, reference, [one], beta={"a": 0.1, "b": 0.3})
    assert (a.beta, b.beta) == (0.1, 0.3)
    assert abs(a.total) > 1e-4
    assert b.total == pytest.approx(3 * a.total)
    with pytest.raises(InputError, match="no β for b"):
        list(token_rewards(policies, reference, [one], beta={"a": 0.1}))


def test_execution_output_has_no_reward(tmp_path: Path) -> None:
    policy = load_policy(make_policy(tmp_path / "policy"))
    step = Step(kind="code", text="w3 w4", output="5", host_text=" w5 w6")
    (row,) = token_rewards({"same": policy}, policy, [solution(step)], beta=0.1)
    assert [len(s.rewards) for s in row.steps] == [2]
    assert row.total == 0


def test_too_long_a_solution_is_refused(tmp_path: Path) -> None:
    policy = load_policy(make_policy(tmp_path / "policy"))
    long = solution(said(" ".join(["w1"] * 200)))
    with pytest.raises(InputError, match="201 tokens, but the policies' context is 128"):
        list(token_rewards({"a": policy}, policy, [long], beta=0.1))


def test_texts_of_tokens_make_up_the_text() -> None:
    policy = load_policy("embedded")
    ids = policy.encode("<|text|>Zoë pays 5 €, 三 times.<|endofblock|>")
    texts = token_texts(policy, ids)
    assert "".join(texts) == policy.decode(ids)
    assert "\ufffd" not in "".join(texts)


# ---- ProcessBench, pictures


def test_a_row_of_processbench_has_labels(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    row = '{"id": "a", "generator": "g", "problem": "q", "steps": ["1", "2", "3"], "label": %d, '
    path.write_text("[" + row % 1 + '"final_answer_correct": false, "other": 1}]')
    (read,) = read_processbench(path)
    assert human_labels(read).wrong == (False, True, None)
    path.write_text("[" + row % 7 + '"final_answer_correct": false}]')
    with pytest.raises(DataError, match="label 7 of 3 steps"):
        read_processbench(path)
    path.write_text("not json")
    with pytest.raises(DataError, match="not a file of ProcessBench"):
        read_processbench(path)


def test_the_shared_rows_of_processbench_can_be_read(shared_data: Path) -> None:
    rows = read_processbench(shared_data / "processbench" / "gsm8k.json")
    assert len(rows) == 400
    assert any(human_labels(row).first_wrong is None for row in rows)


def rewards(*values: tuple[float, ...]) -> SolutionRewards:
    steps = tuple(
        StepReward(tokens=tuple("<$\x1b" + c for c in "ab"), rewards=v, logps=v) for v in values
    )
    return SolutionRewards(policy="dpo", beta=0.1, solution_id="s", problem_id="p", steps=steps)


def test_all_policies_of_a_picture_share_a_scale() -> None:
    much, little = rewards((0.5, -1.0), (0.0, 0.5)), rewards((0.01, -0.01), (0.0, 0.0))
    scale = scale_of([much, little])
    assert 0.5 < scale < 1.0  # the few highest rewards are beyond it
    assert shades(much, scale)[0][1] == 0.0
    assert shades(much, scale)[1][0] == 0.5
    drawn = [shade for step in shades(little, scale) for shade in step]
    assert max(drawn) - min(drawn) < 0.05
    # Alone, too, what is little compared with β stays pale.
    assert scale_of([rewards((1e-4, -1e-4))]) == 0.1 * little.beta


def test_the_legend_of_a_picture_gives_the_numbers_of_its_scale() -> None:
    rows = [rewards((0.25, -0.25)), rewards((0.25, -0.25))]
    console = Console(file=io.StringIO(), width=80)
    console.print(in_terminal(rows, first_wrong=0))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "reward of a token  ≤ −0.25  −0.12  0  +0.12  ≥ +0.25" in shown


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_pictures_are_drawn_of_any_text(tmp_path: Path, suffix: str) -> None:
    row = rewards((0.5, -1.0), (0.0, 0.5))
    draw([row, row], tmp_path / f"out{suffix}", first_wrong=0, title="a $ title")
    assert (tmp_path / f"out{suffix}").stat().st_size > 1000
    with pytest.raises(InputError, match=r"a \.png or \.svg"):
        draw([row], tmp_path / "out.gif")


def test_a_format_writes_the_steps_of_processbench() -> None:
    from scdpo.insight.labels import HumanLabelled
    from scdpo.pipeline.credit import as_solutions

    row = HumanLabelled(
        id="a",
        generator="g",
        problem="q",
        steps=("One.", "Two."),
        label=-1,
        final_answer_correct=True,
    )
    bad = row.model_copy(update={"steps": ("One.<|endofblock|>", "Two.")})
    (made,) = as_solutions([row, bad], get_format("blocks"))
    assert len(made.steps) == 2
    assert get_format("blocks").parse(made.text) == made.steps


# ---- the command


def test_the_credit_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_recipe(tmp_path / "my.yaml", pairs={"heldout_share": 0.0})
    write_recorded(tmp_path / "outs.jsonl", 3)
    succeed("import", "outs.jsonl", "--layout", "tora", "--out", "run", "--recipe", path)
    assert "no trained policy" in fails("credit", "run")
    succeed("pair", "run")
    succeed("train", "run", "--method", "dpo")
    assert "a picture is a .png or .svg" in fails("credit", "run", "--draw", "x.gif")
    assert "no such folder" in fails("credit", "run", "--draw", "none/x.svg")
    succeed("credit", "run", "--attempts", "2", "--draw", "x.svg")
    rows = list(read_jsonl(tmp_path / "run/credit/rewards/rows-00000.jsonl", SolutionRewards))
    assert {row.policy for row in rows} == {"dpo"}
    imported = next(Path("run/imports").glob("*/rows-00000.jsonl"))
    assert "two files" in fails("credit", "run", "--solutions", imported, "--processbench", "x")
    succeed("credit", "run", "--solutions", imported, "--limit", "2")
    (kept,) = Path("run/credit").glob("*rows_00000/rows-00000.jsonl")
    assert len(list(read_jsonl(kept, SolutionRewards))) == 2
    first, *_ = read_jsonl(imported, Solution)
    other = first.model_copy(update={"format": "plain"})
    write_jsonl("other.jsonl", [other])
    assert "in format 'plain', not 'blocks'" in fails("credit", "run", "--solutions", "other.jsonl")
    assert "attempts" in fails("credit", "run", "--attempts", "1")
    succeed("credit", "run", "--attempts", "1", "--redo")
    # Other commands know its stages: reports list them, and a changed recipe is compared with them.
    succeed("report", "run")
    assert "sample.temperature" in fails("evaluate", "run", "--set", "sample.temperature=0.9")
    succeed("evaluate", "run", "--policy", "dpo", "--set", "evaluate.rows=2")


def fails(*arguments: object) -> str:
    """Run a command that ends in exit code 2; returns what it says."""
    error = io.StringIO()
    with redirect_stderr(error), pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code == 2, error.getvalue()
    return error.getvalue()
