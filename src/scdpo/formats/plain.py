"""Chain of thought: natural language, one step per line or paragraph.

MetaMath's solutions, for example, end with "The answer is: X".
"""

from __future__ import annotations

from collections.abc import Sequence

from scdpo.errors import InputError
from scdpo.formats.cutting import (
    END,
    TEMPLATE,
    Template,
    checked_end,
    checked_template,
    cut_after,
    filled,
    skip_marks,
    without,
)
from scdpo.records import Step

BOUNDARIES = ("\n", "\n\n")
"""The step boundaries: the end of a line or of a paragraph."""


class Plain:
    """The `plain` format.

    `boundary` ends a step: a line break or an empty line. Blank lines belong to the step before
    them (at the start, to the first step), and so does an end marker on its own.
    """

    def __init__(
        self,
        *,
        system: str | None = None,
        end: str | Sequence[str] = (END,),
        template: Template = TEMPLATE,
        boundary: str = "\n",
    ):
        if boundary not in BOUNDARIES:
            raise InputError(f"step boundary {boundary!r}: must be '\\n' or '\\n\\n'")
        self.name = "plain"
        self.system = system
        self.template = checked_template(template)
        self.boundary = boundary
        self.stop: tuple[str, ...] = (boundary,)
        self.end = checked_end(end)
        self.special_tokens = self.end

    def prompt(self, question: str) -> str:
        """The system text and the template, filled with the question."""
        return filled(self.template, self.system, question)

    def code(self, text: str) -> str | None:
        """None: a chain of thought has no programs."""
        return None

    def host_text(self, text: str, output: str) -> str:
        """Raises InputError: this format executes nothing."""
        raise InputError("format 'plain' has no code steps, so no execution output")

    def parse(self, text: str) -> tuple[Step, ...]:
        """One step for every line or paragraph that is not blank."""
        steps: list[Step] = []
        at = 0
        while at < len(text):
            stop = self._step_stop(text, at)
            steps.append(Step(kind="text", text=text[at:stop]))
            at = stop
        return tuple(steps)

    def _step_stop(self, text: str, at: int) -> int:
        stop, mark = cut_after(text, at, (*self.stop, *self.end))
        while mark == self.boundary and not text[at:stop].strip():
            stop, mark = cut_after(text, stop, (*self.stop, *self.end))
        if mark == self.boundary:
            stop = _after_blank_lines(text, stop)
        return skip_marks(text, stop, self.end) if mark else stop

    def render(self, steps: tuple[Step, ...]) -> str:
        """The steps' texts, concatenated."""
        return "".join(step.text + step.host_text for step in steps)

    def plain(self, text: str) -> str:
        """The text without end strings and surrounding white space."""
        return without(text, self.end).strip()

    def finished(self, text: str) -> bool:
        """Whether the text ends with an end string or, if there are none, is not blank."""
        return text.endswith(self.end) if self.end else bool(text.strip())


def _after_blank_lines(text: str, at: int) -> int:
    """The index after the blank lines that start at `at`."""
    while (line_end := text.find("\n", at)) >= 0 and not text[at:line_end].strip():
        at = line_end + 1
    return at
