"""The step loop, independent of engine and executor.

A rollout is a generator: it yields what it needs next (a step to generate or a program to run)
and is sent the result. Its driver decides what runs side by side (see `driver`); a rollout's
result depends only on its own task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scdpo.engines.base import Completion, Request
from scdpo.errors import EngineError
from scdpo.formats.base import Format
from scdpo.records import Finish, Step, pack_logps
from scdpo.sandbox import SESSION_ENDING_CUTS, Execution


class SamplingSettings(BaseModel):
    """Base of the settings of sampling: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Schedule(SamplingSettings):
    """The temperature of each new step: `start`, then `increment` more per step, up to `cap`.

    The paper's schedule for branches is Schedule(1.1, 0.05, 1.4) (arXiv 2407.00782, Sec. 3.2). A
    constant schedule has increment 0.
    """

    start: float = Field(1.1, ge=0, description="Temperature of the first new step.")
    increment: float = Field(0.05, ge=0, description="Temperature increase per further step.")
    cap: float = Field(1.4, ge=0, description="Maximum temperature.")

    def __init__(
        self, start: float = 1.1, increment: float = 0.05, cap: float = 1.4, **unknown: object
    ) -> None:
        values: dict[str, object] = {"start": start, "increment": increment, "cap": cap}
        super().__init__(**values, **unknown)

    @model_validator(mode="after")
    def _cap_is_reachable(self) -> Schedule:
        if self.cap < self.start:
            raise ValueError(f"cap {self.cap} is below start {self.start}")
        return self

    def temperature(self, new_step: int) -> float:
        """The temperature of the new step with this 0-based index."""
        # Rounded, so that rows do not record 1.2000000000000002.
        return min(round(self.start + self.increment * new_step, 9), self.cap)


class Limits(SamplingSettings):
    """Where a rollout is cut."""

    max_steps: int = Field(
        64, ge=1, description="Maximum steps per solution, shared steps included."
    )
    step_tokens: int = Field(512, ge=1, description="Maximum tokens per step.")
    context: int = Field(3072, ge=16, description="Maximum tokens of prompt and solution together.")


@dataclass(frozen=True, slots=True)
class Task:
    """What to roll out: a prompt, temperatures, a seed, and the steps to start from."""

    prompt_ids: tuple[int, ...]
    schedule: Schedule
    seed: int
    prefix: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class RolloutResult:
    """All steps of a rollout, prefix included, and why it ended."""

    steps: tuple[Step, ...]
    finish: Finish


@dataclass(frozen=True, slots=True)
class Execute:
    """A program to run in the rollout's session."""

    code: str


Action = Request | Execute
Rollout = Generator[Action, Completion | Execution, RolloutResult]
Encode = Callable[[str], tuple[int, ...]]


@dataclass(slots=True)
class _State:
    ids: tuple[int, ...]
    steps: list[Step]
    n_prefix: int
    new_steps: int = 0
    sampled: int = 0


def rollout(task: Task, format: Format, limits: Limits, encode: Encode) -> Rollout:
    """Generate a step, execute its code, append the output, raise the temperature, repeat.

    `encode` tokenises what the host appends. The rollout ends when the policy ends it
    (`finished`), at a limit, or when its session is lost (`sandbox`). The steps of the prefix
    are never changed, so that both branches of a pair share them token by token. Raises
    EngineError for an empty completion that finished with `stop`, and for one with another number
    of log-probs than of tokens.
    """
    ids = task.prompt_ids + _ids_of(task.prefix, encode)
    state = _State(ids=ids, steps=list(task.prefix), n_prefix=len(task.prefix))
    while True:
        room = limits.context - len(state.ids)
        if len(state.steps) >= limits.max_steps:
            return RolloutResult(tuple(state.steps), "max_steps")
        if room <= 0:
            return RolloutResult(tuple(state.steps), "context")
        request = _request(task, format, limits, state, room)
        completion = yield request
        assert isinstance(completion, Completion)
        _append(state, completion, request.temperature, format)
        finish = _finish(state, completion, limits)
        if finish is not None:
            return RolloutResult(tuple(state.steps), finish)
        code = format.code(completion.text)
        if code is not None:
            execution = yield Execute(code)
            assert isinstance(execution, Execution)
            _append_output(state, execution, format, encode)
            if execution.cut in SESSION_ENDING_CUTS:
                return RolloutResult(tuple(state.steps), "sandbox")


