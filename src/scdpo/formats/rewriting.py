"""Solutions carried from one way of writing into a format: recorded text, or worked steps."""

from __future__ import annotations

import re
from collections.abc import Sequence

from scdpo.errors import InputError
from scdpo.formats.base import Format
from scdpo.formats.compose import compose
from scdpo.formats.cutting import without
from scdpo.formats.fenced import PYTHON, code_step_parts
from scdpo.formats.plain import Plain
from scdpo.records import Step, WorkedStep

_AS_TEXT = ("fenced", "plain")
"""Formats in which natural language stands as it is, so that a text can be taken verbatim."""
_PROGRAM = re.compile(
    r"^[ \t]*```python[ \t]*\n(?P<code>(?:.*?\n)??)[ \t]*```[ \t\r]*$"
    r"(?:\n(?P<after>(?:(?![ \t]*```)[^\n]*\n)*)"
    r"[ \t]*```output[ \t]*\n(?P<output>(?:.*?\n)??)[ \t]*```[ \t\r]*$)?",
    re.DOTALL | re.MULTILINE,
)
_PARAGRAPHS = re.compile(r"\n[ \t]*\n\s*")


def worked_steps(text: str) -> tuple[WorkedStep, ...]:
    """The steps of a solution in natural language, perhaps with Markdown fences for programs.

    A program whose output is not given has none (`output` None). What is said between a program
    and its output comes after the output. Text without programs is cut into its paragraphs or, if
    it has only one, into its lines.
    """
    text = text.strip()
    steps: list[WorkedStep] = []
    at, after = 0, ""
    for fence in _PROGRAM.finditer(text):
        output = fence["output"]
        steps.append(
            WorkedStep(
                text=_lines(after, text[at : fence.start()]),
                code=fence["code"].removesuffix("\n"),
                output=None if output is None else output.removesuffix("\n"),
            )
        )
        at, after = fence.end(), fence["after"] or ""
    rest = _lines(after, text[at:])
    parts = [rest] if steps else _parts(rest)
    return (*steps, *(WorkedStep(text=part) for part in parts if part.strip()))


def neutral(steps: Sequence[Step], format: Format) -> tuple[WorkedStep, ...]:
    """The steps of a solution in `blocks` or `fenced` without the marks of that format.

    The end marker is left out, and so is a step that consists of nothing else. What `fenced` has
    between a program and its output comes after the output.
    """
    worked: list[WorkedStep] = []
    after = ""
    for index, step in enumerate(steps):
        said, code, later = _apart(step, format)
        said, after = _lines(after, said) if after else said, later
        if code is not None:
            worked.append(WorkedStep(text=said, code=code, output=step.output))
        elif said.strip() or index < len(steps) - 1:
            worked.append(WorkedStep(text=said))
    return (*worked, WorkedStep(text=after)) if after else tuple(worked)


def _apart(step: Step, format: Format) -> tuple[str, str | None, str]:
    """What a step says, its program, and what it says between that and the output."""
    code = format.code(step.text) if step.kind == "code" else None
    if format.name == "blocks":
        return without(step.text, format.special_tokens) if code is None else "", code, ""
    parts = None if code is None else code_step_parts(step.text)
    if parts is None:
        return without(step.text, format.end).strip("\n"), None, ""
    before, after = (without(said, format.end) for said in (parts.before, parts.after))
    return before.strip("\n"), code, after.strip()


def _lines(*texts: str) -> str:
    """Texts below each other, without empty ones and without empty lines around them."""
    return "\n".join(text.strip("\n") for text in texts if text.strip())


def _parts(text: str) -> list[str]:
    paragraphs = [part.strip("\n") for part in _PARAGRAPHS.split(text) if part.strip()]
    if len(paragraphs) > 1:
        return paragraphs
    return [line for line in text.splitlines() if line.strip()]


def write_worked(steps: Sequence[WorkedStep], format: Format) -> tuple[Step, ...]:
    """A worked solution in a format, with its end marker.

    In `plain`, steps are joined by the step boundary. Raises InputError where the format cannot
    hold them: see `compose`; in `plain`, a program.
    """
    if not isinstance(format, Plain):
        return compose(steps, format)
    if any(step.code is not None for step in steps):
        raise InputError("code in a format without code")
    return format.parse(format.boundary.join(step.text for step in steps) + _end(format))


def write_text(text: str, format: Format) -> tuple[Step, ...]:
    """A solution in natural language in a format, with its end marker.

    In `fenced` and `plain` the text is taken as it stands. Raises InputError as `write_worked`
    does, and for a program whose output the text does not give.
    """
    if format.name not in _AS_TEXT:
        return write_worked(worked_steps(text), format)
    body = text.strip()
    if format.name == "plain" and PYTHON in body:
        raise InputError("code in a format without code")
    if any(mark in body for mark in format.end):
        raise InputError("an end marker inside the solution")
    steps = format.parse(body + _end(format))
    unread = (step.kind == "text" and PYTHON in step.text for step in steps)
    if any(unread) or any(step.kind == "code" and step.output is None for step in steps):
        raise InputError("a program without output")
    return steps


def rewrite(
    steps: Sequence[Step], source: Format, format: Format, *, finished: bool = True
) -> tuple[Step, ...]:
    """Recorded steps of format `source`, which has no end marker of its own, in another format.

    Where both have the same kind of format, every character stays and only the end marker is
    added. A solution that is not `finished` gets none. Raises InputError as `write_worked` does.
    """
    if source.name == format.name:
        return format.parse(source.render(tuple(steps)) + _end(format) * finished)
    written = write_worked(neutral(steps, source), format)
    if finished or not format.end:
        return written
    *before, last = written
    cut = last.model_copy(update={"text": last.text.removesuffix(format.end[0])})
    return (*before, cut) if cut.text else tuple(before)


def unwritten_reason(error: InputError) -> str:
    """Why a solution could not be written in a format, without the text that the error quotes."""
    message = str(error)
    if "reads as a marker" in message:
        return "a marker in the solution"
    return "a program without output" if "has no output" in message else message


def _end(format: Format) -> str:
    return format.end[0] if format.end else ""
