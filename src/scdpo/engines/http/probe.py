"""Whether a server does what is asked of it: every setting of a request is tried out.

Servers ignore what they do not know, and a run with a server that ignores the temperature, or cuts
the stop string, ends with wrong rows and without an error.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from scdpo.engines.base import Completion, Request
from scdpo.engines.http.asking import Asking, open_asking
from scdpo.engines.http.config import HttpEngineConfig, base_url
from scdpo.engines.http.faults import ServerFault
from scdpo.engines.http.wire import Wire
from scdpo.errors import EngineError, InputError, PolicyError, short
from scdpo.errors.validation import settings_from_options
from scdpo.policies import decode_ids, encode_text, policy_path
from scdpo.records import Record
from scdpo.waiting import run

Outcome = Literal["ok", "failed", "unknown"]

PROMPTS = ("Here are some numbers: 1, 2, 3", "Question: how many apples", "The answer is", "def f(")
"""Beginnings of which the greedily longest continuation is probed."""
TEXT = "What is 12 * 345?\n  Half of 3.5 is 1.75 — “naïve” été 数\n```python\nprint(x)\n```\n"
"""What both tokenizers cut into tokens, besides the special tokens."""
TOKENS = 20
"""Length of probed continuations: not the 16 of a server that ignores max_tokens."""
HOT, COLD = 2.0, 0.01
SEEDS = (11, 12, 13, 14)
DEADLINE = 60.0
"""Seconds for an answer where no run says how long it may take."""


class Check(Record):
    """The outcome of trying one setting, and what was found. `unknown`: this server offers no way
    to see it in advance; every answer is checked all the same."""

    name: str
    outcome: Outcome
    found: str


class ServerReport(Record):
    """What is known of a server: its name for the policy, its context (None if it does not say),
    and the checks. `reached` is false if it did not answer at all."""

    url: str
    model: str = ""
    max_context: int | None = None
    reached: bool = True
    checks: tuple[Check, ...] = ()

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.outcome == "failed")


async def probe_server(
    asking: Asking, url: str, policy: str, *, settings: bool = True
) -> ServerReport:
    """Ask a server which policies it has and, with `settings`, try out every setting.

    Never raises for what the server does or fails to do: that is what the report says.
    """
    try:
        listed = await asking.wire.get(f"{url}/v1/models", deadline=asking.config.deadline)
        model, context = served_model(listed, policy, asking.config.models)
    except ServerFault as fault:
        reached = fault.name not in ("unreachable", "cut", "deadline", "busy", "status")
        check = Check(name="models", outcome="failed", found=str(fault))
        return ServerReport(url=url, reached=reached, checks=(check,))
    except EngineError as error:
        check = Check(name="models", outcome="failed", found=str(error))
        return ServerReport(url=url, checks=(check,))
    checks = [Check(name="models", outcome="ok", found=f"it serves this policy as {model}")]
    said = f"{context} tokens" if context else "the server does not say; set engine.max_context"
    checks.append(Check(name="context", outcome="ok" if context else "unknown", found=said))
    if settings:
        checks += await _Probe(asking, url, model).checks()
    return ServerReport(url=url, model=model, max_context=context, checks=tuple(checks))


def probe_servers(
    urls: Sequence[str], policy: str | None, api_key_env: str | None = None
) -> list[ServerReport]:
    """Probe servers without a run, each by itself; `policy` is by default what they say they have.

    Raises InputError for settings that cannot be, PolicyError, MissingDependency and EngineError.
    """
    for url in urls:
        try:
            base_url(url)
        except ValueError as error:
            raise InputError(f"server {short(url)}: {error}") from error
    config = settings_from_options(
        HttpEngineConfig, urls=list(urls), deadline=DEADLINE, api_key_env=api_key_env
    )

    async def probed() -> list[ServerReport]:
        wire = Wire(config.api_key_env)
        await wire.enter()
        try:
            name = policy or await _only_policy(wire, config.urls[0])
            asking = replace(open_asking(name, config), wire=wire)
            return [await probe_server(asking, url, name) for url in config.urls]
        finally:
            await wire.leave()

    return run(probed())


async def _only_policy(wire: Wire, url: str) -> str:
    """The name or path of the only model that a server has. Raises EngineError."""
    try:
        listed = await wire.get(f"{url}/v1/models", deadline=DEADLINE)
        [model] = listed["data"]
        return str(model.get("root") or model["id"])
    except ServerFault as fault:
        raise EngineError(f"{url}: {fault}") from fault
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EngineError(f"{url}: it has not just one model; give --policy") from error


def served_model(listed: object, policy: str, models: Mapping[str, str]) -> tuple[str, int | None]:
    """The name under which a server has a policy, by its answer to /v1/models, and its context.

    The name is that of `models` if it names the policy, else that of the model whose `id` or `root`
    is the policy's name or path. Raises EngineError if there is none: another policy's solutions
    would be written under this one's name.
    """
    data = listed.get("data") if isinstance(listed, Mapping) else None
    served = [m for m in data if isinstance(m, Mapping)] if isinstance(data, list) else []
    named = next((models[name] for name in models if _same(name, policy)), None)
    for model in served:
        names = (model.get("id"), model.get("root"))
        wanted = named in names if named is not None else any(_same(n, policy) for n in names if n)
        if wanted:
            context = model.get("max_model_len")
            return str(model.get("id")), context if isinstance(context, int) else None
    have = ", ".join(
        f"{m.get('id')} ({m.get('root')})" if m.get("root") else str(m.get("id")) for m in served
    )
    raise EngineError(
        f"it serves {short(have, 200, quote=False) or 'no model'}, not {named or policy}: start it "
        "with this policy, or name it in engine.models"
    )


def _same(name: object, policy: str) -> bool:
    """Whether two names mean the same policy: equal, or the same folder."""
    if name == policy:
        return True
    try:
        folder = Path(policy_path(policy)) if policy == "embedded" else Path(policy)
        other = Path(str(name))
        return folder.is_dir() and other.is_dir() and folder.samefile(other)
    except (OSError, PolicyError):
        return False


@dataclass(slots=True)
class _Probe:
    """The checks of one server, which share a prompt and its greedy continuation."""

    asking: Asking
    url: str
    model: str
    prompt: tuple[int, ...] = ()
    greedy: Completion = field(default_factory=lambda: Completion((), "", (), "length"))

    async def checks(self) -> list[Check]:
        """All checks, in order; none after the first if not even one token comes."""
        first = await self._checked("token", self._token)
        if first.outcome == "failed":
            return [first]
        return [
            first,
            await self._checked("tokenizer", self._tokenizer),
            await self._checked("ids and text", self._ids_and_text),
            await self._checked("max_tokens", self._max_tokens),
            await self._checked("temperature", self._temperature),
            await self._checked("seed", self._seed),
            await self._checked("stop strings", self._stop_strings),
            await self._checked("stop tokens", self._stop_tokens),
            await self._checked("special tokens", self._special_tokens),
            await self._checked("log-probs", self._logprobs),
        ]

    async def _checked(self, name: str, check: Callable[[], Awaitable[Check | str]]) -> Check:
        try:
            found = await check()
        except (ServerFault, EngineError) as error:
            return Check(name=name, outcome="failed", found=str(error))
        if isinstance(found, str):
            return Check(name=name, outcome="ok", found=found)
        return found.model_copy(update={"name": name})

    def _request(self, temperature: float, seed: int = 0, stop: Sequence[str] = ()) -> Request:
        return Request(self.prompt, tuple(stop), (), temperature, TOKENS, seed)

    async def _draw(
        self, temperature: float, seed: int = 0, n: int = TOKENS, stop: Sequence[str] = ()
    ) -> Completion:
        request = self._request(temperature, seed, stop)
        return await self.asking.step(self.url, self.model, request, n)

    async def _draws(self, temperature: float) -> list[Completion]:
        """A continuation for each seed, side by side."""
        return list(await asyncio.gather(*(self._draw(temperature, seed) for seed in SEEDS)))

    async def _raw(self, request: Request, n: int, **fields: Any) -> Mapping[str, Any]:
        """The only choice of an answer to a body with other `fields`, as it is."""
        body = self.asking.completions.body(request, self.model, n) | fields
        answer = await self.asking.raw(self.url, body)
        try:
            choice = answer["choices"][0]
            list(choice["token_ids"])
        except (KeyError, IndexError, TypeError) as error:
            raise ServerFault("garbled", f"no token ids in {short(answer)}") from error
        assert isinstance(choice, Mapping)
        return choice

    async def _token(self) -> str:
        self.prompt = encode_text(self.asking.completions.tokenizer, PROMPTS[0], start=True)
        begun = time.perf_counter()
        await self._draw(0.0, n=1)
        return f"one after {time.perf_counter() - begun:.2f} s"

    async def _ids_and_text(self) -> str:
        tokenizer = self.asking.completions.tokenizer
        for text in PROMPTS:
            self.prompt = encode_text(tokenizer, text, start=True)
            drawn = await self._draw(0.0)
            if len(drawn.token_ids) > len(self.greedy.token_ids):
                self.greedy, longest = drawn, self.prompt
            if len(drawn.token_ids) == TOKENS:
                break
        self.prompt = longest
        await self._draws(HOT)
        return "token ids both ways; the text is what they decode to"

    async def _tokenizer(self) -> Check | str:
        tokenizer = self.asking.completions.tokenizer
        text = TEXT + "".join(str(t) for t in list(tokenizer.added_tokens_decoder.values())[:32])
        body = {"model": self.model, "prompt": text, "add_special_tokens": False}
        deadline = self.asking.config.deadline
        try:
            answer = await self.asking.wire.post(f"{self.url}/tokenize", body, deadline=deadline)
            theirs = answer["tokens"]
        except (ServerFault, EngineError, KeyError, TypeError):
            return Check(name="", outcome="unknown", found="the server has no route /tokenize")
        ours = [int(i) for i in tokenizer(text, add_special_tokens=False)["input_ids"]]
        if theirs == ours:
            return f"{len(ours)} tokens of a text, special tokens included, are the same"
        pairs = zip(theirs, ours, strict=False)
        at = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(theirs), len(ours)))
        there = repr(decode_ids(tokenizer, ours[at : at + 1]))
        raise ServerFault(
            "ids",
            f"the server's tokenizer is another one: token {at} of a text differs, ours is {there}",
        )

    async def _max_tokens(self) -> str:
        few = await self._draw(0.0, n=3)
        return f"{len(few.token_ids)} of at most 3"

    async def _temperature(self) -> str:
        for temperature in (0.0, COLD):
            if not any(map(self._is_greedy, await self._draws(temperature))):
                raise ServerFault(
                    "ids", f"ignored: at {temperature:g} it does not choose the likeliest tokens"
                )
        if all(one.token_ids == self.greedy.token_ids for one in await self._draws(HOT)):
            raise ServerFault("ids", f"ignored: at {HOT:g} it writes what it writes at 0")
        return f"0, {COLD:g} and {HOT:g} differ as they should"

    def _is_greedy(self, drawn: Completion) -> bool:
        """Whether it begins as the greedy continuation: the rest may hang on two equal tokens."""
        pairs = list(zip(drawn.token_ids, self.greedy.token_ids, strict=False))
        equal = next((n for n, (a, b) in enumerate(pairs) if a != b), len(pairs))
        return 2 * equal >= len(self.greedy.token_ids)

    async def _seed(self) -> str:
        first = [drawn.token_ids for drawn in await self._draws(HOT)]
        again = [drawn.token_ids for drawn in await self._draws(HOT)]
        same = sum(a == b for a, b in zip(first, again, strict=True))
        if same < len(SEEDS) - 1:  # rounding may move one of them
            raise ServerFault("ids", "ignored: one seed gives different tokens")
        if len(set(first)) == 1:
            raise ServerFault("ids", f"ignored: {len(SEEDS)} seeds give the same tokens")
        return "the same seed gives the same tokens, another one others"

    async def _stop_strings(self) -> Check | str:
        string = self._string_inside()
        if string is None:
            return Check(name="", outcome="unknown", found="its continuations are too short")
        # Reading an answer refuses one that goes on after a stop string, or lacks it.
        stopped = await self._draw(0.0, stop=[string])
        if stopped.finish != "stop":
            return Check(name="", outcome="unknown", found=f"{string!r} did not occur again")
        return f"it ends at {string!r}, and keeps it"

    def _string_inside(self) -> str | None:
        """A string that the greedy continuation has early, made of ordinary characters."""
        tokenizer, ids = self.asking.completions.tokenizer, self.greedy.token_ids
        for n in range(1, len(ids) - 2):
            text = decode_ids(tokenizer, ids[: n + 2])[len(decode_ids(tokenizer, ids[:n])) :]
            whole = not any(i in tokenizer.added_tokens_decoder for i in ids[n : n + 2])
            if whole and text and "\ufffd" not in text:
                return text
        return None

    async def _stop_tokens(self) -> Check | str:
        ids = self.greedy.token_ids
        if len(ids) < 4:
            return Check(name="", outcome="unknown", found="its continuations are too short")
        choice = await self._raw(self._request(0.0), TOKENS, stop_token_ids=[ids[2]])
        got = [int(i) for i in choice["token_ids"]]
        if ids[2] in got[:-1]:
            raise ServerFault("aborted", f"ignored: it goes on after token {ids[2]}")
        if got[-1:] != [ids[2]]:
            if choice.get("finish_reason") == "stop":
                raise ServerFault("ids", "the stop token is cut from the ids")
            return Check(name="", outcome="unknown", found=f"token {ids[2]} did not occur again")
        if choice.get("text") != decode_ids(self.asking.completions.tokenizer, got):
            raise ServerFault("text", "the stop token is cut from the text")
        return "it ends at a token's id, and keeps it"

    async def _special_tokens(self) -> Check | str:
        special = next(iter(sorted(self.asking.completions.eos_ids)), None)
        unseen = Check(
            name="", outcome="unknown", found="none could be made to appear (logit_bias)"
        )
        if special is None:
            return unseen
        choice = await self._raw(self._request(0.0), 1, logit_bias={str(special): 100})
        if list(choice["token_ids"]) != [special]:
            return unseen
        text = decode_ids(self.asking.completions.tokenizer, [special])
        if choice.get("text") != text:
            raise ServerFault("text", f"{text} is cut from the text (skip_special_tokens)")
        return f"{text} stays in the text"

    async def _logprobs(self) -> Check | str:
        if not self.asking.completions.logprobs:
            return Check(name="", outcome="unknown", found="not asked for (engine.logprobs)")
        request = replace(self._request(HOT, SEEDS[0]))
        spreads = []
        for temperature in (HOT, HOT / 4):
            asked = replace(request, temperature=temperature)
            choice = await self._raw(asked, 1, logprobs=2)
            spreads.append(_spread(choice))
        if None in spreads:
            return Check(name="", outcome="unknown", found="the two likeliest tokens are not given")
        at_hot, at_cold = (float(s) for s in spreads if s is not None)
        if abs(at_hot - at_cold) > 0.02 + 0.02 * abs(at_cold):
            raise ServerFault(
                "logps",
                "they are taken after the temperature: start vLLM with --logprobs-mode "
                "raw_logprobs, SGLang with SGLANG_RETURN_ORIGINAL_LOGPROB=1, or set "
                "engine.logprobs: false",
            )
        return "at temperature 1, whatever the temperature of sampling"


def _spread(choice: Mapping[str, Any]) -> float | None:
    """How far apart the log-probs of the two likeliest first tokens are."""
    logprobs = choice.get("logprobs")
    top = logprobs.get("top_logprobs") if isinstance(logprobs, Mapping) else None
    if not isinstance(top, list) or not top or not isinstance(top[0], Mapping):
        return None
    values = sorted((float(v) for v in top[0].values()), reverse=True)
    return values[0] - values[1] if len(values) > 1 else None
