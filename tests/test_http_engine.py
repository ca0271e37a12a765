"""The engine that asks servers: over real sockets, against a server that can misbehave."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from completion_server import CompletionServer, served
from lines_server import EOS, served_lines
from scdpo.engines import (
    Completion,
    EngineProtocol,
    HttpEngine,
    HttpEngineConfig,
    LocalEngine,
    Request,
    engine_config,
)
from scdpo.engines.http.completions import Completions, step_seed
from scdpo.engines.http.faults import ServerFault
from scdpo.engines.http.servers import Server, Servers
from scdpo.errors import EngineError
from scdpo.grading import Grader
from scdpo.policies import Policy, load_policy, load_tokenizer, policy_path
from scdpo.records import Problem, Solution
from scdpo.sampling import SampleConfig, Sampler, sample_solutions
from scripted_policies import by_id
from served_policies import (
    CONTEXT,
    LINES,
    byte_tokenizer,
    lines_policy,
    served_tiny,
    tiny_policy,
)
from small_runs import fail, succeed, write_recipe

MARK = "<|endofblock|>"


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return tiny_policy(tmp_path_factory.mktemp("policies") / "tiny")


@pytest.fixture(scope="module")
def serving(policy: Policy) -> Iterator[CompletionServer]:
    with served(served_tiny(policy)) as server:
        yield server


@pytest.fixture
def server(serving: CompletionServer) -> Iterator[CompletionServer]:
    """The module's server, without what an earlier test has ordered."""
    serving.bodies.clear()
    serving.headers.clear()
    serving.answered = serving.aborted = 0
    yield serving
    serving.quirks = set()
    serving.disturb = lambda number, body: None
    serving.delay = 0.0


def engine(policy: Policy | Path, *servers: CompletionServer, **settings: Any) -> HttpEngine:
    """An engine that does not wait between tries, and does not probe unless it is told to."""
    quick = {"pause": 0.0, "deadline": 20, "probe": False, "patience": 20} | settings
    name = policy.name if isinstance(policy, Policy) else policy
    return HttpEngine(name, HttpEngineConfig(urls=[s.url for s in servers], **quick))


def ask(one: EngineProtocol, requests: Sequence[Request]) -> list[Completion]:
    return asyncio.run(one.generate(requests))


def request(text: str = "ab", temperature: float = 1.0, seed: int = 0, **more: Any) -> Request:
    fields = {"stop": (MARK,), "end": (EOS,), "max_tokens": 12, **more}
    return Request(tuple(text.encode()), temperature=temperature, seed=seed, **fields)


