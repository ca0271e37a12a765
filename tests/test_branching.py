"""Branching from preferred solutions: shared steps, interpreter state, stop rule, flags."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path

import pytest

from scdpo.engines import Request
from scdpo.errors import InputError
from scdpo.pairs import PairConfig, step_controlled_pairs
from scdpo.records import Problem, Solution, mean_logp
from scdpo.sampling import (
    BranchConfig,
    Limits,
    SampleConfig,
    Schedule,
    count_branches,
    first_preferred,
)
from scdpo.sampling.attempts import REPLAY_DIFFERS
from scdpo.sampling.branching import (
    PARALLEL_REPLAYS,
    UNLIKELY,
    branch_points,
)
from scdpo.sandbox import ProcessSandbox, SandboxConfig
from scdpo.seeds import derive_seed
from scdpo.store import Stage
from scripted_policies import (
    END,
    TOKENS,
    Counting,
    adder,
    additions,
    by_id,
    code,
    engine,
    fresh_sessions,
    keep_branches,
    keep_sampled,
    rest,
    run_stage,
    sampler_of,
    say,
    text,
)

ROWS = 8
MAX_SESSIONS = ROWS + PARALLEL_REPLAYS
QUESTION = Problem(id="q/0", dataset="q", question="What?", answer="7")
RIGHT = text(r"\boxed{7}") + END
WRONG = text(r"\boxed{8}") + END


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ProcessSandbox]:
    with ProcessSandbox(SandboxConfig(preload=(), deadline=1, max_sessions=MAX_SESSIONS)) as opened:
        yield opened


@pytest.fixture(scope="module")
def sums(sandbox: ProcessSandbox, tmp_path_factory: pytest.TempPathFactory) -> list[Solution]:
    """Naive solutions of ten additions."""
    config = SampleConfig(max_attempts=6, rows=ROWS)
    sampler = sampler_of(adder, sandbox)
    path = tmp_path_factory.mktemp("sums")
    return run_stage(path, lambda stage: keep_sampled(additions(10), config, sampler, stage))[0]


def solved(steps: Sequence[str], sandbox: ProcessSandbox, path: Path) -> Solution:
    """A solution of the question with these completions."""
    sampler = sampler_of(say("".join(steps)), sandbox)
    config = SampleConfig(max_attempts=1)
    return run_stage(path, lambda stage: keep_sampled([QUESTION], config, sampler, stage))[0][0]


def branching(
    parents: Sequence[Solution],
    config: BranchConfig,
    sandbox: ProcessSandbox,
    script: Callable[[Request], str] = adder,
    *,
    logp: float = -0.5,
    problems: Sequence[Problem] = (),
) -> Callable[[Stage], Coroutine[object, object, dict[str, int | float]]]:
    sampler = sampler_of(engine(script, logp=logp), sandbox)
    return lambda stage: keep_branches(parents, config, sampler, stage, problems=problems)


# ---- what a continuation shares


def test_a_continuation_shares_exactly_the_first_k_steps(
    sums: list[Solution], sandbox: ProcessSandbox, tmp_path: Path
) -> None:
    parents = {s.id: s for s in first_preferred(sums)}
    config = BranchConfig(negatives=3, rows=ROWS, seed=3)
    rows, counts = run_stage(tmp_path, branching(list(parents.values()), config, sandbox))
    assert len(rows) > 2 * len(parents) > 6
    ks = set()
    for row in rows:
        parent = parents[row.parent or ""]
        k = row.branch_step
        ks.add(k)
        assert 1 <= k < len(parent.steps)
        assert row.steps[:k] == parent.steps[:k]
        assert (row.prompt, row.prompt_ids) == (parent.prompt, parent.prompt_ids)
        assert row.id == f"{parent.id}@{row.attempt}"
        assert row.seed == derive_seed(3, "branch", parent.id, row.attempt)
        new = row.steps[k:]
        assert all(TOKENS.decode(step.token_ids) == step.text for step in new)
        assert [step.temperature for step in new] == [1.1, 1.15, 1.2, 1.25, 1.3][: len(new)]
    assert len(ks) >= 3
    assert counts == count_branches(rows)
    assert counts["attempts"] == len(rows)
    made = step_controlled_pairs(sums, rows, PairConfig(step_controlled_per_question=9))
    negatives = {row.id for row in rows if row.side() == "rejected"}
    assert negatives
    assert made.counts["pairs"] + made.counts["duplicate_rejected"] == len(negatives)


PROBE = "print(*(name for name in 'abc' if name in globals()))\nc = 1"
prober = say(code(PROBE) + WRONG)
"""Prints which of a, b and c exist, then gives a wrong answer."""


def test_a_continuation_has_the_state_after_its_k_steps(
    sandbox: ProcessSandbox, tmp_path: Path
) -> None:
    steps = [text("Go."), code("a = 1"), code("b = 2"), RIGHT]
    parent = solved(steps, sandbox, tmp_path / "parent")
    config = BranchConfig(negatives=9, max_attempts=9, branch_steps="every", rows=ROWS)
    rows, counts = run_stage(tmp_path / "rows", branching([parent], config, sandbox, prober))
    # c is never there: what one continuation defines, no other one sees.
    assert [(r.branch_step, r.steps[r.branch_step].output) for r in rows] == [
        (1, ""),
        (2, "a"),
        (3, "a b"),
    ] * 3
    assert counts["dispreferred"] == 9
    assert fresh_sessions(sandbox, MAX_SESSIONS) == MAX_SESSIONS


def test_an_end_marker_right_behind_the_shared_steps_is_a_step(
    sandbox: ProcessSandbox, tmp_path: Path
) -> None:
    parent = solved([text("Go."), RIGHT], sandbox, tmp_path / "parent")
    config = BranchConfig(max_attempts=1)
    rows, _ = run_stage(tmp_path / "rows", branching([parent], config, sandbox, say(END)))
    assert [step.text for step in rows[0].steps] == [text("Go."), END]
    assert rows[0].steps[0] == parent.steps[0]


# ---- where continuations start


def test_branch_steps_leave_a_step_on_both_sides(sandbox: ProcessSandbox, tmp_path: Path) -> None:
    parent = solved([*(text(str(i)) for i in range(4)), RIGHT], sandbox, tmp_path / "parent")
    assert branch_points(parent, BranchConfig()) == [1, 2, 3, 4]
    assert branch_points(parent, BranchConfig(skip_last=1)) == [1, 2, 3]
    assert branch_points(parent, BranchConfig(skip_last=9)) == []
    orders = []
    for seed in range(4):
        config = BranchConfig(max_attempts=8, seed=seed)
        work = branching([parent], config, sandbox, say(RIGHT))
        rows, _ = run_stage(tmp_path / str(seed), work)
        ks = [row.branch_step for row in rows]
        assert sorted(ks[:4]) == [1, 2, 3, 4]
        assert ks[:4] == ks[4:]
        orders.append(tuple(ks))
    assert len(set(orders)) > 1


def test_a_solution_of_one_step_has_no_continuations(
    sandbox: ProcessSandbox, tmp_path: Path
) -> None:
    parent = solved([RIGHT], sandbox, tmp_path / "parent")
    rows, counts = run_stage(tmp_path / "rows", branching([parent], BranchConfig(), sandbox))
    assert rows == []
    assert counts["attempts"] == 0


def test_parents_are_the_preferred_sides_of_naive_pairs(sums: list[Solution]) -> None:
    parents = first_preferred(reversed(sums))
    by_problem: dict[str, list[Solution]] = {}
    for solution in sums:
        by_problem.setdefault(solution.problem_id, []).append(solution)
    expected = [
        next(s for s in group if s.side() == "chosen")
        for group in by_problem.values()
        if {"chosen", "rejected"} <= {s.side() for s in group}
    ]
    assert len(expected) > 3
    assert parents == expected


# ---- stop rule

STOPS: list[tuple[str, dict[str, int], int]] = [
    ("www", {"negatives": 2}, 2),
    ("cwcw", {"negatives": 2}, 4),
    ("ccww", {"negatives": 1, "max_attempts": 2}, 2),
    ("uwtw", {"negatives": 2}, 4),
    ("w", {"negatives": 0}, 0),
]
ENDINGS = {"w": WRONG, "c": RIGHT, "u": text("Who knows.") + END, "t": "<|text|>" + "and" * 200}


@pytest.mark.parametrize(("plan", "settings", "taken"), STOPS)
@pytest.mark.parametrize("rows", [1, ROWS])
def test_stop_rule(
    plan: str,
    settings: dict[str, int],
    taken: int,
    rows: int,
    sandbox: ProcessSandbox,
    tmp_path: Path,
) -> None:
    parent = solved([text("Go."), text("On."), RIGHT], sandbox, tmp_path / "parent")
    endings = {
        derive_seed(0, "branch", parent.id, attempt): ENDINGS[kind]
        for attempt, kind in enumerate(plan.ljust(40, "c"))
    }
    config = BranchConfig(**settings, rows=rows, limits=Limits(step_tokens=150))
    work = branching(
        [parent], config, sandbox, lambda request: rest(endings[request.seed], request)
    )
    found, counts = run_stage(tmp_path / "rows", work)
    assert [row.attempt for row in found] == list(range(taken))
    assert [row.side() == "rejected" for row in found] == [kind == "w" for kind in plan[:taken]]
    assert counts["dispreferred"] == plan[:taken].count("w")
    assert counts["correct"] == plan[:taken].count("c")


def test_negatives_are_wanted_by_data_set(sandbox: ProcessSandbox, tmp_path: Path) -> None:
    parent = solved([text("Go."), RIGHT], sandbox, tmp_path / "parent")
    names = {"math": 3, "gsm8k": 1, "other": 2}
    parents = [parent.model_copy(update={"id": n, "dataset": n}) for n in names]
    config = BranchConfig(negatives={"math": 3, "gsm8k": 1, "default": 2}, rows=ROWS)
    rows, _ = run_stage(tmp_path / "rows", branching(parents, config, sandbox, say(WRONG)))
    assert {n: sum(row.parent == n for row in rows) for n in names} == names
    unnamed = BranchConfig(negatives={"math": 3})
    with pytest.raises(InputError, match="no value for data set 'gsm8k'"):
        run_stage(tmp_path / "none", branching(parents, unnamed, sandbox, say(WRONG)))


def test_rows_depend_neither_on_chunks_nor_on_batches(
    sums: list[Solution], sandbox: ProcessSandbox, tmp_path: Path
) -> None:
    parents = first_preferred(sums)
    sets = []
    for i, (chunk, rows) in enumerate([(32, ROWS), (1, 1), (3, 2), (2, 5)]):
        config = BranchConfig(chunk=chunk, rows=rows, max_attempts=6)
        found, _ = run_stage(tmp_path / str(i), branching(parents, config, sandbox))
        sets.append(by_id(found))
    assert len(sets[0]) > len(parents)
    assert sets[0] == sets[1] == sets[2] == sets[3]


def test_a_stage_stopped_after_any_row_ends_with_the_same_rows(
    sums: list[Solution], sandbox: ProcessSandbox, tmp_path: Path
) -> None:
    parents = first_preferred(sums)[:4]
    config = BranchConfig(chunk=2, rows=ROWS, max_attempts=4)
    whole, counts = run_stage(tmp_path / "whole", branching(parents, config, sandbox))
    assert len(whole) > len(parents)
    for n in range(len(whole) + 1):
        work = branching(parents, config, sandbox)
        again, counts_again = run_stage(tmp_path / str(n), work, before=whole[:n])
        assert by_id(again) == by_id(whole)
        assert counts_again == counts


def test_only_chunks_that_lack_rows_are_done_again(
    sums: list[Solution], sandbox: ProcessSandbox, tmp_path: Path
) -> None:
    parents = first_preferred(sums)[:4]
    config = BranchConfig(chunk=2, rows=ROWS, max_attempts=4)
    whole, _ = run_stage(tmp_path / "whole", branching(parents, config, sandbox))
    for missing, cleared in ((0, 0), (1, 1), (len(whole), 2)):
        policy = Counting()
        sampler = sampler_of(policy, sandbox)
        run_stage(
            tmp_path / str(missing),
            lambda stage, sampler=sampler: keep_branches(parents, config, sampler, stage),
            before=whole[: len(whole) - missing],
        )
        assert policy.cleared == cleared
        assert bool(policy.asked) == bool(cleared)


def test_no_more_sessions_are_live_than_rows_and_walks(
    sums: list[Solution], sandbox: ProcessSandbox, tmp_path: Path
) -> None:
    parent = first_preferred(sums)[0]
    parents = [parent.model_copy(update={"id": f"p{i}"}) for i in range(20)]
    config = BranchConfig(rows=ROWS, max_attempts=4, negatives=4)
    # One session more than the sandbox allows would be an error.
    rows, _ = run_stage(tmp_path, branching(parents, config, sandbox))
    assert {row.parent for row in rows} == {f"p{i}" for i in range(20)}
    assert fresh_sessions(sandbox, MAX_SESSIONS) == MAX_SESSIONS


def test_progress_never_falls_and_ends_at_all(
    sums: list[Solution], sandbox: ProcessSandbox, tmp_path: Path
) -> None:
    parents = first_preferred(sums)
    seen: list[tuple[int, int]] = []
    config = BranchConfig(chunk=4, rows=4)
    sampler = sampler_of(adder, sandbox)
    run_stage(
        tmp_path,
        lambda stage: keep_branches(
            parents, config, sampler, stage, lambda done, total: seen.append((done, total))
        ),
    )
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (len(parents), len(parents))
    assert len(seen) > 3


# ---- grading


def test_every_gold_answer_counts_as_right(sandbox: ProcessSandbox, tmp_path: Path) -> None:
    parent = solved([text("Go."), RIGHT], sandbox, tmp_path / "parent")
    problem = QUESTION.model_copy(update={"alternatives": ("8",)})
    config = BranchConfig(max_attempts=2)
    work = branching([parent], config, sandbox, say(WRONG), problems=[problem])
    rows, _ = run_stage(tmp_path / "known", work)
    assert [row.verdict.name for row in rows] == ["correct", "correct"]
    rows, _ = run_stage(tmp_path / "alone", branching([parent], config, sandbox, say(WRONG)))
    assert [row.verdict.name for row in rows] == ["wrong", "wrong"]


# ---- flags


@pytest.mark.parametrize(("logp", "kept"), [(-0.9, True), (-1.1, False)])
def test_negatives_below_the_floor_are_flagged_and_not_kept(
    logp: float, kept: bool, sandbox: ProcessSandbox, tmp_path: Path
) -> None:
    parent = solved([text("Go."), RIGHT], sandbox, tmp_path / "parent")
    config = BranchConfig(min_mean_logp=-1.0, negatives=1, max_attempts=3)
    work = branching([parent], config, sandbox, say(WRONG), logp=logp)
    rows, counts = run_stage(tmp_path / "rows", work)
    assert [row.flags for row in rows] == ([()] if kept else [(UNLIKELY,)] * 3)
    assert counts["dispreferred"] == int(kept)
    assert counts.get("negatives_mean_logp") == (logp if kept else None)
    assert counts.get(UNLIKELY, 0) == (0 if kept else 3)
    assert mean_logp(rows[0].steps[1:]) == pytest.approx(logp)  # the parent's are at -0.5


def test_a_replay_that_prints_something_else_is_flagged(
    sandbox: ProcessSandbox, tmp_path: Path
) -> None:
    steps = [text("Go."), code("a = 1\na"), text("On."), RIGHT]
    parent = solved(steps, sandbox, tmp_path / "parent")
    other = parent.steps[1].model_copy(update={"output": "2"})
    parent = parent.model_copy(update={"steps": (parent.steps[0], other, *parent.steps[2:])})
    config = BranchConfig(negatives=9, max_attempts=9, branch_steps="every", rows=ROWS)
    rows, counts = run_stage(tmp_path / "rows", branching([parent], config, sandbox, say(WRONG)))
    assert [(row.branch_step, row.flags) for row in rows] == [(1, ()), (2, (REPLAY_DIFFERS,))]
    assert [row.side() == "rejected" for row in rows] == [True, False]
    assert counts[REPLAY_DIFFERS] == 1


def test_a_replay_that_loses_its_session_ends_the_continuation(
    sandbox: ProcessSandbox, tmp_path: Path
) -> None:
    until = time.time() + 8
    program = f"import time\nwhile time.time() > {until}: pass"
    parent = solved([code(program), text("On."), RIGHT], sandbox, tmp_path / "parent")
    assert parent.finish == "finished"
    time.sleep(max(until - time.time(), 0) + 0.1)
    config = BranchConfig(max_attempts=4, rows=ROWS)
    work = branching([parent], config, sandbox, say(code("1") + WRONG))
    rows, _ = run_stage(tmp_path / "rows", work)
    assert [(row.finish, row.flags) for row in rows] == [("sandbox", (REPLAY_DIFFERS,))]
    assert fresh_sessions(sandbox, MAX_SESSIONS) == MAX_SESSIONS


def test_a_session_that_cannot_be_cloned_is_made_again(
    sandbox: ProcessSandbox, tmp_path: Path
) -> None:
    steps = [code("import os\nos.fork = None\na = 1"), code("b = 2"), RIGHT]
    parent = solved(steps, sandbox, tmp_path / "parent")
    config = BranchConfig(negatives=4, branch_steps="every", rows=ROWS)
    rows, _ = run_stage(tmp_path / "rows", branching([parent], config, sandbox, prober))
    assert [(r.branch_step, r.steps[r.branch_step].output) for r in rows] == [
        (1, "a"),
        (2, "a b"),
    ] * 2
    assert [row.flags for row in rows] == [()] * 4
    assert fresh_sessions(sandbox, MAX_SESSIONS) == MAX_SESSIONS


def test_errors_leave_no_session_open(
    sums: list[Solution], sandbox: ProcessSandbox, tmp_path: Path
) -> None:
    def failing(request: Request) -> str:
        raise InputError("no such policy")

    parents = first_preferred(sums)
    config = BranchConfig(rows=ROWS, branch_steps="every", skip_last=1)
    with pytest.raises(InputError, match="no such policy"):
        run_stage(tmp_path, branching(parents, config, sandbox, failing))
    assert fresh_sessions(sandbox, MAX_SESSIONS) == MAX_SESSIONS


def test_a_constant_schedule_has_one_temperature(
    sums: list[Solution], sandbox: ProcessSandbox, tmp_path: Path
) -> None:
    constant = Schedule(start=1, increment=0, cap=1)
    config = BranchConfig(schedule=constant, rows=ROWS, max_attempts=2)
    rows, _ = run_stage(tmp_path, branching(first_preferred(sums)[:2], config, sandbox))
    assert {s.temperature for row in rows for s in row.steps[row.branch_step :]} == {1.0}
    assert all(re.fullmatch(r"sums/\d+#\d+@\d+", row.id) for row in rows)
