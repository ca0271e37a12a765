"""The protocol of `/v1/completions` as vLLM speaks it: from a request to a body, and from an answer
to a completion, of which nothing is taken on trust."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scdpo.engines.base import Completion, CompletionFinish, Request
from scdpo.engines.draws import seed_words, uniforms
from scdpo.engines.http.faults import ServerFault
from scdpo.engines.stops import Endings
from scdpo.errors import short
from scdpo.policies import decode_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNDECODABLE = "\ufffd"


def step_seed(request: Request) -> int:
    """The seed of one step, in 0 … 2³¹ − 1: a draw from the stream of (`seed`, `position`).

    A server begins a new stream with every request, so steps of a rollout that were sent the same
    seed would draw the same numbers.
    """
    position = np.array([request.position], dtype=np.int64)
    return int(uniforms(seed_words([request.seed]), position)[0] * 2**31)


class Completions:
    """Bodies and answers for one policy, whose tokenizer and EOS ids these are."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        eos_ids: Iterable[int],
        *,
        logprobs: bool = True,
        extra: Mapping[str, Any] | None = None,
    ):
        self.tokenizer = tokenizer
        self.eos_ids = frozenset(eos_ids)
        self.logprobs = logprobs
        self._extra = dict(extra or {})
        self._endings: dict[tuple[tuple[str, ...], tuple[str, ...]], Endings] = {}

    def body(self, request: Request, model: str, max_tokens: int) -> dict[str, Any]:
        """The JSON body that asks for a step of at most `max_tokens` tokens."""
        endings = self.endings(request)
        return {
            **self._extra,
            "model": model,
            "prompt": list(request.prompt_ids),
            "max_tokens": max_tokens,
            "temperature": request.temperature,
            "seed": step_seed(request),
            "stop": [string for string, _ in endings.by_text],
            "stop_token_ids": sorted(endings.by_id),
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
            "return_token_ids": True,
            **({"logprobs": 0} if self.logprobs else {}),
        }

    def endings(self, request: Request) -> Endings:
        """What ends a step of this request."""
        key = (request.stop, request.end)
        if key not in self._endings:
            self._endings[key] = Endings(self.tokenizer, *key, self.eos_ids)
        return self._endings[key]

    def read(self, answer: object, request: Request, max_tokens: int) -> Completion:
        """The completion in an answer. Raises ServerFault if anything about it is not as asked.

        The ids are what the policy wrote, and the text is their decoding: where a stop string ends
        inside the last token, the server's text ends there, but the completion's has the whole
        token, as in process.
        """
        choice = _only_choice(answer)
        ids = _ids(choice)
        _check_prompt(answer, choice, request.prompt_ids)
        if len(ids) > max_tokens:
            raise ServerFault("ids", f"{len(ids)} tokens, where max_tokens is {max_tokens}")
        endings = self.endings(request)
        text = decode_ids(self.tokenizer, ids)
        before = decode_ids(self.tokenizer, ids[:-1]) if endings.by_text else ""
        finish = _finish(choice.get("finish_reason"), ids, text, before, endings, max_tokens)
        self._check_text(choice.get("text"), text, before, ids, endings)
        return Completion(ids, text, _logps(choice, len(ids)) if self.logprobs else (), finish)

    def _check_text(
        self, said: object, text: str, before: str, ids: Sequence[int], endings: Endings
    ) -> None:
        if not isinstance(said, str):
            raise ServerFault("garbled", "the answer has no text")
        if said == text:
            return
        # Servers decode token by token, and differ in what they do with half a character.
        said, text, before = (t.replace(UNDECODABLE, "") for t in (said, text, before))
        stops = tuple(string for string, _ in endings.by_text)
        inside = len(before) < len(said) and text.startswith(said) and said.endswith(stops)
        if said == text or (stops and inside):
            return
        if any(said + stop == text for stop in stops):
            why = "the stop string is stripped from the text (include_stop_str_in_output)"
        elif said == self.tokenizer.decode(list(ids), skip_special_tokens=True):
            why = "special tokens are cut from the text (skip_special_tokens)"
        else:
            why = f"the text {short(said, 40)} is not what its ids decode to, {short(text, 40)}"
        raise ServerFault("text", why)


def _finish(
    reason: object,
    ids: tuple[int, ...],
    text: str,
    before: str,
    endings: Endings,
    max_tokens: int,
) -> CompletionFinish:
    """Why ids end where they do, by the rules of the engine in process. `text` is their decoding,
    and `before` that of all but the last. Raises ServerFault if nothing ends them."""
    if reason not in ("stop", "length"):
        raise ServerFault("aborted", f"finish_reason is {short(reason)}")
    passed = next((i for i in ids[:-1] if i in endings.by_id), None)
    if passed is not None or endings.in_text(before):
        what = "a stop string" if passed is None else f"stop token {passed}"
        raise ServerFault("aborted", f"it went on after {what}")
    finish = endings.by_id.get(ids[-1]) or endings.in_text(text)
    if finish is not None:
        return finish
    if reason == "stop":
        raise ServerFault(
            "aborted",
            f"it stopped after token {ids[-1]}, at which neither a stop string nor an EOS of the "
            "policy ends",
        )
    if len(ids) < max_tokens:
        raise ServerFault(
            "aborted",
            f"{len(ids)} of {max_tokens} tokens, and nothing that ends a step; if the server's "
            "context ends here, set engine.max_context",
        )
    return "length"


def _only_choice(answer: object) -> Mapping[str, Any]:
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    if isinstance(choices, list) and len(choices) == 1 and isinstance(choices[0], Mapping):
        return choices[0]
    raise ServerFault("garbled", f"not one completion: {short(answer)}")


def _ids(choice: Mapping[str, Any]) -> tuple[int, ...]:
    ids = choice.get("token_ids")
    if ids is None:
        raise ServerFault(
            "ids",
            "token ids do not come back (return_token_ids: vLLM 0.10.2 or later, recent SGLang); "
            "they are never guessed from the text",
        )
    if not isinstance(ids, list) or not all(type(i) is int and i >= 0 for i in ids):
        raise ServerFault("garbled", f"token_ids is {short(ids)}")
    if not ids:
        raise ServerFault("aborted", "no tokens")
    return tuple(ids)


def _check_prompt(answer: object, choice: Mapping[str, Any], sent: tuple[int, ...]) -> None:
    """A server that cuts a prompt, or adds BOS to it, answers another question."""
    usage = answer.get("usage") if isinstance(answer, Mapping) else None
    count = usage.get("prompt_tokens") if isinstance(usage, Mapping) else None
    if count is not None and count != len(sent):
        raise ServerFault("ids", f"the prompt has {len(sent)} tokens, the server's has {count}")
    seen = choice.get("prompt_token_ids")
    if seen is not None and tuple(seen) != sent:
        raise ServerFault("ids", "the server's prompt has other token ids")


def _logps(choice: Mapping[str, Any], n: int) -> tuple[float, ...]:
    logprobs = choice.get("logprobs")
    values = logprobs.get("token_logprobs") if isinstance(logprobs, Mapping) else None
    if not isinstance(values, list) or len(values) != n:
        raise ServerFault(
            "logps",
            f"not a log-prob for each of {n} tokens; set engine.logprobs: false to do without",
        )
    if not all(isinstance(v, int | float) and math.isfinite(v) and v < 0.01 for v in values):
        raise ServerFault("logps", f"log-probs are {short(values)}")
    return tuple(float(v) for v in values)
