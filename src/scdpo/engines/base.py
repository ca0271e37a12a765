"""The seam between the step loop and whatever computes completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

CompletionFinish = Literal["stop", "end", "length"]
"""`stop`: a stop string was reached (and is part of the text). `end`: the end-of-solution
token. `length`: `max_tokens` or the context was used up, which is not the end of a step."""


@dataclass(frozen=True, slots=True)
class Request:
    """One step to generate.

    `prompt_ids` is everything so far, as token ids. `stop` strings end the step and stay in
    its text. `end` strings end the whole solution and stay in its text too (an engine may also
    end at the model's own EOS). `temperature` 0 is greedy. `seed` is the rollout's own; with
    `position`, the number of tokens the policy sampled in this rollout before this step, it fixes
    every random draw, so that a row depends on nothing else in its batch.
    """

    prompt_ids: tuple[int, ...]
    stop: tuple[str, ...]
    end: tuple[str, ...]
    temperature: float
    max_tokens: int
    seed: int
    position: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine wrote: `text` decodes `token_ids` exactly, markers included.

    `logps` are the log-probs of the tokens under the policy at temperature 1 (nats).
    """

    token_ids: tuple[int, ...]
    text: str
    logps: tuple[float, ...]
    finish: CompletionFinish


class EngineProtocol(Protocol):
    """Completions from one policy. Any object with these members is an engine."""

    name: str
    """What rows record as their policy."""
    max_context: int
    """Most tokens of prompt and completion together."""

    def encode(self, text: str, *, start: bool = False) -> tuple[int, ...]:
        """Token ids of `text`, special-token markers recognised.

        `start` puts before them what the tokenizer begins every text with (such as BOS).
        """
        ...

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Complete every request, in order. Raises EngineError."""
        ...

    def clear(self) -> None:
        """Forget what earlier calls left behind, so that later ones depend on none of them."""
        ...

    def close(self) -> None:
        """Give back what the engine holds; later calls do nothing."""
        ...


class EngineConfig(BaseModel):
    """Settings of an engine; each kind of engine has a subclass (`engines.registry`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("local", description="The kind of engine.")
