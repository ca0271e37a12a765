"""Write format-free worked solutions in a solution format."""

from __future__ import annotations

from collections.abc import Sequence

from scdpo.errors import InputError
from scdpo.formats.base import Format
from scdpo.formats.blocks import CODE, END_OF_BLOCK, TEXT
from scdpo.formats.fenced import OUTPUT, PYTHON
from scdpo.records import Step, WorkedStep

_Shape = list[tuple[str, str | None, str | None]]
"""Kind, program and output of each step."""

_SAID: tuple[str, None, None] = ("text", None, None)


def compose(steps: Sequence[WorkedStep], format: Format) -> tuple[Step, ...]:
    """The steps of a worked solution as a policy would write them in `format`.

    The end marker comes last. In `plain`, a computed step is one line with its value in place of
    the program. Raises InputError if the format is not `blocks`, `fenced` or `plain`, if a
    program has no output, or if the format would parse the result differently (because a step
    contains a marker or, in `plain`, a step boundary).
    """
    end = format.end[0] if format.end else ""
    if format.name == "blocks":
        text, expected = "".join(_blocks(step, format) for step in steps), _shape(steps)
    elif format.name == "fenced":
        text, expected = _fenced(steps, format), _shape(steps, merge_text=True)
    elif format.name == "plain":
        text, expected = format.stop[0].join(map(_plain, steps)), [_SAID] * len(steps)
    else:
        raise InputError(f"format {format.name!r}: cannot write worked solutions in it")
    if end and expected[-1:] != [_SAID]:
        expected.append(_SAID)
    composed = format.parse(text + end)
    if [(step.kind, format.code(step.text), step.output) for step in composed] != expected:
        raise InputError(
            f"worked solution {text[:40]!r}…: contains what format {format.name!r} reads as a "
            "marker or as the end of a step"
        )
    return composed


def _shape(steps: Sequence[WorkedStep], *, merge_text: bool = False) -> _Shape:
    """What the format should parse; with `merge_text`, text joins the program after it."""
    shape: _Shape = []
    for index, step in enumerate(steps):
        last_word = index == len(steps) - 1 and step.code is None
        if last_word or (step.text and not merge_text):
            shape.append(_SAID)
        if step.code is not None:
            shape.append(("code", step.code, _output(step)))
    return shape


def _output(step: WorkedStep) -> str:
    if step.output is None:
        raise InputError(f"worked step {step.text[:40]!r}: its program has no output")
    return step.output.rstrip("\n")


def _blocks(step: WorkedStep, format: Format) -> str:
    text = f"{TEXT}{step.text}{END_OF_BLOCK}" if step.text else ""
    if step.code is None:
        return text
    code = f"{CODE}{step.code}{END_OF_BLOCK}"
    return text + code + format.host_text(code, _output(step))


def _fenced(steps: Sequence[WorkedStep], format: Format) -> str:
    written: list[str] = []
    for step in steps:
        text = f"{step.text}\n" if step.text else ""
        if step.code is not None:
            text = f"{text}{PYTHON}\n{step.code}\n```\n{OUTPUT}"
            text += format.host_text(text, _output(step))
        written.append(text)
    whole = "".join(written)
    return whole.removesuffix("\n") if steps and steps[-1].code is None else whole


def _plain(step: WorkedStep) -> str:
    if step.code is None:
        return step.text
    return f"{step.text} = {_output(step)}" if step.text else _output(step)
