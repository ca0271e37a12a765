"""An engine that follows a script: for tests, and for replaying recorded solutions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from scdpo.engines.base import Completion, CompletionFinish, Request
from scdpo.engines.draws import seed_words, uniforms
from scdpo.errors import EngineError

Alternatives = Sequence[Sequence[str]]
"""Alternative answers to one question, each as its step texts in order, without host texts."""
Script = Mapping[str, Alternatives] | Callable[[Request], str]

_FIRST_SPECIAL = 0x110000
"""Special tokens are numbered after the last Unicode code point."""


class CodePoints:
    """A reversible tokenizer: a character's id is its code point, and each marker is one token."""

    def __init__(self, special_tokens: Iterable[str] = ()):
        # Longer markers first, so that a marker is not hidden by a prefix of it.
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
        """The text of `ids`. Raises EngineError for an invalid id."""
        try:
            return "".join(self._texts.get(i) or chr(i) for i in ids)
        except (ValueError, OverflowError) as error:
            raise EngineError("a token id is neither a code point nor a marker") from error


class ScriptedEngine:
    """Completions from a script.

    `script` is either a function from a request to the text that the policy would write next
    (`decode` gives the prompt's text), or a mapping from questions to alternative answers. In the
    mapping, the longest key that occurs in the prompt is used. Among its alternatives, those that
    match the most steps already in the prompt are candidates; the request's seed chooses one, or
    the first at temperature 0. Steps are found in the prompt by their text, so whatever the host
    appended in between does not matter.

    The text is cut as a policy's would be: after the first stop or end string, at `max_tokens`,
    or at the end of the context. A text that runs out ends the solution (`end`). Every token's
    log-prob is `logp`.
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
        """Token ids of `text`; `start` has no effect, because there is no BOS token."""
        return self._tokens.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids."""
        return self._tokens.decode(ids)

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Complete every request, in order. Raises EngineError for a question without a script."""
        return [self._complete(request) for request in requests]

    def clear(self) -> None:
        """Do nothing: nothing is kept between calls."""

    def close(self) -> None:
        """Do nothing: the engine holds no resources."""

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
    """How many of the first steps occur in `text`, in order."""
    at = 0
    for n, step in enumerate(steps):
        start = text.find(step, at)
        if start < 0:
            return n
        at = start + len(step)
    return len(steps)


def _choice(request: Request, n: int) -> int:
    if request.temperature == 0:
        return 0
    draw = uniforms(seed_words([request.seed]), np.zeros(1, dtype=np.int64))
    return int(draw[0] * n)


def _cut(text: str, request: Request) -> tuple[str, CompletionFinish]:
    """The text through its first stop or end string, and why it ends there."""
    groups: tuple[tuple[tuple[str, ...], CompletionFinish], ...] = (
        (request.end, "end"),
        (request.stop, "stop"),
    )
    cuts = [
        (at + len(string), finish)
        for strings, finish in groups
        for string in strings
        if (at := text.find(string)) >= 0
    ]
    # The sort is stable: if an end and a stop string end at the same place, the end string wins.
    cuts.sort(key=lambda cut: cut[0])
    if not cuts:
        return text, "end"
    return text[: cuts[0][0]], cuts[0][1]
