"""The interface between the step loop and whatever computes completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, TypeGuard

from pydantic import BaseModel, ConfigDict, Field

CompletionFinish = Literal["stop", "end", "length"]
"""`stop`: a stop string was reached (and is part of the text). `end`: an end string or the
model's EOS was reached. `length`: `max_tokens` or the context ran out in the middle of a step."""


@dataclass(frozen=True, slots=True)
class Request:
    """One step to generate.

    `prompt_ids` are the token ids of everything so far. `stop` strings end the step, and `end`
    strings the whole solution; both stay in the text (an engine may also end at the model's own
    EOS). `temperature` 0 is greedy. `seed` belongs to the rollout, and `position` is the number
    of tokens the policy sampled in it before this step. Together they fix every random draw, so
    that a row depends on nothing else in its batch. `key` names the problem that the rollout
    belongs to, so that an engine of several servers can keep a problem's requests together; it
    changes nothing about what is drawn.
    """

    prompt_ids: tuple[int, ...]
    stop: tuple[str, ...]
    end: tuple[str, ...]
    temperature: float
    max_tokens: int
    seed: int
    position: int = 0
    key: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine wrote: `text` is exactly `token_ids` decoded, markers included.

    `logps` are the log-probs of the tokens under the policy at temperature 1 (nats); none if the
    engine was told to do without them.
    """

    token_ids: tuple[int, ...]
    text: str
    logps: tuple[float, ...]
    finish: CompletionFinish


class EngineProtocol(Protocol):
    """Completions from one policy. Any object with these members is an engine."""

    name: str
    """The policy name that rows record."""
    max_context: int
    """Maximum tokens of prompt and completion together."""

    def encode(self, text: str, *, start: bool = False) -> tuple[int, ...]:
        """Token ids of `text`, with special-token markers recognised.

        `start` prepends whatever the tokenizer begins every text with (such as BOS).
        """
        ...

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Complete every request, in order. Raises EngineError."""
        ...

    def clear(self) -> None:
        """Discard cached state, so that later calls do not depend on earlier ones."""
        ...

    def close(self) -> None:
        """Release what the engine holds; closing it again does nothing."""
        ...


class FreeRunningEngine(EngineProtocol, Protocol):
    """An engine that also takes requests one by one, whenever they come.

    If `free_running` is true, rollouts do not wait for each other: each asks for its next step as
    soon as it can.
    """

    free_running: bool

    async def complete(self, request: Request) -> Completion:
        """Complete a request beside those that are running. Cancelling the call ends the request.

        Raises EngineError.
        """
        ...


def runs_freely(engine: EngineProtocol) -> TypeGuard[FreeRunningEngine]:
    """Whether rollouts should ask this engine one by one (`complete`) and not in batches."""
    return bool(getattr(engine, "free_running", False))


class EngineConfig(BaseModel):
    """Settings of an engine; each kind of engine has a subclass (`engines.registry`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    only_speed: ClassVar[frozenset[str]] = frozenset()
    """Settings that shape no rows, and may therefore change during a run."""

    name: str = Field("local", description="The kind of engine.")
