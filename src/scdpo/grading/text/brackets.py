"""Brackets in texts: where they close, and what no bracket encloses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

_OPENING, _CLOSING = "([{⦃⟨", ")]}⦄⟩"


def balanced(text: str) -> bool:
    """Whether every bracket is opened and closed."""
    depth = 0
    for character in text:
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth < 0:
            return False
    return depth == 0


def levels(text: str) -> Iterator[tuple[int, str, int]]:
    """Each index with its character and bracket depth; environments count as brackets."""
    depth = at = 0
    while at < len(text):
        if text.startswith("\\begin{", at):
            depth += 1
        character = text[at]
        if character in _CLOSING:
            depth -= 1
        yield at, character, depth
        if character in _OPENING:
            depth += 1
        if text.startswith("\\end{", at):
            depth -= 1
        at += 1


def split(text: str, pattern: re.Pattern[str]) -> list[str]:
    """`text` split at the matches of `pattern` outside all brackets."""
    pieces, start = [], 0
    for match in pattern.finditer(outside(text)):
        pieces.append(text[start : match.start()])
        start = match.end()
    return [*pieces, text[start:]]


_BRACKET = re.compile(rf"[{re.escape(_OPENING + _CLOSING)}]")


@lru_cache(maxsize=4096)
def outside(text: str) -> str:
    """`text` with zero characters in place of what brackets enclose; an answer is split often."""
    if _BRACKET.search(text) is None:
        return text
    return "".join(c if depth == 0 else "\x00" for _, c, depth in levels(text))


def enclosed(text: str) -> bool:
    """Whether the first bracket closes at the last character."""
    if len(text) < 2 or text[0] not in _OPENING or text[-1] not in _CLOSING:
        return False
    return all(depth > 0 for at, _, depth in levels(text) if 0 < at < len(text) - 1)


def closing(text: str, start: int) -> int | None:
    """The index of the bracket that closes the one at `start`; None where none does."""
    depth = 0
    for index in range(start, len(text)):
        depth += (text[index] in _OPENING) - (text[index] in _CLOSING)
        if depth == 0:
            return index
    return None
