"""Rollouts that do not wait for each other: the running batch, and attempts without rounds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scdpo.engines import Completion, LocalEngine, LocalEngineConfig, Request
from scdpo.errors import EngineError
from scdpo.evaluation.greedy import EvaluateConfig, evaluate_greedy
from scdpo.policies import Policy
from scdpo.problems import load_embedded
from scdpo.records import Solution
from scdpo.sampling import BranchConfig, SampleConfig, first_preferred, sample
from scdpo.sandbox import ProcessSandbox, SandboxConfig
from scdpo.store import RunFolder, Stage
from scripted_policies import (
    Counting,
    additions,
    by_id,
    fresh_sessions,
    keep_branches,
    keep_sampled,
    run_stage,
    sampler_of,
)
from test_engines import ask, local, make_policy, prompts, request, rollouts, same

MAX_SESSIONS = 24


@pytest.fixture(scope="module")
def policy() -> Iterator[Policy]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield make_policy()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ProcessSandbox]:
    with ProcessSandbox(SandboxConfig(preload=(), deadline=1, max_sessions=MAX_SESSIONS)) as opened:
        yield opened


# ---- the in-process engine


@pytest.mark.parametrize("config", [{}, {"max_rows": 3}, {"cache_mb": 0}, {"prefill_tokens": 16}])
def test_a_step_loop_gives_what_lockstep_gives(policy: Policy, config: dict[str, int]) -> None:
    expected = rollouts(local(policy))
    engine = local(policy, scheduling="free", **config)
    assert same(rollouts(engine), expected)
    engine.clear()
    assert same(rollouts(engine), expected)


def test_rows_that_come_while_others_run_are_the_same(policy: Policy) -> None:
    asked = [
        request(prompt, 0.9, seed=i, max_tokens=5 + 7 * (i % 4))
        for i, prompt in enumerate(prompts(16))
    ]
    expected = ask(local(policy), asked)
    engine = local(policy, scheduling="free", max_rows=5)

    async def one(i: int) -> Completion:
        await asyncio.sleep(0.004 * i)
        return await engine.complete(asked[i])

    async def all_of() -> list[Completion]:
        return await asyncio.gather(*(one(i) for i in range(len(asked))))

    assert same([asyncio.run(all_of())], [expected])


def test_the_next_step_of_a_rollout_misses_no_pass(policy: Policy) -> None:
    engine = local(policy, scheduling="free")
    batch = engine._pump._batch
    starts = [request(p, 0.9, seed=i, max_tokens=24) for i, p in enumerate(prompts(6))]
    whole = ask(engine, starts)
    passes, batch.passes = batch.passes, 0

    async def in_steps(asked: Request) -> tuple[int, ...]:
        ids: tuple[int, ...] = ()
        while len(ids) < 24:
            step = replace(
                asked,
                prompt_ids=asked.prompt_ids + ids,
                position=len(ids),
                max_tokens=min(3 + asked.seed % 2, 24 - len(ids)),
            )
            done = await engine.complete(step)
            ids += done.token_ids
            if done.finish == "end":
                break
        return ids

    async def all_of() -> list[tuple[int, ...]]:
        return await asyncio.gather(*map(in_steps, starts))

    assert asyncio.run(all_of()) == [done.token_ids for done in whole]
    assert batch.passes == passes
    assert max(len(done.token_ids) for done in whole) == passes == 24


def test_a_cancelled_request_leaves_the_others_alone(policy: Policy) -> None:
    engine = local(policy, scheduling="free")
    asked = [request(p, 0.9, seed=i, max_tokens=30) for i, p in enumerate(prompts(4))]
    expected = ask(local(policy), asked)

    async def work() -> list[Completion]:
        long = request(range(4), max_tokens=80)
        doomed = [asyncio.create_task(engine.complete(replace(long, seed=i))) for i in range(9)]
        others = [asyncio.create_task(engine.complete(r)) for r in asked]
        await asyncio.sleep(0.02)
        for task in doomed:
            task.cancel()
        return await asyncio.gather(*others)

    assert same([asyncio.run(work())], [expected])
    assert not engine._pump._running


def test_a_loop_that_ends_in_the_middle_leaves_nothing(policy: Policy) -> None:
    engine = local(policy, scheduling="free")

    async def abandon() -> None:
        task = asyncio.create_task(engine.complete(request(range(4), max_tokens=80)))
        await asyncio.sleep(0.01)
        raise ValueError(str(task.done()))

    with pytest.raises(ValueError, match="False"):
        asyncio.run(abandon())
    expected = ask(local(policy), [request(range(4))])
    assert same([ask(engine, [request(range(4))])], [expected])
    engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        ask(engine, [request(range(4))])


def test_an_error_reaches_all_that_wait() -> None:
    broken = make_policy(seed=3)
    engine = local(broken, scheduling="free")
    weight = broken.model.model.embed_tokens.weight
    with torch.no_grad():
        weight[7] = float("nan")

    async def work() -> list[object]:
        asked = [request((1, 2)), request((7, 8)), request((3, 4), seed=5)]
        return await asyncio.gather(*map(engine.complete, asked), return_exceptions=True)

    for result in asyncio.run(work()):
        assert isinstance(result, EngineError)
        assert "logits are not finite" in str(result)


def test_single_requests_need_the_setting(policy: Policy) -> None:
    with pytest.raises(EngineError, match="single requests need `scheduling: free`"):
        asyncio.run(local(policy).complete(request(range(4))))


# ---- attempts


class Free(Counting):
    """The adder as an engine that runs freely; how long a step takes has no order."""

    free_running = True

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.draw = random.Random(seed)
        self.running = self.most = 0

    async def complete(self, request: Request) -> Completion:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.draw.random() * 0.01)
            return (await self.generate([request]))[0]
        finally:
            self.running -= 1


def test_the_rows_are_those_of_lockstep(sandbox: ProcessSandbox, tmp_path: Path) -> None:
    problems = additions(7)
    config = SampleConfig(max_attempts=6, rows=10)
    found = []
    for i, policy in enumerate((Counting(), Free(1), Free(2))):
        sampler = sampler_of(policy, sandbox)
        rows, counts = run_stage(
            tmp_path / str(i), lambda stage, s=sampler: keep_sampled(problems, config, s, stage)
        )
        parents = first_preferred(rows)
        branching = BranchConfig(negatives=2, max_attempts=6, rows=10)
        branches, more = run_stage(
            tmp_path / f"{i}-branches",
            lambda stage, s=sampler, p=parents, b=branching: keep_branches(
                p, b, s, stage, problems=problems
            ),
        )
        found.append((by_id(rows), counts, by_id(branches), more))
        if isinstance(policy, Free):
            assert 2 < policy.most <= 10
            assert policy.running == 0
    assert len(found[0][0]) > 14
    assert len(found[0][2]) > 6
    assert found[0] == found[1] == found[2]
    assert fresh_sessions(sandbox, MAX_SESSIONS) == MAX_SESSIONS


def test_a_stage_stopped_after_any_row_ends_with_the_same_rows(
    sandbox: ProcessSandbox, tmp_path: Path
) -> None:
    problems = additions(4)
    config = SampleConfig(max_attempts=4, rows=8)

    def work(seed: int) -> Callable[[Stage], Coroutine[object, object, dict[str, int | float]]]:
        sampler = sampler_of(Free(seed), sandbox)
        return lambda stage: keep_sampled(problems, config, sampler, stage)

    whole, counts = run_stage(tmp_path / "whole", work(0))
    assert len(whole) > 6
    for n in range(len(whole) + 1):
        again, counts_again = run_stage(tmp_path / str(n), work(n), before=whole[:n])
        assert by_id(again) == by_id(whole)
        assert counts_again == counts


def test_only_attempts_that_are_missing_are_drawn(sandbox: ProcessSandbox, tmp_path: Path) -> None:
    problems = additions(5)
    config = SampleConfig(max_attempts=3, rows=1)
    policy = Free()
    whole, _ = run_stage(
        tmp_path / "whole",
        lambda stage: keep_sampled(problems, config, sampler_of(policy, sandbox), stage),
    )
    # One place: nothing is drawn that a rule may drop.
    assert policy.asked == sum(len(row.steps) + 1 for row in whole)
    again = Free()
    run_stage(
        tmp_path / "again",
        lambda stage: keep_sampled(problems, config, sampler_of(again, sandbox), stage),
        before=whole[:-1],
    )
    assert again.asked == len(whole[-1].steps) + 1


def test_an_error_stops_everything_and_keeps_what_there_is(
    sandbox: ProcessSandbox, tmp_path: Path
) -> None:
    class Failing(Free):
        async def complete(self, request: Request) -> Completion:
            if self.asked > 60:
                raise EngineError("gone")
            return await super().complete(request)

    config = SampleConfig(max_attempts=4, rows=6)
    policy = Failing()
    sampler = sampler_of(policy, sandbox)
    with RunFolder(tmp_path) as run:
        stage = run.stage("solutions").open({})
        with pytest.raises(EngineError, match="gone"):
            asyncio.run(keep_sampled(additions(9), config, sampler, stage))
        assert 0 < len(list(stage.rows(Solution))) < 27
    assert policy.running == 0
    assert fresh_sessions(sandbox, MAX_SESSIONS) == MAX_SESSIONS


@pytest.mark.parametrize("existing", [(), ("sums/1", "sums/4")])
def test_greedy_answers_are_those_of_lockstep(
    sandbox: ProcessSandbox, existing: Sequence[str]
) -> None:
    problems = additions(6)

    async def answers(policy: Counting) -> list[str]:
        config = EvaluateConfig(rows=4)
        made = evaluate_greedy(problems, sampler_of(policy, sandbox), config, existing=existing)
        rows = [row async for batch in made for row in batch]
        return sorted(row.model_dump_json() for row in rows if row.problem_id not in existing)

    policy = Free()
    assert asyncio.run(answers(policy)) == asyncio.run(answers(Counting()))
    assert policy.most > 1


def test_the_local_engine_samples_freely_as_in_lockstep() -> None:
    problems = load_embedded("train")[:3]
    rows = []
    with ProcessSandbox() as sandbox:
        for scheduling in ("lockstep", "free"):
            config = LocalEngineConfig(scheduling=scheduling)  # type: ignore[arg-type]
            with LocalEngine("embedded", config) as engine:
                made = sample(problems, engine, sandbox=sandbox, max_attempts=3, rows=6)
            rows.append(
                {row.id: ([s.token_ids for s in row.steps], row.verdict, row.seed) for row in made}
            )
    assert len(rows[0]) > 3
    assert rows[0] == rows[1]
