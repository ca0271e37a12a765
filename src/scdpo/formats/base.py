"""The interface of a solution format: how text becomes steps and steps become text."""

from __future__ import annotations

from typing import Protocol

from scdpo.records import Step


class Format(Protocol):
    """A way to write solutions. Apart from its options, a format holds no state."""

    name: str
    stop: tuple[str, ...]
    """Strings that end a step; they are part of the step's text."""
    end: tuple[str, ...]
    """Strings that end the solution; they are part of the last step's text."""
    special_tokens: tuple[str, ...]
    """Markers that a tokenizer should encode as single tokens, in a fixed order."""

    def prompt(self, question: str) -> str:
        """The text up to where the policy starts to write."""
        ...

    def code(self, text: str) -> str | None:
        """The program in a step's text that the host must execute, or None."""
        ...

    def host_text(self, text: str, output: str) -> str:
        """What the host appends after a code step's text, given its execution output."""
        ...

    def parse(self, text: str) -> tuple[Step, ...]:
        """Steps of a whole solution; `render(parse(text)) == text` for every text."""
        ...

    def render(self, steps: tuple[Step, ...]) -> str:
        """The solution's text, execution outputs included."""
        ...

    def plain(self, text: str) -> str:
        """A text without the format's markers, for answer extraction and display."""
        ...

    def finished(self, text: str) -> bool:
        """Whether a text ends as a complete solution does."""
        ...
