"""Where a text is cut into steps, and prompts that the plain-text formats share."""

from __future__ import annotations

from collections.abc import Sequence

from scdpo.errors import InputError

END = "<|endofmessage|>"
"""Ends a solution unless a format is told otherwise."""

TEMPLATE = "Question: {question}\n\nSolution:\n"
"""The prompt of the plain-text formats unless they are given another."""


def cut_after(text: str, start: int, marks: Sequence[str]) -> tuple[int, str]:
    """The first of `marks` at or after `start`: the index behind it, and the mark.

    Without any, the end of the text and an empty mark. Of two marks at one place the longer
    one counts.
    """
    found = [(text.find(mark, start), -len(mark), mark) for mark in marks if mark]
    found = [hit for hit in found if hit[0] >= 0]
    if not found:
        return len(text), ""
    at, _, mark = min(found)
    return at + len(mark), mark


def skip_marks(text: str, start: int, marks: Sequence[str]) -> int:
    """The index behind all of `marks` that stand directly at `start`, one after another."""
    while mark := next((m for m in marks if m and text.startswith(m, start)), ""):
        start += len(mark)
    return start


def without(text: str, marks: Sequence[str]) -> str:
    """The text with `marks` taken out."""
    for mark in marks:
        text = text.replace(mark, "")
    return text


def defused(text: str, marks: Sequence[str]) -> str:
    """The text with a space after the first character of every mark.

    Program output must not hold a marker: a tokenizer would make a control token of it.
    """
    for mark in sorted(marks, key=len, reverse=True):
        text = text.replace(mark, f"{mark[0]} {mark[1:]}")
    return text


def checked_template(template: str) -> str:
    """The template itself; InputError unless it holds `{question}` exactly once."""
    if template.count("{question}") != 1:
        raise InputError("prompt template: must hold {question} exactly once")
    return template


def checked_end(end: Sequence[str]) -> tuple[str, ...]:
    """The end strings as a tuple; InputError for an empty one (it would end every text)."""
    if isinstance(end, str) or not all(end):
        raise InputError("end strings: a list of strings, none of them empty")
    return tuple(end)


def filled(template: str, system: str | None, question: str) -> str:
    """A prompt: the system text, if any, an empty line, and the template with its question."""
    prompt = template.replace("{question}", question)
    return f"{system}\n\n{prompt}" if system else prompt
