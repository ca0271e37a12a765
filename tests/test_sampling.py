"""The step loop, its driver, the flags, and naive sampling with its stop rule."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError

from scdpo.engines import Completion, LocalEngine, Request, ScriptedEngine
from scdpo.errors import EngineError, InputError, SandboxError
from scdpo.formats import Format, get_format
from scdpo.grading import Grader
from scdpo.policies import load_policy
from scdpo.problems.embedded import load_embedded
from scdpo.records import Problem, Step
from scdpo.sampling import (
    BranchConfig,
    Limits,
    SampleConfig,
    Sampler,
    Schedule,
    count_solutions,
)
from scdpo.sampling.driver import drive
from scdpo.sampling.flags import solution_flags
from scdpo.sampling.rollout import Execute, RolloutResult, Task, rollout
from scdpo.sandbox import Execution, ProcessSandbox, SandboxConfig
from scdpo.seeds import derive_seed
from scdpo.store import Stage
from scdpo.training.tokens import solution_tokens
from scripted_policies import (
    END,
    FORMAT,
    TOKENS,
    Counting,
    adder,
    additions,
    by_id,
    code,
    engine,
    fresh_sessions,
    keep_sampled,
    rest,
    run_stage,
    sampler_of,
    text,
)

MAX_SESSIONS = 24
ONE = Schedule(start=1, increment=0, cap=1)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ProcessSandbox]:
    with ProcessSandbox(SandboxConfig(preload=(), deadline=1, max_sessions=MAX_SESSIONS)) as opened:
        yield opened


def roll(
    script: Callable[[Request], str] | Sequence[str],
    sandbox: ProcessSandbox | None = None,
    *,
    format: Format = FORMAT,
    limits: Limits | None = None,
    question: str = "What?",
    schedule: Schedule = ONE,
    prefix: tuple[Step, ...] = (),
    logp: float = -0.5,
) -> RolloutResult:
    """One rollout; of a list of texts the policy writes one a completion."""
    texts = iter(()) if callable(script) else iter(script)
    policy = ScriptedEngine(
        script if callable(script) else lambda request: next(texts),
        special_tokens=format.special_tokens,
        logp=logp,
    )
    task = Task(policy.encode(format.prompt(question)), schedule, seed=1, prefix=prefix)
    one = rollout(task, format, limits or Limits(), policy.encode)
    return asyncio.run(drive([one], policy, sandbox))[0]


def fed(format: Format, completions: Sequence[str]) -> RolloutResult:
    """A rollout that is handed these completions, the last of which ends it."""
    one = rollout(Task((1,), ONE, seed=0), format, Limits(), TOKENS.encode)
    action = next(one)
    for i, part in enumerate(completions):
        assert isinstance(action, Request)
        ids = TOKENS.encode(part)
        last = i == len(completions) - 1
        try:
            action = one.send(Completion(ids, part, (-1.0,) * len(ids), "end" if last else "stop"))
            if isinstance(action, Execute):
                action = one.send(Execution(output="2"))
        except StopIteration as stop:
            assert last
            assert isinstance(stop.value, RolloutResult)
            return stop.value
    raise AssertionError("the rollout did not end")


def texts_of(outcome: RolloutResult) -> list[str]:
    return [step.text for step in outcome.steps]


# ---- the step loop


def test_code_steps_share_one_session_and_carry_their_output(sandbox: ProcessSandbox) -> None:
    script = [text("We count."), code("n = 4\nn"), code("n + 1"), text("So 5."), END]
    outcome = roll(script, sandbox)
    assert outcome.finish == "finished"
    assert [step.kind for step in outcome.steps] == ["text", "code", "code", "text"]
    assert [step.output for step in outcome.steps] == [None, "4", "5", None]
    assert outcome.steps[2].host_text == "<|execution|>5<|endofblock|>"
    assert texts_of(outcome)[-1] == text("So 5.") + END
    for step in outcome.steps:
        assert TOKENS.decode(step.token_ids) == step.text
        assert TOKENS.decode(step.host_ids) == step.host_text
    parsed = FORMAT.parse(FORMAT.render(outcome.steps))
    assert [(s.kind, s.text, s.host_text) for s in parsed] == [
        (s.kind, s.text, s.host_text) for s in outcome.steps
    ]


def test_the_policy_sees_what_the_host_appended(sandbox: ProcessSandbox) -> None:
    prompts = []
    script = iter([code("print(6 * 7)"), text("Done."), END])

    def policy(request: Request) -> str:
        prompts.append((TOKENS.decode(request.prompt_ids), request.position))
        return next(script)

    roll(policy, sandbox)
    start = FORMAT.prompt("What?")
    first, host = code("print(6 * 7)"), "<|execution|>42<|endofblock|>"
    sampled = [0, len(TOKENS.encode(first)), len(TOKENS.encode(first + text("Done.")))]
    assert prompts == [
        (start, sampled[0]),
        (start + first + host, sampled[1]),
        (start + first + host + text("Done."), sampled[2]),
    ]


FENCED = get_format("fenced")
PLAIN = get_format("plain")
PARAGRAPHS = get_format("plain", boundary="\n\n")
JOINING: list[tuple[Format, list[str], list[str]]] = [
    (FORMAT, [text("a"), END], [text("a") + END]),
    (FORMAT, [text("a") + END], [text("a") + END]),
    (FORMAT, [code("1"), END], [code("1"), END]),
    (FORMAT, [END], [END]),
    (PLAIN, ["a\n", "\n", "  \n", "b\n", END], ["a\n\n  \n", f"b\n{END}"]),
    (PLAIN, ["\n", "a\n", f"b{END}"], ["\na\n", f"b{END}"]),
    (PARAGRAPHS, ["a\n\n", "b\nc\n\n", END], ["a\n\n", f"b\nc\n\n{END}"]),
    (FENCED, [f"So 4{END}"], [f"So 4{END}"]),
    (
        FENCED,
        ["Add\n```python\n1+1\n```\n```output", "So 2", END],
        ["Add\n```python\n1+1\n```\n```output", f"So 2{END}"],
    ),
    (FENCED, ["no program ```output", END], [f"no program ```output{END}"]),
]


@pytest.mark.parametrize(("format", "script", "steps"), JOINING)
def test_what_is_a_step_on_its_own(format: Format, script: list[str], steps: list[str]) -> None:
    outcome = fed(format, script)
    assert texts_of(outcome) == steps
    assert outcome.finish == "finished"
    assert [s.text for s in format.parse(format.render(outcome.steps))] == steps


def test_an_end_marker_never_joins_a_shared_step() -> None:
    shared = Step(kind="text", text=text("a"), token_ids=TOKENS.encode(text("a")))
    outcome = roll([END], prefix=(shared,))
    assert outcome.steps[0] == shared
    assert texts_of(outcome)[1:] == [END]
    assert outcome.finish == "finished"


def test_a_recorded_prefix_without_ids_is_encoded() -> None:
    shared = (
        Step(kind="code", text=code("1"), output="1", host_text="<|execution|>1<|endofblock|>"),
    )
    seen = []

    def policy(request: Request) -> str:
        seen.append(TOKENS.decode(request.prompt_ids))
        return END

    roll(policy, prefix=shared)
    assert seen == [FORMAT.prompt("What?") + FORMAT.render(shared)]


@pytest.mark.parametrize(
    ("limits", "finish", "n_steps"),
    [
        (Limits(max_steps=3), "max_steps", 3),
        (Limits(step_tokens=5), "step_tokens", 1),
        (Limits(context=120), "context", 10),
    ],
)
def test_limits_cut_a_rollout_and_say_which(limits: Limits, finish: str, n_steps: int) -> None:
    outcome = roll(lambda request: text("and so on"), limits=limits)
    assert (outcome.finish, len(outcome.steps)) == (finish, n_steps)
    sampled = sum(len(step.token_ids) for step in outcome.steps)
    assert len(TOKENS.encode(FORMAT.prompt("What?"))) + sampled <= limits.context


def test_a_prompt_that_fills_the_context_gives_an_empty_solution() -> None:
    outcome = roll([END], limits=Limits(context=16), question="How many?" * 4)
    assert outcome == RolloutResult((), "context")


def test_the_engines_own_context_is_a_limit_too() -> None:
    policy = ScriptedEngine(
        lambda request: text("and so on"), special_tokens=FORMAT.special_tokens, max_context=64
    )
    one = rollout(Task(policy.encode("Q"), ONE, seed=0), FORMAT, Limits(), policy.encode)
    outcome = asyncio.run(drive([one], policy, None))[0]
    assert outcome.finish == "context"
    assert 1 + sum(len(step.token_ids) for step in outcome.steps) == 64


def test_blank_lines_do_not_go_on_for_ever() -> None:
    outcome = roll(lambda request: "\n", format=PLAIN, limits=Limits(step_tokens=7))
    assert outcome.finish == "step_tokens"
    assert len(outcome.steps) == 1


@pytest.mark.parametrize("program", ["while True: pass", "import os; os._exit(1)"])
def test_a_lost_session_ends_its_rollout_alone(program: str, sandbox: ProcessSandbox) -> None:
    scripts = {1: [code(program)], 2: [code("2"), text("ok"), END]}
    policy = engine(lambda request: scripts[request.seed].pop(0))
    tasks = [Task(policy.encode("Q"), ONE, seed=seed) for seed in scripts]
    rollouts = [rollout(task, FORMAT, Limits(), policy.encode) for task in tasks]
    lost, well = asyncio.run(drive(rollouts, policy, sandbox))
    assert lost.finish == "sandbox"
    assert lost.steps[-1].cut in ("deadline", "died")
    assert well.finish == "finished"
    assert fresh_sessions(sandbox, MAX_SESSIONS) == MAX_SESSIONS


def test_output_that_was_cut_does_not_end_a_rollout(sandbox: ProcessSandbox) -> None:
    script = [code("'x' * 10**5"), code("2"), text("ok"), END]
    outcome = roll(script, sandbox, limits=Limits(context=20_000))
    assert [step.cut for step in outcome.steps] == ["output", "", ""]
    assert outcome.finish == "finished"


def test_errors_leave_no_session_open(sandbox: ProcessSandbox) -> None:
    calls = itertools.count()

    def policy(request: Request) -> str:
        if next(calls) >= 5:
            raise EngineError("the server is gone")
        return code("1")

    scripted = engine(policy)
    tasks = [Task(scripted.encode("Q"), ONE, seed=seed) for seed in range(4)]
    rollouts = [rollout(task, FORMAT, Limits(), scripted.encode) for task in tasks]
    with pytest.raises(EngineError, match="server is gone"):
        asyncio.run(drive(rollouts, scripted, sandbox))
    assert fresh_sessions(sandbox, MAX_SESSIONS) == MAX_SESSIONS


def test_a_session_ends_with_its_rollout(sandbox: ProcessSandbox) -> None:
    n = MAX_SESSIONS + 6
    policy = engine(lambda r: rest(text("wait") * r.seed + code("1") + text("ok") + END, r))
    tasks = [Task(policy.encode("Q"), ONE, seed=seed) for seed in range(n)]
    rollouts = [rollout(task, FORMAT, Limits(), policy.encode) for task in tasks]
    outcomes = asyncio.run(drive(rollouts, policy, sandbox))
    assert [len(outcome.steps) for outcome in outcomes] == [seed + 2 for seed in range(n)]


def test_more_rollouts_than_sessions_is_an_error_that_leaves_none_open(
    sandbox: ProcessSandbox,
) -> None:
    policy = engine(lambda request: code("1"))
    tasks = [Task(policy.encode("Q"), ONE, seed=seed) for seed in range(MAX_SESSIONS + 1)]
    rollouts = [rollout(task, FORMAT, Limits(), policy.encode) for task in tasks]
    with pytest.raises(SandboxError, match=f"{MAX_SESSIONS} sandbox sessions are live"):
        asyncio.run(drive(rollouts, policy, sandbox))
    assert fresh_sessions(sandbox, MAX_SESSIONS) == MAX_SESSIONS


def test_code_without_a_sandbox_is_an_error() -> None:
    with pytest.raises(SandboxError, match="no sandbox"):
        roll([code("1")])


def test_an_empty_completion_that_goes_on_is_an_error() -> None:
    format = get_format("plain")
    one = rollout(Task((1,), ONE, seed=0), format, Limits(), TOKENS.encode)
    next(one)
    with pytest.raises(EngineError, match="empty completion"):
        one.send(Completion((), "", (), "stop"))


# ---- temperatures and log-probs


def test_temperatures_rise_with_every_new_step_up_to_the_cap() -> None:
    script = [*(text(str(i)) for i in range(9)), END]
    outcome = roll(script, schedule=Schedule())
    rising = [1.1, 1.15, 1.2, 1.25, 1.3, 1.35, 1.4, 1.4, 1.4]
    assert [step.temperature for step in outcome.steps] == rising


def test_temperatures_start_again_behind_a_shared_prefix() -> None:
    prefix = tuple(Step(kind="text", text=text(c), temperature=1) for c in "abc")
    outcome = roll([text("d"), text("e"), END], schedule=Schedule(), prefix=prefix)
    assert [step.temperature for step in outcome.steps] == [1, 1, 1, 1.1, 1.15]


def test_a_joined_blank_line_does_not_raise_the_temperature() -> None:
    script = ["a\n", "\n", "b\n", END]
    outcome = roll(script, format=PLAIN, schedule=Schedule())
    assert [step.temperature for step in outcome.steps] == [1.1, 1.15]


def test_the_logps_of_a_joined_step_are_those_of_all_its_tokens() -> None:
    one = rollout(Task((1,), ONE, seed=0), FORMAT, Limits(), TOKENS.encode)
    next(one)
    first = text("a")
    one.send(Completion(TOKENS.encode(first), first, (-1.0, -2.0, -3.0), "stop"))
    with pytest.raises(StopIteration) as stop:
        one.send(Completion(TOKENS.encode(END), END, (-6.0,), "end"))
    (step,) = stop.value.value.steps
    assert step.mean_logp == pytest.approx(-3.0)
    assert step.token_logps == (-1.0, -2.0, -3.0, -6.0)


def test_another_number_of_logps_than_of_tokens_is_refused() -> None:
    one = rollout(Task((1,), ONE, seed=0), FORMAT, Limits(), TOKENS.encode)
    next(one)
    with pytest.raises(EngineError, match="1 log-probs for 3 tokens"):
        one.send(Completion((1, 2, 3), "abc", (-1.0,), "stop"))


@pytest.mark.parametrize("logp", [-math.inf, math.nan])
def test_a_mean_logp_that_is_no_number_is_left_out(logp: float) -> None:
    step = roll([text("a"), END], logp=logp).steps[0]
    assert (step.mean_logp, step.token_logps) == (None, ())
    assert Step.model_validate_json(step.model_dump_json()) == step


# ---- flags

FLAGS: list[tuple[list[str], tuple[str, ...]]] = [
    (["We add."], ()),
    (["An ERROR occurred."], ("error_word:error",)),
    (["I apologize, my Error."], ("error_word:error", "error_word:apolog")),
    (["a"] * 24, ()),
    (["a"] * 25, ("noise:steps",)),
    (["a" * 3000], ()),
    (["a" * 3001], ("noise:length",)),
    (["so <|execution|>4<|endofblock|>"], ("noise:execution",)),
    (["```output\n4\n```"], ("noise:execution",)),
]


@pytest.mark.parametrize(("texts", "flags"), FLAGS)
def test_flags(texts: list[str], flags: tuple[str, ...]) -> None:
    steps = tuple(Step(kind="text", text=text) for text in texts)
    assert solution_flags("An error?", steps, FORMAT.stop) == flags


def test_error_words_count_in_outputs_and_on_request_in_the_question() -> None:
    failed = Step(kind="code", text=code("x"), output="NameError", host_text="NameError: x")
    assert solution_flags("q", (failed,), FORMAT.stop) == ("error_word:error",)
    assert solution_flags("An error?", (), FORMAT.stop, error_words_in_question=True) == (
        "error_word:error",
    )


def test_the_formats_own_stop_is_no_invented_execution() -> None:
    step = Step(kind="code", text="```python\n1\n```\n```output")
    assert solution_flags("q", (step,), FENCED.stop) == ()


# ---- naive sampling

ATTEMPTS = {
    "c": text(r"\boxed{7}") + END,
    "w": text(r"\boxed{8}") + END,
    "e": text(r"Sorry, an error: \boxed{7}") + END,
    "E": text(r"Sorry, an error: \boxed{8}") + END,
    "n": text(rf"{'x' * 3001} \boxed{{8}}") + END,
    "u": text("I do not know.") + END,
    "t": text(r"\boxed{8}") + "<|text|>" + "and" * 1200,
}
"""Correct, wrong, the same two with an error word, noise, undecided, truncated."""

STOPS: list[tuple[str, dict[str, int], str]] = [
    ("cw", {}, "cw"),
    ("ccwc", {}, "ccw"),
    ("wwcw", {}, "wwc"),
    ("ewcw", {}, "ewc"),
    ("cEw", {}, "cE"),
    ("cnutw", {}, "cnutw"),
    ("ccccc", {"max_attempts": 4}, "cccc"),
    ("tutut", {"max_attempts": 3}, "tut"),
    ("cwcwcc", {"correct": 2, "wrong": 2}, "cwcw"),
    ("cwwc", {"wrong": 2}, "cww"),
    ("wwww", {"correct": 0}, "w"),
]


def planned(plan: str) -> Sampler:
    """A policy whose attempts on the question `q/0` are of the kinds that the plan names."""
    attempts = {
        derive_seed(0, "naive", "q/0", attempt): ATTEMPTS[kind]
        for attempt, kind in enumerate(plan.ljust(40, "u"))
    }
    return sampler_of(lambda request: rest(attempts[request.seed], request), None)


QUESTION = Problem(id="q/0", dataset="q", question="What?", answer="7")
ROOM = Limits(step_tokens=3500, context=8000)


@pytest.mark.parametrize(("plan", "settings", "taken"), STOPS)
@pytest.mark.parametrize("rows", [1, 5])
def test_stop_rule(
    plan: str, settings: dict[str, int], taken: str, rows: int, tmp_path: Path
) -> None:
    config = SampleConfig(**settings, rows=rows, limits=ROOM)
    sampler = planned(plan)
    rows_, counts = run_stage(
        tmp_path, lambda stage: keep_sampled([QUESTION], config, sampler, stage)
    )
    assert [row.attempt for row in rows_] == list(range(len(taken)))
    kinds = ["c" if r.side() == "chosen" else "w" if r.side() == "rejected" else "-" for r in rows_]
    sides = {"c": "c", "w": "w", "E": "w"}
    assert kinds == [sides.get(kind, "-") for kind in taken]
    assert counts == count_solutions(rows_)
    assert counts["attempts"] == len(taken)
    assert counts["preferred"] == taken.count("c")


def test_truncated_and_undecided_solutions_take_no_side(tmp_path: Path) -> None:
    sampler = planned("tut")
    config = SampleConfig(max_attempts=3, limits=ROOM)
    rows, counts = run_stage(
        tmp_path, lambda stage: keep_sampled([QUESTION], config, sampler, stage)
    )
    assert [row.finish for row in rows] == ["step_tokens", "finished", "step_tokens"]
    assert [row.answer for row in rows] == [None, None, None]
    assert {row.verdict.name for row in rows} == {"undecided"}
    assert not any(row.side() == "chosen" or row.side() == "rejected" for row in rows)
    assert counts["cut:step_tokens"] == 2
    assert counts["undecided:no answer"] == 1


def adding(
    problems: Sequence[Problem], config: SampleConfig, sandbox: ProcessSandbox
) -> Callable[[Stage], Coroutine[object, object, dict[str, int | float]]]:
    sampler = sampler_of(adder, sandbox)
    return lambda stage: keep_sampled(problems, config, sampler, stage)


def test_rows_say_all_that_drew_them(sandbox: ProcessSandbox, tmp_path: Path) -> None:
    problems = additions(3)
    config = SampleConfig(max_attempts=6, rows=12, seed=5, temperature=0.9)
    rows, _ = run_stage(tmp_path, adding(problems, config, sandbox))
    assert {row.problem_id for row in rows} == {problem.id for problem in problems}
    for row in rows:
        assert row.id == f"{row.problem_id}#{row.attempt}"
        assert row.seed == derive_seed(5, "naive", row.problem_id, row.attempt)
        assert row.policy == "scripted"
        assert row.prompt == FORMAT.prompt(row.question)
        assert TOKENS.decode(row.prompt_ids) == row.prompt
        assert (row.parent, row.branch_step) == (None, 0)
        assert {step.temperature for step in row.steps} == {0.9}
        assert {step.mean_logp for step in row.steps} == {-0.5}


def test_rows_depend_neither_on_chunks_nor_on_batches(
    sandbox: ProcessSandbox, tmp_path: Path
) -> None:
    problems = additions(7)
    sets = []
    for i, (chunk, rows) in enumerate([(7, 12), (1, 1), (3, 2), (2, 20)]):
        config = SampleConfig(max_attempts=6, chunk=chunk, rows=rows)
        found, _ = run_stage(tmp_path / str(i), adding(problems, config, sandbox))
        sets.append(by_id(found))
    assert len(sets[0]) > 14
    assert sets[0] == sets[1] == sets[2] == sets[3]


def test_a_stage_stopped_after_any_row_ends_with_the_same_rows(
    sandbox: ProcessSandbox, tmp_path: Path
) -> None:
    problems = additions(4)
    config = SampleConfig(max_attempts=4, chunk=2, rows=8)
    whole, counts = run_stage(tmp_path / "whole", adding(problems, config, sandbox))
    assert len(whole) > 6
    for n in range(len(whole) + 1):
        again, counts_again = run_stage(
            tmp_path / str(n),
            adding(problems, config, sandbox),
            before=whole[:n],
        )
        assert by_id(again) == by_id(whole)
        assert counts_again == counts


def test_only_chunks_that_lack_rows_are_done_again(sandbox: ProcessSandbox, tmp_path: Path) -> None:
    problems = additions(6)
    config = SampleConfig(max_attempts=4, chunk=2, rows=8)
    whole, _ = run_stage(tmp_path / "whole", adding(problems, config, sandbox))
    for missing, cleared in ((0, 0), (1, 1), (len(whole), 3)):
        policy = Counting()
        sampler = sampler_of(policy, sandbox)
        run_stage(
            tmp_path / str(missing),
            lambda stage, sampler=sampler: keep_sampled(problems, config, sampler, stage),
            before=whole[: len(whole) - missing],
        )
        assert policy.cleared == cleared
        assert bool(policy.asked) == bool(cleared)


def test_progress_never_falls_and_ends_at_all(sandbox: ProcessSandbox, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    config = SampleConfig(max_attempts=6, chunk=4, rows=4)
    sampler = sampler_of(adder, sandbox)
    run_stage(
        tmp_path,
        lambda stage: keep_sampled(
            additions(6), config, sampler, stage, lambda done, total: seen.append((done, total))
        ),
    )
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (6, 6)
    assert len(seen) > 2


# ---- settings


def test_settings_that_mean_nothing_are_refused() -> None:
    for make in (
        lambda: Schedule(start=1.2, cap=1.1),
        lambda: Schedule(increment=math.nan),
        lambda: SampleConfig(temperature=math.inf),
        lambda: SampleConfig(rows=0),
        lambda: BranchConfig(negatives=-1),
        lambda: Limits(max_step=3),  # type: ignore[call-arg]
    ):
        with pytest.raises(ValidationError):
            make()


def test_negatives_of_a_data_set_without_any() -> None:
    config = BranchConfig(negatives={"gsm8k": 2, "math": 3})
    assert config.negatives_for("math") == 3
    with pytest.raises(InputError, match="no value for data set 'svamp' \\(given: gsm8k, math\\)"):
        config.negatives_for("svamp")


# ---- with a real policy


class Noted(LocalEngine):
    """Keeps what it was asked and what it answered, by seed."""

    noted: dict[int, list[tuple[Request, Completion]]]

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        completions = await super().generate(requests)
        for request, completion in zip(requests, completions, strict=True):
            self.noted.setdefault(request.seed, []).append((request, completion))
        return completions


def test_what_is_trained_on_is_what_was_sampled(tmp_path: Path) -> None:
    import torch

    policy = load_policy("embedded")
    policy_engine = Noted(policy)
    policy_engine.noted = {}
    limits = Limits(max_steps=8, step_tokens=64, context=512)
    config = SampleConfig(max_attempts=2, limits=limits, rows=8, chunk=2)
    problems = load_embedded("train", 4)
    with ProcessSandbox(SandboxConfig(preload=(), deadline=5)) as box, Grader() as grader:
        sampler = Sampler(policy_engine, FORMAT, grader, box)
        work = lambda stage: keep_sampled(problems, config, sampler, stage)  # noqa: E731
        rows, _ = run_stage(tmp_path / "whole", work)
        again, _ = run_stage(tmp_path / "again", work, before=rows[:5])
    # Chunks that are done again come out the same to the last bit.
    assert by_id(again) == by_id(rows)
    policy_engine.close()
    assert len({row.problem_id for row in rows}) == 4
    for row in rows:
        for step in row.steps:
            assert policy.decode(step.token_ids) == step.text
            assert policy.decode(step.host_ids) == step.host_text
        ids, mask = solution_tokens(row.prompt, row.prompt_ids, row.steps, policy.encode)
        request, completion = policy_engine.noted[row.seed][-1]
        ending = row.steps[-1].host_ids
        assert tuple(ids) == request.prompt_ids + completion.token_ids + ending
        assert tuple(ids[: len(row.prompt_ids)]) == policy.encode(row.prompt, start=True)
        assert sum(mask) == sum(len(step.token_ids) for step in row.steps)
        with torch.inference_mode():
            logps = policy.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        at = len(row.prompt_ids)
        for step in row.steps:
            n = len(step.token_ids)
            own = logps[torch.arange(at - 1, at + n - 1), torch.tensor(ids[at : at + n])]
            assert step.mean_logp == pytest.approx(float(own.mean()), abs=1e-3)
            assert step.token_logps == pytest.approx(own.tolist(), rel=1e-3, abs=1e-3)
            at += n + len(step.host_ids)
