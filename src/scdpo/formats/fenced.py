"""The code-integrated format with Markdown fences, as ToRA and Qwen2.5-Math write it.

    Natural language
    ```python
    program
    ```
    ```output
    what it printed
    ```
    Natural language with the answer

A step is natural language and one program, up to the opening of the output fence. There the
policy is stopped, and the host writes the rest of the fence. What follows the last output is the
last step. Policies sometimes write a sentence between the closed program and the output fence; it
is natural language of this step like the one before the program.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from scdpo.formats.cutting import (
    END,
    TEMPLATE,
    Template,
    checked_end,
    checked_template,
    cut_after,
    defused,
    filled,
    skip_marks,
    without,
)
from scdpo.records import Step

PYTHON = "```python"
OUTPUT = "```output"

_CLOSING = re.compile(r"^[ \t]*```[ \t\r]*$", re.MULTILINE)
_HOST_CLOSING = re.compile(r"\n```[ \t]*(?:\n|\Z)")
_FENCES = re.compile(
    r"```(?:python|output)\b.*?(?:^[ \t]*```[ \t\r]*$|\Z)", re.DOTALL | re.MULTILINE
)


class Fenced:
    """The `fenced` format.

    `template` is the prompt around `{question}` (or a function from the question to the prompt),
    preceded by `system` if given. Without `end` strings, only the model's own end token ends a
    solution.
    """

    def __init__(
        self,
        *,
        system: str | None = None,
        end: str | Sequence[str] = (END,),
        template: Template = TEMPLATE,
    ):
        self.name = "fenced"
        self.system = system
        self.template = checked_template(template)
        self.stop: tuple[str, ...] = (OUTPUT,)
        self.end = checked_end(end)
        self.special_tokens = self.end

    def prompt(self, question: str) -> str:
        """The system text and the template, filled with the question."""
        return filled(self.template, self.system, question)

    def code(self, text: str) -> str | None:
        """The last program before the output fence, or None.

        If a step has several programs, only the last one runs, as in ToRA's own loop.
        """
        parts = code_step_parts(text)
        return None if parts is None else parts.code

    def host_text(self, text: str, output: str) -> str:
        """The rest of the output fence, however far the policy wrote past its opening.

        Trailing line breaks of `output` are removed; its fences and end strings are defused.
        """
        shown = defused(output.rstrip("\n"), self.end).replace("```", "'''")
        line_break = "" if text.endswith("\n") else "\n"
        return f"{line_break}{shown}\n```\n"

    def parse(self, text: str) -> tuple[Step, ...]:
        """Steps of a solution; a code step's text ends right after "```output".

        An output fence without a program before it was made up by the policy: a text step.
        """
        steps: list[Step] = []
        at = 0
        while at < len(text):
            stop, mark = cut_after(text, at, (*self.stop, *self.end))
            if self.code(text[at:stop]) is not None:
                closing = _HOST_CLOSING.search(text, stop)
                host_stop = closing.end() if closing else len(text)
                steps.append(_code_step(text[at:stop], text[stop:host_stop]))
                stop = host_stop
            else:
                stop = skip_marks(text, stop, self.end) if mark else stop
                steps.append(Step(kind="text", text=text[at:stop]))
            at = stop
        return tuple(steps)

    def render(self, steps: tuple[Step, ...]) -> str:
        """The steps' texts and outputs, concatenated."""
        return "".join(step.text + step.host_text for step in steps)

    def plain(self, text: str) -> str:
        """The natural language alone, without programs, outputs and end strings."""
        pieces = (piece.strip() for piece in _FENCES.split(without(text, self.end)))
        return "\n".join(piece for piece in pieces if piece)

    def finished(self, text: str) -> bool:
        """Whether the text ends with an end string or, if there are none, in natural language."""
        if self.end:
            return text.endswith(self.end)
        steps = self.parse(text)
        return bool(steps) and steps[-1].kind == "text" and bool(self.plain(steps[-1].text))


class CodeStepParts(NamedTuple):
    """A code step in `fenced`: natural language, the program, and natural language between the
    closed program and the output fence."""

    before: str
    code: str
    after: str


def code_step_parts(text: str) -> CodeStepParts | None:
    """The parts of a code step's text, or None if it is none."""
    head, opened, _ = text.partition(OUTPUT)
    before, fence, body = head.rpartition(PYTHON)
    first_line, line_break, program = body.partition("\n")
    closing = _CLOSING.search(program)
    if not (opened and fence and line_break and closing) or first_line.strip():
        return None
    code = program[: closing.start()].removesuffix("\n")
    return CodeStepParts(before, code, program[closing.end() :])


def _code_step(text: str, host_text: str) -> Step:
    if not host_text:
        return Step(kind="code", text=text)
    output = _HOST_CLOSING.sub("", host_text).removeprefix("\n")
    return Step(kind="code", text=text, host_text=host_text, output=output)