def _ids_of(steps: Sequence[Step], encode: Encode) -> tuple[int, ...]:
    """Token ids of steps with their outputs; recorded steps, which lack ids, are encoded."""
    ids: list[int] = []
    for step in steps:
        ids += step.token_ids or encode(step.text)
        ids += step.host_ids or (encode(step.host_text) if step.host_text else ())
    return tuple(ids)


def _request(task: Task, format: Format, limits: Limits, state: _State, room: int) -> Request:
    return Request(
        prompt_ids=state.ids,
        stop=format.stop,
        end=format.end,
        temperature=task.schedule.temperature(state.new_steps),
        max_tokens=min(limits.step_tokens, room),
        seed=task.seed,
        position=state.sampled,
    )


def _append(state: _State, completion: Completion, temperature: float, format: Format) -> None:
    """Append a completion as a step, or to the last new text step if it belongs to it.

    Depending on the format, an end marker or a blank line is not a step of its own. A step's
    temperature is that of its first completion.
    """
    if not completion.token_ids:
        if completion.finish == "stop":
            raise EngineError("the engine returned an empty completion that ended at a stop string")
        return
    n_ids, n_logps = len(completion.token_ids), len(completion.logps)
    if n_logps not in (0, n_ids):
        raise EngineError(f"the engine returned {n_logps} log-probs for {n_ids} tokens")
    state.ids += completion.token_ids
    state.sampled += n_ids
    mean = _mean(completion.logps)
    step = Step(
        kind="text",
        text=completion.text,
        token_ids=completion.token_ids,
        temperature=temperature,
        mean_logp=mean,
        logps="" if mean is None else pack_logps(completion.logps),
    )
    last = state.steps[-1] if len(state.steps) > state.n_prefix else None
    if last is not None and last.kind == "text" and len(format.parse(last.text + step.text)) == 1:
        state.steps[-1] = _merge(last, step)
        return
    if completion.finish == "stop" and format.code(step.text) is not None:
        step = step.model_copy(update={"kind": "code"})
    state.steps.append(step)
    state.new_steps += 1


def _finish(state: _State, completion: Completion, limits: Limits) -> Finish | None:
    """Why the rollout ends with this completion; None if it continues."""
    if completion.finish == "end":
        return "finished"
    if completion.finish == "length":
        full = len(completion.token_ids) >= limits.step_tokens
        return "step_tokens" if full else "context"
    # Blank lines that join a step one at a time must not continue forever.
    return "step_tokens" if len(state.steps[-1].token_ids) > limits.step_tokens else None


def _merge(step: Step, more: Step) -> Step:
    n, m = len(step.token_ids), len(more.token_ids)
    known = step.mean_logp is not None and more.mean_logp is not None
    total = (step.mean_logp or 0.0) * n + (more.mean_logp or 0.0) * m
    return step.model_copy(
        update={
            "text": step.text + more.text,
            "token_ids": step.token_ids + more.token_ids,
            "mean_logp": total / (n + m) if known else None,
            "logps": pack_logps(step.token_logps + more.token_logps) if known else "",
        }
    )


def _append_output(state: _State, execution: Execution, format: Format, encode: Encode) -> None:
    step = state.steps[-1]
    host_text = format.host_text(step.text, execution.output)
    host_ids = encode(host_text)
    state.ids += host_ids
    state.steps[-1] = step.model_copy(
        update={
            "output": execution.output,
            "cut": execution.cut,
            "host_text": host_text,
            "host_ids": host_ids,
        }
    )


def _mean(values: Sequence[float]) -> float | None:
    """The mean, or None if there is none or a value is not finite, which JSON cannot hold."""
    if not values or not all(map(math.isfinite, values)):
        return None
    return math.fsum(values) / len(values)