async def until(true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    for _ in range(2000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not become so")


def without_logps(done: Sequence[Completion]) -> list[tuple[object, ...]]:
    return [(c.token_ids, c.text, c.finish) for c in done]


# What is asked, and what comes back.


def test_greedy_steps_are_those_of_the_engine_in_process(
    policy: Policy, server: CompletionServer
) -> None:
    local = LocalEngine(policy)
    asked = [request(t, 0.0, stop=(MARK, "e"), max_tokens=30) for t in ("Q", "what", "a\n", "12")]
    with engine(policy, server) as remote:
        got, want = ask(remote, asked), ask(local, asked)
    assert without_logps(got) == without_logps(want)
    for one, other in zip(got, want, strict=True):
        assert one.logps == pytest.approx(other.logps, abs=1e-4)
    assert {c.finish for c in got} >= {"stop"}


def test_what_is_sent(policy: Policy, server: CompletionServer) -> None:
    asked = [
        request("ab", 1.3, seed=5, stop=(MARK, "\n\n"), position=position) for position in (0, 7)
    ]
    with engine(policy, server, extra={"no_stop_trim": True}) as remote:
        ask(remote, asked)
    first, second = sorted(server.bodies, key=lambda b: b["seed"] != step_seed(asked[0]))
    marker, eos = (policy.tokenizer.convert_tokens_to_ids(t) for t in (MARK, EOS))
    assert first["prompt"] == list(b"ab")
    assert first["stop"] == ["\n\n"], "a marker is no string: its spelling does not end a step"
    assert first["stop_token_ids"] == sorted([marker, eos])
    assert first["max_tokens"] == 12
    assert (first["temperature"], first["no_stop_trim"]) == (1.3, True)
    assert first["seed"] != second["seed"], "steps of a rollout draw other numbers"
    assert all(0 <= body["seed"] < 2**31 for body in server.bodies)


def test_seeds_of_steps_are_apart() -> None:
    asked = [request(seed=seed, position=at) for seed in range(-50, 50) for at in range(40)]
    assert len({step_seed(one) for one in asked}) > len(asked) - 20
    assert step_seed(asked[0]) == step_seed(asked[0])


def test_nothing_is_asked_where_the_context_is_full(
    policy: Policy, server: CompletionServer
) -> None:
    full = request("x" * CONTEXT)
    near = request("x" * (CONTEXT - 3), stop=(), end=())
    with engine(policy, server) as remote:
        done = ask(remote, [full, near])
    assert remote.max_context == CONTEXT
    assert done[0] == Completion((), "", (), "length")
    assert done[1].finish in ("length", "end")
    assert len(done[1].token_ids) <= 3
    assert len(server.bodies) == 1


def test_one_engine_serves_several_event_loops(policy: Policy, server: CompletionServer) -> None:
    one = request(temperature=0.0)
    with engine(policy, server) as remote:
        assert without_logps(ask(remote, [one])) == without_logps(ask(remote, [one]))

        async def inside() -> list[Completion]:
            done = await remote.generate([one])
            remote.close()
            return done

        assert len(asyncio.run(inside())) == 1
    with pytest.raises(EngineError, match="closed"):
        ask(remote, [one])


# Answers that are none.


def answer(tokenizer: Any, text: str, changes: Mapping[str, Any] = {}) -> dict[str, Any]:
    """An answer as vLLM gives it."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    choice = {
        "text": text,
        "token_ids": ids,
        "finish_reason": "stop",
        "logprobs": {"token_logprobs": [-0.5] * len(ids)},
    }
    return {"choices": [choice | dict(changes)], "usage": {"prompt_tokens": 2}}


READ: list[tuple[str, dict[str, Any], str]] = [
    ("six and\n", {}, "stop"),
    ("six and<|endofmessage|>", {}, "end"),
    ("six", {"finish_reason": "length", "spare": 0}, "length"),
    ("six and\n", {"finish_reason": "length"}, "stop"),
    ("six and\n", {"finish_reason": "abort"}, "aborted: finish_reason is 'abort'"),
    ("six and\n", {"finish_reason": None}, "aborted: finish_reason is None"),
    ("six and", {}, "aborted: it stopped after token"),
    ("six and", {"finish_reason": "length"}, r"aborted: (\d+) of (?!\1)\d+ tokens"),
    ("", {}, "aborted: no tokens"),
    ("six\nand\n", {}, "aborted: it went on after a stop string"),
    ("six<|endofmessage|>and\n", {}, "aborted: it went on after stop token"),
    ("six and\n", {"spare": -1}, r"ids: \d+ tokens, where max_tokens is \d+"),
    ("six and\n", {"token_ids": None}, "ids: token ids do not come back"),
    ("six and\n", {"token_ids": [1, "2"]}, "garbled: token_ids"),
    ("six and\n", {"prompt_token_ids": [1, 3]}, "ids: the server's prompt has other"),
    ("six and\n", {"text": "six and"}, "text: the stop string is stripped"),
    ("six and<|endofmessage|>", {"text": "six and"}, "text: special tokens are cut"),
    ("six and\n", {"text": "six end\n"}, "text: the text 'six end"),
    ("six and\n", {"text": None}, "garbled: the answer has no text"),
    ("six and\n", {"logprobs": None}, "logps: not a log-prob for each of"),
    ("six and\n", {"logprobs": {"token_logprobs": [-1.0, -1.0]}}, "logps: not a log-prob for"),
    ("\n", {"logprobs": {"token_logprobs": [None]}}, "logps: log-probs are"),
    ("\n", {"logprobs": {"token_logprobs": [float("nan")]}}, "logps: log-probs are"),
]


@pytest.mark.parametrize(("text", "changes", "outcome"), READ)
def test_reading_answers(text: str, changes: dict[str, Any], outcome: str) -> None:
    tokenizer = load_tokenizer("embedded")
    read = Completions(tokenizer, {tokenizer.eos_token_id})
    changes = dict(changes)
    n_tokens = len(tokenizer(text, add_special_tokens=False)["input_ids"])
    most = n_tokens + changes.pop("spare", 3)
    asked = replace(request(), stop=("\n",), end=("<|endofmessage|>",))
    try:
        found = read.read(answer(tokenizer, text, changes), asked, most).finish
    except ServerFault as fault:
        assert re.match(outcome, f"{fault.name}: {fault}")
    else:
        assert found == outcome


def test_a_stop_string_inside_a_token() -> None:
    """vLLM's text ends with the string; the completion's is what the ids decode to."""
    tokenizer = load_tokenizer("embedded")
    last = max((w for w in tokenizer.vocab if w.isascii() and w.isalpha()), key=len)
    assert len(last) > 3
    stop, text = last[:2], f"12 {last}"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    last = tokenizer.decode(ids[-1:])
    whole = answer(tokenizer, text)
    cut = answer(tokenizer, text, {"text": text[: text.index(stop) + 2]})
    asked = replace(request(), stop=(stop,), end=())
    read = Completions(tokenizer, ())
    want = Completion(tuple(ids), text, (-0.5,) * len(ids), "stop")
    assert read.read(whole, asked, 9) == read.read(cut, asked, 9) == want
    short = answer(tokenizer, text, {"text": text[: text.index(stop) + 1]})
    with pytest.raises(ServerFault, match="is not what its ids decode to"):
        read.read(short, asked, 9)


def test_half_a_character_at_the_end_is_no_difference() -> None:
    tokenizer = byte_tokenizer()
    ids = list("é".encode())
    choice = {
        "text": "a",
        "token_ids": [ord("a"), ids[0]],
        "finish_reason": "length",
        "logprobs": {"token_logprobs": [-1, -1]},
    }
    read = Completions(tokenizer, ())
    mapped = tokenizer("é", add_special_tokens=False)["input_ids"]
    choice["token_ids"] = [*tokenizer("a", add_special_tokens=False)["input_ids"], mapped[0]]
    done = read.read({"choices": [choice]}, request(stop=(), end=()), 2)
    assert done.text == "a\ufffd"


FAULTS = {
    "500": "status",
    "503": "busy",
    "hang": "deadline",
    "cut": "cut",
    "garbage": "garbled",
    "half json": "garbled",
    "half body": "cut",
    "abort": "aborted",
    "partial": "aborted",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_try_is_asked_again_with_the_same_seed(
    fault: str, policy: Policy, server: CompletionServer
) -> None:
    one = request("what", seed=3, stop=(), end=())
    with engine(policy, server) as remote:
        [want] = ask(remote, [one])
        server.bodies.clear()
        server.disturb = lambda number, body: fault if number <= 2 else None
    with engine(policy, server, deadline=1.5 if fault == "hang" else 20) as remote:
        [got] = ask(remote, [one])
        assert remote.servers[0].faults == Counter({FAULTS[fault]: 2})
    assert without_logps([got]) == without_logps([want])
    assert len(server.bodies) == 3
    assert server.bodies[0] == server.bodies[2]


def test_the_number_of_tries_is_limited(policy: Policy, server: CompletionServer) -> None:
    server.disturb = lambda number, body: "half json"
    with (
        engine(policy, server, retries=3, breaker=99) as remote,
        pytest.raises(EngineError, match=r"^http://127.0.0.1:\d+: 4 tries failed.*not JSON"),
    ):
        ask(remote, [request()])
    assert len(server.bodies) == 4


def test_a_request_that_is_refused_is_not_asked_again(
    policy: Policy, server: CompletionServer
) -> None:
    """Such as one that is longer than a context that the server did not state."""
    server.quirks = {"hides context"}
    server.context, context = 40, server.context
    try:
        with (
            engine(policy, server) as remote,
            pytest.raises(
                EngineError, match="status 400: This model's maximum context length is 40"
            ),
        ):
            assert remote.max_context == CONTEXT, "the policy's own"
            ask(remote, [request("x" * 60)])
    finally:
        server.context = context
    assert len(server.bodies) == 1


def test_cancelling_ends_the_request(policy: Policy, server: CompletionServer) -> None:
    server.delay = 20.0

    async def cancelled(remote: HttpEngine) -> None:
        work = asyncio.create_task(remote.generate([request(seed=n) for n in range(3)]))
        await until(lambda: len(server.bodies) == 3)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        await until(lambda: server.aborted == 3)

    with engine(policy, server) as remote:
        asyncio.run(asyncio.wait_for(cancelled(remote), 10))
        assert remote.servers[0].in_flight == 0


def test_an_error_cancels_the_other_requests(policy: Policy, server: CompletionServer) -> None:
    server.disturb = lambda number, body: "hang" if body["max_tokens"] == 5 else "500"
    asked = [request(max_tokens=5), request(max_tokens=6)]
    with engine(policy, server, retries=0) as remote, pytest.raises(EngineError, match="500"):
        ask(remote, asked)
    assert remote.servers[0].in_flight == 0


# Probing.

QUIRKS = {
    "no ids": ("token", "do not come back"),
    "truncates": ("token", "the server's has 8"),
    "skips special": ("special tokens", "is cut from the text"),
    "strips stop": ("stop strings", "is stripped"),
    "ignores stop": ("stop strings", "went on after"),
    "ignores stop ids": ("stop tokens", "ignored"),
    "max_tokens": ("token", "16 tokens, where max_tokens is 1"),
    "temperature": ("temperature", "ignored: at"),
    "seed": ("seed", "one seed gives different tokens"),
    "processed logprobs": ("log-probs", "after the temperature"),
}


def doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """What `scdpo doctor --json` says of a server, and its exit code."""
    from scdpo.cli import main

    with pytest.raises(SystemExit) as end:
        main(["doctor", "--json", *arguments])
    [report] = json.loads(capsys.readouterr().out)
    return int(end.value.code or 0), report


def test_a_good_server_passes(
    policy: Policy, server: CompletionServer, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = doctor(capsys, "--server", server.url, "--policy", policy.name)
    assert {c["name"]: c["outcome"] for c in report["checks"]} == dict.fromkeys(
        [
            *("models", "context", "token", "tokenizer", "ids and text", "max_tokens"),
            *("temperature", "seed", "stop strings", "stop tokens", "special tokens", "log-probs"),
        ],
        "ok",
    )
    assert code == 0
    with engine(policy, server, probe=True):
        pass


@pytest.mark.parametrize("quirk", QUIRKS)
def test_what_a_server_ignores_is_named(
    quirk: str,
    policy: Policy,
    server: CompletionServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.quirks = {quirk}
    code, report = doctor(capsys, "--server", server.url, "--policy", policy.name)
    name, found = QUIRKS[quirk]
    failed = {c["name"]: c["found"] for c in report["checks"] if c["outcome"] == "failed"}
    assert code == 1
    assert re.search(found, failed.get(name, "")), failed
    if quirk in ("temperature", "seed"):
        with pytest.raises(EngineError, match=f"^{server.url}: {name}: ignored"):
            engine(policy, server, probe=True)


def test_another_tokenizer_is_found(policy: Policy, server: CompletionServer) -> None:
    server.tokenizer, ours = byte_tokenizer(turned=3), server.tokenizer
    try:
        with pytest.raises(EngineError, match="tokenizer: the server's tokenizer is another one"):
            engine(policy, server, probe=True)
        server.quirks = {"no tokenize"}
        with pytest.raises(EngineError, match="is not what its ids decode to"):
            engine(policy, server, probe=True)
    finally:
        server.tokenizer = ours


def test_a_server_of_another_policy_is_refused(policy: Policy, server: CompletionServer) -> None:
    server.root, ours = "/models/other", server.root
    try:
        with pytest.raises(EngineError, match=r"it serves tiny \(/models/other\), not .*tiny"):
            engine(policy, server)
        named = {policy.name: "tiny"}
        with engine(policy, server, models=named):
            pass
        with pytest.raises(EngineError, match="not wrong: start it with this policy"):
            engine(policy, server, models={policy.name: "wrong"})
    finally:
        server.root = ours


def test_contexts(policy: Policy, server: CompletionServer) -> None:
    server.context, ours = 100, server.context
    try:
        with engine(policy, server) as remote:
            assert remote.max_context == 100
        with engine(policy, server, max_context=50) as remote:
            assert remote.max_context == 50
        with pytest.raises(EngineError, match="max_context 120 exceeds its limit of 100 tokens"):
            engine(policy, server, max_context=120)
    finally:
        server.context = ours


def test_log_probs_may_be_done_without(policy: Policy, server: CompletionServer) -> None:
    server.quirks = {"processed logprobs"}
    with pytest.raises(EngineError, match="log-probs: they are taken after the temperature"):
        engine(policy, server, probe=True)
    with engine(policy, server, probe=True, logprobs=False) as remote:
        [done] = ask(remote, [request()])
    assert done.logps == ()
    assert "logprobs" not in server.bodies[-1]


def test_the_table_of_the_doctor(
    policy: Policy, server: CompletionServer, capsys: pytest.CaptureFixture[str]
) -> None:
    from scdpo.cli import main

    server.quirks = {"seed"}
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--server", server.url, "--policy", policy.name])
    out = capsys.readouterr().out
    assert end.value.code == 1
    assert server.url in out
    assert "ignored: one seed gives different tokens" in " ".join(out.split())


def test_a_server_that_does_not_answer(policy: Policy, capsys: pytest.CaptureFixture[str]) -> None:
    nobody = "http://127.0.0.1:9"
    code, report = doctor(capsys, "--server", nobody, "--policy", policy.name)
    assert code == 1
    assert report["checks"][0]["found"].startswith("no connection")
    with pytest.raises(EngineError, match=f"^{nobody}: no connection"):
        HttpEngine(policy.name, HttpEngineConfig(urls=[nobody]))


# Several servers.


def place(servers: Servers, key: str, avoid: Server | None = None) -> Server:
    return asyncio.run(servers.take(key, avoid))


def three(**settings: Any) -> Servers:
    limits = {"in_flight": 50, "breaker": 3, "patience": 0.2} | settings
    return Servers([f"http://{name}:1" for name in "abc"], **limits)


def test_a_problem_stays_with_its_server() -> None:
    servers = three()

    async def taken() -> dict[str, set[str]]:
        where: dict[str, set[str]] = {}
        for _ in range(4):
            held = [(key, await servers.take(key)) for key in map(str, range(30))]
            for key, server in held:
                where.setdefault(key, set()).add(server.url)
                await servers.give_back(server)
        return where

    where = asyncio.run(taken())
    assert sum(len(urls) == 1 for urls in where.values()) >= 24
    spread = Counter(next(iter(urls)) for urls in where.values())
    assert len(spread) == 3


def test_a_favourite_with_too_much_to_do_is_passed_over() -> None:
    servers = three()

    async def taken() -> Counter[str]:
        return Counter([(await servers.take("one problem")).url for _ in range(60)])

    counts = asyncio.run(taken())
    assert max(counts.values()) <= 1.25 * 61 / 3 + 5
    assert min(counts.values()) >= 14


def test_a_slow_server_gets_less() -> None:
    servers = three()
    for server, seconds in zip(servers.all, (1.0, 1.0, 10.0), strict=True):
        server.answered(seconds, 10)

    async def taken() -> Counter[str]:
        return Counter([(await servers.take(f"p{n}")).url for n in range(100)])

    counts = asyncio.run(taken())
    assert counts["http://c:1"] <= 12
    assert sum(counts.values()) == 100


def test_places_are_limited_and_waited_for() -> None:
    servers = three(in_flight=2)

    async def waiting() -> None:
        held = [await servers.take("k") for _ in range(6)]
        late = [asyncio.create_task(servers.take("k")) for _ in range(2)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in late)
        # A waiting request that is cancelled just as it is woken leaves the place to the next.
        await servers.give_back(held[0])
        late[0].cancel()
        assert await asyncio.wait_for(late[1], 5) is held[0]

    asyncio.run(waiting())


def test_the_run_stops_when_no_server_is_left() -> None:
    servers = three()
    for server in servers.all:
        assert [servers.failed(server, ServerFault("cut", "gone")) for _ in range(3)][-1]
    with pytest.raises(EngineError, match=r"no server is usable for 0.2 s: http://a:1: gone; "):
        place(servers, "k")


def test_a_server_that_hangs_gets_nothing_until_it_writes_a_token(
    policy: Policy, server: CompletionServer
) -> None:
    """Its health is fine all the time."""
    with served(served_tiny(policy)) as other:
        other.disturb = lambda number, body: "hang"
        # Without keys, both get their share.
        with engine(policy, server, other, deadline=2, breaker=2, pause=0.05) as remote:

            async def sampled(seeds: range) -> list[Completion]:
                return await remote.generate([request(seed=seed) for seed in seeds])

            async def work() -> int:
                await sampled(range(8))
                broken = remote.servers[1]
                assert broken.broken
                assert broken.faults["deadline"] >= 2
                seen = len([b for b in other.bodies if b["max_tokens"] > 1])
                await sampled(range(8, 30))
                assert len([b for b in other.bodies if b["max_tokens"] > 1]) == seen
                other.disturb = lambda number, body: None
                await until(lambda: not broken.broken)
                await sampled(range(30, 60))
                return broken.answers

            assert asyncio.run(asyncio.wait_for(work(), 30)) > 0


def test_a_router_gets_the_problem_in_a_header(policy: Policy, server: CompletionServer) -> None:
    with engine(policy, server, session_header="X-Session-ID") as remote:
        ask(remote, [request(key="mine/3 é")])
    assert server.headers[-1]["x-session-id"] == "mine%2F3%20%C3%A9"


def test_backpressure_at_a_server(policy: Policy, server: CompletionServer) -> None:
    server.delay = 0.01
    most = 0
    inner: Callable[[int, Mapping[str, Any]], str | None] = server.disturb

    def watching(number: int, body: Mapping[str, Any]) -> str | None:
        nonlocal most
        most = max(most, number - server.answered)
        return inner(number, body)

    server.disturb = watching
    with engine(policy, server, in_flight=4) as remote:
        assert len(ask(remote, [request(seed=n) for n in range(30)])) == 30
    assert 2 <= most <= 5


# The API key.

KEY = "sk-very-secret-0123456789"


def test_the_key_is_sent_and_never_shown(
    policy: Policy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    with served(served_tiny(policy, key=KEY)) as server:
        with pytest.raises(EngineError, match="wants an API key, but there is no environment"):
            engine(policy, server)
        monkeypatch.setenv("SCDPO_API_KEY", f"{KEY}-old")
        with pytest.raises(EngineError, match="refuses the API key of environment") as wrong:
            engine(policy, server)
        assert KEY not in str(wrong.value), "the server repeats what it got"
        monkeypatch.setenv("MINE", KEY)
        with engine(policy, server, api_key_env="MINE") as remote:
            ask(remote, [request()])
            assert KEY not in repr(remote._config)
        monkeypatch.setenv("MINE", f"{KEY}é")
        with pytest.raises(EngineError, match="variable MINE holds no API key") as odd:
            engine(policy, server, api_key_env="MINE")
        assert KEY not in str(odd.value)
    assert KEY not in caplog.text


def test_a_proxy_is_not_asked_for_this_machine(
    policy: Policy, server: CompletionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with engine(policy, server) as remote:
        assert len(ask(remote, [request()])) == 1


def test_urls() -> None:
    config = engine_config({"name": "http", "urls": "http://gpu1:8000/v1/"})
    assert isinstance(config, HttpEngineConfig)
    assert config.urls == ("http://gpu1:8000",)
    both = HttpEngineConfig(urls=["https://a/x/v1", "http://b:1/"]).urls
    assert both == ("https://a/x", "http://b:1")
    for wrong in ("gpu1:8000", "ftp://a", "http://", "http://a?key=1"):
        with pytest.raises(ValidationError):
            HttpEngineConfig(urls=[wrong])
    with pytest.raises(ValidationError, match="may not hold a password"):
        HttpEngineConfig(urls=["http://me:secret@a"])
    with pytest.raises(ValidationError, match="listed twice"):
        HttpEngineConfig(urls=["http://a", "http://a/v1"])
    with pytest.raises(ValidationError, match="seed is set by the engine"):
        HttpEngineConfig(urls=["http://a"], extra={"seed": 1})


# Whole runs.


def problems(n: int) -> list[Problem]:
    return [
        Problem(id=f"sums/{i}", dataset="sums", question=f"How much is {i} + 2?", answer=str(i + 2))
        for i in range(n)
    ]


def sampled(remote: HttpEngine, n: int) -> list[Solution]:
    config = SampleConfig(max_attempts=4, rows=60, seed=1)

    async def rows() -> list[Solution]:
        sampler = Sampler(remote, LINES, grader, None, "lines")
        chunks = sample_solutions(problems(n), sampler, config)
        return [row async for chunk in chunks for row in chunk]

    with Grader() as grader:
        return asyncio.run(rows())


def test_rows_under_faults_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    """A third of the answers fail, in all ways; one of three servers is dead for a while."""
    folder = lines_policy(tmp_path / "lines")
    kinds = [*FAULTS]
    hung: list[CompletionServer] = []
    with (
        served(served_lines(folder)) as first,
        served(served_lines(folder)) as second,
        served(served_lines(folder)) as third,
    ):
        with engine(folder, first) as remote:
            calm = sampled(remote, 20)
        assert len(calm) > 30
        assert {row.verdict.name for row in calm} == {"correct", "wrong"}

        def faulty(server: CompletionServer, start: int) -> None:
            def disturb(number: int, body: Mapping[str, Any]) -> str | None:
                if server is second and number in (15, 16):
                    # It dies, and a while later comes back.
                    asyncio.get_running_loop().create_task(dead(server))
                drawn = (number * 7 + start) % 30
                if drawn >= len(kinds) or (kinds[drawn] == "hang" and server in hung):
                    return None
                if kinds[drawn] == "hang":
                    hung.append(server)  # one each: it takes the whole deadline
                return kinds[drawn]

            server.disturb = disturb

        async def dead(server: CompletionServer) -> None:
            await server.die()
            await asyncio.sleep(0.4)
            await server.listen()

        for n, server in enumerate((first, second, third)):
            server.bodies.clear()
            faulty(server, 3 * n)
        settings = {"deadline": 4, "pause": 0.01, "breaker": 4}
        with engine(folder, first, second, third, **settings) as remote:
            rows = sampled(remote, 20)
            met = sum((s.faults for s in remote.servers), Counter[str]())
            answers = sum(s.answers for s in remote.servers)
    assert by_id(rows) == by_id(calm)
    assert set(FAULTS.values()) <= met.keys()
    assert sum(met.values()) > 0.25 * answers, met


@pytest.fixture(scope="module")
def embedded() -> Iterator[CompletionServer]:
    """The embedded policy behind a server that wants a key."""
    loaded = load_policy("embedded", device="cpu")
    with LocalEngine(loaded) as local:
        where = {"name": "served", "root": policy_path("embedded")}
        one = CompletionServer(local, loaded.tokenizer, context=local.max_context, key=KEY, **where)
        with served(one) as server:
            yield server


def test_an_evaluation_is_that_in_process_and_keeps_no_key(
    embedded: CompletionServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SCDPO_API_KEY", KEY)
    settings = {"name": "http", "urls": embedded.url, "pause": 0, "probe": False}
    few = {"source": "embedded", "split": "test", "limit": 4}
    more: dict[str, Any] = {"problems": {"train": few, "test": few}, "evaluate": {"rows": 4}}
    here, there = tmp_path / "here", tmp_path / "there"
    succeed("evaluate", here, "--recipe", write_recipe(tmp_path / "a.yaml", **more))
    embedded.disturb = lambda number, body: "500" if number % 3 == 0 else None
    recipe = write_recipe(tmp_path / "b.yaml", engine=settings, **more)
    succeed("evaluate", there, "--recipe", recipe)

    [local], [remote] = (list((run / "evaluations").rglob("rows-*")) for run in (here, there))
    # Answers come in any order.
    answers = [sorted(rows.read_text().splitlines()) for rows in (local, remote)]
    assert answers[0] == answers[1]
    assert len(answers[0]) == 4
    files = [path for path in there.rglob("*") if path.is_file()]
    assert all(KEY.encode() not in path.read_bytes() for path in files)
    assert KEY not in "".join(capsys.readouterr()) + caplog.text

    # Another server may go on, with other limits, but not with another context.
    other = f"http://localhost:{embedded.port}"
    succeed("evaluate", there, "--set", f"engine.urls={other}", "--set", "engine.in_flight=3")
    text = fail(capsys, "evaluate", there, "--set", "engine.max_context=300")
    assert "engine.max_context" in text
