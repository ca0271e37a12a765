"""Write format-free worked solutions in a solution format."""

from __future__ import annotations

from scdpo.errors import InputError
from scdpo.formats.base import Format
from scdpo.records import Step, WorkedStep


def compose(steps: tuple[WorkedStep, ...], form: Format) -> tuple[Step, ...]:
    """The steps of a worked solution as a policy would write them in `form`.

    The end marker stands at the end of the last step. In `plain` a computed step is one line
    with its value in place of the program. Raises InputError for a format that cannot be
    composed, and when a program's output is not given.
    """
    if form.name == "blocks":
        text = "".join(_blocks(step) for step in steps)
    elif form.name == "fenced":
        text = "".join(_fenced(step) for step in steps)
    elif form.name == "plain":
        text = "\n".join(_plain(step) for step in steps)
    else:
        raise InputError(f"format {form.name!r}: worked solutions cannot be written in it")
    end = form.end[0] if form.end else ""
    return form.parse(text + end)


def _output(step: WorkedStep) -> str:
    if step.output is None:
        raise InputError(f"worked step {step.text[:40]!r}: its program has no output")
    return step.output


def _blocks(step: WorkedStep) -> str:
    text = f"<|text|>{step.text}<|endofblock|>" if step.text else ""
    if step.code is None:
        return text
    output = _output(step) or "<empty_execution>"
    code = f"<|code|>{step.code}<|endofblock|>"
    return f"{text}{code}<|execution|>{output}<|endofblock|>"


def _fenced(step: WorkedStep) -> str:
    if step.code is None:
        return step.text
    text = f"{step.text}\n" if step.text else ""
    return f"{text}```python\n{step.code}\n```\n```output\n{_output(step)}\n```\n"


def _plain(step: WorkedStep) -> str:
    if step.code is None:
        return step.text
    return f"{step.text} = {_output(step)}"
