"""An engine that says what it is told: for tests, and for replaying recorded solutions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from scdpo.engines.base import Completion, CompletionFinish, Request
from scdpo.engines.draws import seed_words, uniforms
from scdpo.errors import EngineError

Alternatives = Sequence[Sequence[str]]
"""Ways to answer one question, each the texts of its steps in order, host texts left out."""
Script = Mapping[str, Alternatives] | Callable[[Request], str]

_FIRST_SPECIAL = 0x110000
"""Special tokens are numbered after the last Unicode code point."""


class CodePoints:
    """A reversible tokenizer: a character's id is its code point, each marker is one token."""

    def __init__(self, special_tokens: Iterable[str] = ()):
        # Longer markers first, so that one which begins another does not hide it.
        self._ids = {text: _FIRST_SPECIAL + i for i, text in enumerate(special_tokens)}
        self._texts = {i: text for text, i in self._ids.items()}
        self._markers = sorted(self._ids, key=len, reverse=True)

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of `text`."""
        ids, at = [], 0
        while at < len(text):
            marker = next((m for m in self._markers if text.startswith(m, at)), None)
            ids.append(ord(text[at]) if marker is None else self._ids[marker])
            at += 1 if marker is None else len(marker)
        return tuple(ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`. Raises EngineError for an id that is none."""
        try:
            return "".join(self._texts.get(i) or chr(i) for i in ids)
        except (ValueError, OverflowError) as error:
            raise EngineError("a token id is neither a code point nor a marker") from error


class ScriptedEngine:
    """Completions from a script.

    `script` is either a function from a request to the text the policy would write from there
    on (`decode` gives the prompt's text), or alternatives by question: of the keys that occur in
    a prompt the longest is taken, and of its alternatives those that agree with most of the
    steps already in the prompt; the request's seed chooses among them, temperature 0 takes the
    first. A step is found in the prompt by its text, so whatever the host appended in between
    does not matter.

    The text is cut as a policy's would be: after the first stop or end string, at `max_tokens`,
    or at the context's end. A text that runs out ends the solution (`end`). Every token has
    `logp` as its log-prob.
    """

    def __init__(
        self,
        script: Script,
        *,
        name: str = "scripted",
        special_tokens: Iterable[str] = (),
        max_context: int = 1 << 20,
        logp: float = 0.0,
    ):
        self.name = name
        self.max_context = max_context
        self._script = script
        self._tokens = CodePoints(special_tokens)
        self._logp = logp

    def encode(self, text: str, *, start: bool = False) -> tuple[int, ...]:
        """Token ids of `text`; `start` changes nothing, as no token begins a text."""
        return self._tokens.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids."""
        return self._tokens.decode(ids)

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Complete every request, in order. EngineError for a question that has no script."""
        return [self._complete(request) for request in requests]

    def clear(self) -> None:
        """Nothing is kept between calls."""

    def close(self) -> None:
        """Nothing is held."""

    def _complete(self, request: Request) -> Completion:
        limit = min(request.max_tokens, self.max_context - len(request.prompt_ids))
        if limit <= 0:
            return Completion((), "", (), "length")
        text = self._script(request) if callable(self._script) else self._written(request)
        text, finish = _cut(text, request)
        ids = self._tokens.encode(text)
        if len(ids) > limit:
            ids, finish = ids[:limit], "length"
        return Completion(ids, self.decode(ids), (self._logp,) * len(ids), finish)

    def _written(self, request: Request) -> str:
        assert not callable(self._script)
        prompt = self.decode(request.prompt_ids)
        key = max((key for key in self._script if key in prompt), key=len, default=None)
        if key is None or not self._script[key]:
            raise EngineError(f"{self.name}: no script for the prompt {prompt[-80:]!r}")
        rest = prompt[prompt.index(key) + len(key) :]
        done = [_steps_done(steps, rest) for steps in self._script[key]]
        fitting = [
            steps[n:] for steps, n in zip(self._script[key], done, strict=True) if n == max(done)
        ]
        return "".join(fitting[_choice(request, len(fitting))])


def _steps_done(steps: Sequence[str], text: str) -> int:
    """How many of the first steps occur in `text`, one after the other."""
    at = 0
    for n, step in enumerate(steps):
        found = text.find(step, at)
        if found < 0:
            return n
        at = found + len(step)
    return len(steps)


def _choice(request: Request, n: int) -> int:
    if request.temperature == 0:
        return 0
    draw = uniforms(seed_words([request.seed]), np.zeros(1, dtype=np.int64))
    return int(draw[0] * n)


def _cut(text: str, request: Request) -> tuple[str, CompletionFinish]:
    """The text up to its first stop or end string, which stays."""
    groups: tuple[tuple[tuple[str, ...], CompletionFinish], ...] = (
        (request.end, "end"),
        (request.stop, "stop"),
    )
    found = [
        (at + len(string), finish)
        for strings, finish in groups
        for string in strings
        if (at := text.find(string)) >= 0
    ]
    # The sort is stable: where an end and a stop string end together, it is the end.
    found.sort(key=lambda cut: cut[0])
    if not found:
        return text, "end"
    return text[: found[0][0]], found[0][1]
