"""Question ids, and gold answers extracted from what the data sets write around them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]

_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_UNIT = re.compile(r"\s+\([^()]*\)\s*$")
_SENTENCE = re.compile(r"(?<=[.?!])\s+")
_ASKS = re.compile(r"\b(?:how|what|which|find|determine|solve|give)\b", re.IGNORECASE)
_FOR_SEVERAL = re.compile(
    r"\b(?:and|or|each|both|two|every|respective(?:ly)?)\b|&|_"
    r"|\b(?:number|speed|rate|price|cost|length|width|age|amount|value)s\b"
    r"|\b(?:integer|part|angle|piece|side|loan)s\b",
    re.IGNORECASE,
)


class RowError(ValueError):
    """A row lacks a question or an answer; the loader adds file and line."""


def problem_id(dataset: str, question: str) -> str:
    """The id of a question: the data set and a hash of the question's text.

    White space and commas are ignored, so that a question gets the same id from files that break
    or join its lines differently.
    """
    key = re.sub(r"[\s,，]+", "", unicodedata.normalize("NFKC", question))
    return f"{dataset}/{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def text_of(row: Row, what: str, *keys: str) -> str:
    """The first non-empty text or number under `keys`. Raises RowError: no `what`."""
    for key in keys:
        value = row.get(key)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            continue
        if text := number_text(value).strip():
            return text
    raise RowError(f"no {what} (looked for {', '.join(keys)}; the row has {', '.join(row)})")


def one_of_several(dataset: str, question: str) -> bool:
    """Whether the gold answer of a question is only one of several values that it asks for.

    Simuleq has such questions, and some that ask for one value. A question counts as asking for
    one value only if it has a single request in which nothing could ask for more. Otherwise
    solutions that correctly give the other values would be graded as wrong.
    """
    if dataset != "simuleq":
        return False
    sentences = _SENTENCE.split(question.strip())
    requests = [text for text in sentences if text.endswith("?") or _ASKS.search(text)]
    asks = _ASKS.search(requests[0]) if len(requests) == 1 else None
    return asks is None or _FOR_SEVERAL.search(requests[0], asks.start()) is not None


def number_text(value: str | int | float) -> str:
    """A number as people write it (43.0 becomes 43); texts are unchanged."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def without_thousands(answer: str) -> str:
    """`1,080` as `1080`."""
    return _THOUSANDS.sub("", answer)


def without_unit(answer: str) -> str:
    """ASDiv's `9 (apples)` as `9`, for each of several answers."""
    return "; ".join(_UNIT.sub("", part).strip() for part in answer.split(";"))


def hash_mark_answer(solution: str) -> str:
    """What follows the last `####` of a GSM8K solution, without thousands separators."""
    _, mark, answer = solution.rpartition("####")
    if not mark or not answer.strip():
        raise RowError("no answer (the solution has no '####' followed by an answer)")
    return without_thousands(answer.strip())


def boxed_answer(solution: str) -> str:
    r"""The content of the last `\boxed{…}`, with nested braces; for `\boxed 2`, the 2."""
    boxes = list(_BOX.finditer(solution))
    if not boxes:
        raise RowError(r"no answer (the solution has no \boxed)")
    start = boxes[-1].end()
    if not solution.startswith("{", start):
        answer = re.split(r"[$\s]", solution[start:], maxsplit=1)[0]
    else:
        answer = solution[start + 1 : _closing_brace(solution, start)]
    if not answer.strip():
        raise RowError(r"no answer (the last \boxed is empty)")
    return answer.strip()


def _closing_brace(text: str, opening: int) -> int:
    """The index of the brace that closes the one at `opening`; escaped braces do not count."""
    depth, at = 0, opening
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] in "{}":
            depth += 1 if text[at] == "{" else -1
            if depth == 0:
                return at
        at += 1
    raise RowError(r"no answer (the last \boxed is not closed)")
