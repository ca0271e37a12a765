"""The step loop, free of any engine or executor.

A rollout is a generator: it yields what it needs next, a step to generate or a program to run,
and is sent the result. Who drives it decides what runs side by side (see `driver`); a rollout's
result depends on its own task alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

from scdpo.engines.base import Completion, Request
from scdpo.formats.base import Format
from scdpo.records import Finish, Step
from scdpo.sampling.config import Limits, Schedule
from scdpo.sandbox.base import Execution

SESSION_LOST = ("deadline", "memory", "died")


@dataclass(frozen=True, slots=True)
class Task:
    """What to roll out: a prompt, the steps it starts from, temperatures, a seed."""

    prompt_ids: tuple[int, ...]
    schedule: Schedule
    seed: int
    prefix: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a rollout ended: all its steps, the prefix included, and why it ended."""

    steps: tuple[Step, ...]
    finish: Finish


@dataclass(frozen=True, slots=True)
class Execute:
    """A program to run in the rollout's session."""

    code: str


Action = Request | Execute
Rollout = Generator[Action, Completion | Execution, Outcome]
Encode = Callable[[str], tuple[int, ...]]


@dataclass(slots=True)
class _State:
    ids: list[int]
    steps: list[Step]
    n_prefix: int
    sampled: int = 0
    new_steps: int = field(default=0)


def rollout(task: Task, form: Format, limits: Limits, encode: Encode) -> Rollout:
    """Generate a step, execute its code, append, raise the temperature, go on.

    `encode` tokenises what the host appends. The rollout ends when the policy ends it
    (`finished`), at a limit, or when its session is lost (`sandbox`).
    """
    ids = [*task.prompt_ids]
    for step in task.prefix:
        ids += [*step.token_ids, *step.host_ids]
    state = _State(ids=ids, steps=list(task.prefix), n_prefix=len(task.prefix))
    while True:
        room = limits.context - len(state.ids)
        if len(state.steps) >= limits.max_steps:
            return _outcome(state, "max_steps")
        if room <= 0:
            return _outcome(state, "context")
        request = _request(task, form, limits, state, room)
        completion = yield request
        assert isinstance(completion, Completion)
        step = _step(completion, request.temperature)
        _append(state, step, completion, form)
        if completion.finish == "end":
            return _outcome(state, "finished")
        if completion.finish == "length":
            full = len(completion.token_ids) >= limits.step_tokens
            return _outcome(state, "step_tokens" if full else "context")
        code = form.code(completion.text)
        if code is not None:
            execution = yield Execute(code)
            assert isinstance(execution, Execution)
            _append_output(state, execution, form, encode)
            if execution.cut in SESSION_LOST:
                return _outcome(state, "sandbox")


def _request(task: Task, form: Format, limits: Limits, state: _State, room: int) -> Request:
    return Request(
        prompt_ids=tuple(state.ids),
        stop=form.stop,
        end=form.end,
        temperature=task.schedule.temperature(state.new_steps),
        max_tokens=min(limits.step_tokens, room),
        seed=task.seed,
        position=state.sampled,
    )


def _step(completion: Completion, temperature: float) -> Step:
    return Step(
        kind="text",
        text=completion.text,
        token_ids=completion.token_ids,
        temperature=temperature,
        mean_logp=_mean(completion.logps),
    )


def _append(state: _State, step: Step, completion: Completion, form: Format) -> None:
    """Append a step; an end marker on its own joins the text step it follows."""
    state.ids += completion.token_ids
    state.sampled += len(completion.token_ids)
    if not completion.token_ids:
        return
    last = state.steps[-1] if len(state.steps) > state.n_prefix else None
    if completion.text in form.end and last is not None and last.kind == "text":
        state.steps[-1] = _joined(last, step)
        return
    if form.code(step.text) is not None and completion.finish == "stop":
        step = step.model_copy(update={"kind": "code"})
    state.steps.append(step)
    state.new_steps += 1


def _joined(step: Step, end: Step) -> Step:
    n, m = len(step.token_ids), len(end.token_ids)
    mean = ((step.mean_logp or 0.0) * n + (end.mean_logp or 0.0) * m) / (n + m)
    return step.model_copy(
        update={
            "text": step.text + end.text,
            "token_ids": step.token_ids + end.token_ids,
            "mean_logp": mean,
        }
    )


def _append_output(state: _State, execution: Execution, form: Format, encode: Encode) -> None:
    step = state.steps[-1]
    host_text = form.host_text(step.text, execution.output)
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
    return sum(values) / len(values) if values else None


def _outcome(state: _State, finish: Finish) -> Outcome:
    return Outcome(steps=tuple(state.steps), finish=finish)
