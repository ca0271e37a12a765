"""What a solution format knows: how text becomes steps and steps become text."""

from __future__ import annotations

from typing import Protocol

from scdpo.records import Step


class Format(Protocol):
    """A way to write solutions. Formats are stateless but for their system prompt."""

    name: str
    stop: tuple[str, ...]
    """Strings that end a step; the string belongs to the step's text."""
    end: tuple[str, ...]
    """Strings that end the solution; the string belongs to the last step's text."""
    special_tokens: tuple[str, ...]
    """Markers that a tokenizer should hold as single tokens, in a fixed order."""

    def prompt(self, question: str) -> str:
        """Everything up to where the policy starts to write."""
        ...

    def code(self, text: str) -> str | None:
        """The program in a step's text that the host has to execute, or None."""
        ...

    def host_text(self, text: str, output: str) -> str:
        """What the host appends after a code step's text, given what its execution printed."""
        ...

    def parse(self, text: str) -> tuple[Step, ...]:
        """Steps of a whole solution; `render(parse(text)) == text` for every text."""
        ...

    def render(self, steps: tuple[Step, ...]) -> str:
        """The solution's text, execution outputs included."""
        ...

    def plain(self, text: str) -> str:
        """A text without the format's markers, for answer extraction and for showing."""
        ...

    def finished(self, text: str) -> bool:
        """Whether a solution's text ends as a whole solution does."""
        ...
