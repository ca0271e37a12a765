"""Cutting a text into steps, and the prompts that the plain-text formats share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scdpo.errors import InputError

Template = str | Callable[[str], str]
"""A prompt around `{question}`, or a function that writes the prompt for a question."""

END = "<|endofmessage|>"
"""The default end string of a solution."""

TEMPLATE = "Question: {question}\n\nSolution:\n"
"""The default prompt of the plain-text formats."""


def cut_after(text: str, start: int, marks: Sequence[str]) -> tuple[int, str]:
    """The first of `marks` at or after `start`: the index after it, and the mark.

    If there is none: the length of the text and an empty mark. If two marks start at the same
    place, the longer one counts.
    """
    hits = [(text.find(mark, start), -len(mark), mark) for mark in marks if mark]
    hits = [hit for hit in hits if hit[0] >= 0]
    if not hits:
        return len(text), ""
    at, _, mark = min(hits)
    return at + len(mark), mark


def skip_marks(text: str, start: int, marks: Sequence[str]) -> int:
    """The index after the uninterrupted run of `marks` that begins at `start`."""
    while mark := next((m for m in marks if m and text.startswith(m, start)), ""):
        start += len(mark)
    return start


def without(text: str, marks: Sequence[str]) -> str:
    """The text with `marks` removed."""
    for mark in marks:
        text = text.replace(mark, "")
    return text


def defused(text: str, marks: Sequence[str]) -> str:
    """The text with a space after the first character of every mark.

    Program output must not contain a marker: a tokenizer would turn it into a control token.
    """
    for mark in sorted(marks, key=len, reverse=True):
        text = text.replace(mark, f"{mark[0]} {mark[1:]}")
    return text


def checked_template(template: Template) -> Template:
    """The template itself. Raises InputError unless it contains `{question}` exactly once."""
    if isinstance(template, str) and template.count("{question}") != 1:
        raise InputError("prompt template: must contain {question} exactly once")
    return template


def checked_end(end: str | Sequence[str]) -> tuple[str, ...]:
    """The end strings as a tuple. Raises InputError for an empty string (it would end any text)."""
    ends = (end,) if isinstance(end, str) else tuple(end)
    if not all(ends):
        raise InputError("end strings: a list of non-empty strings is expected")
    return ends


def filled(template: Template, system: str | None, question: str) -> str:
    """A prompt: the system text (if any) and an empty line, then the template, filled in."""
    prompt = template(question) if callable(template) else template.replace("{question}", question)
    return f"{system}\n\n{prompt}" if system else prompt
