"""The text of an answer taken apart into its parts, without computing anything."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from scdpo.grading.reading import lists, naming, sets
from scdpo.grading.reading.conditions import (
    CONSTANTS,
    WHOLE,
    WHOLE_WORDS,
    as_family,
    first_of,
    unconditional,
)
from scdpo.grading.reading.lists import ANY_COMMA, BOTH, CONJUNCTION
from scdpo.grading.reading.parts import (
    REAL,
    Interval,
    Items,
    Leaf,
    Named,
    Part,
    Read,
    Reals,
    rename,
)
from scdpo.grading.text.brackets import enclosed, split
from scdpo.grading.text.canonical import canonical
from scdpo.grading.text.vocabulary import word_class

MAX_DEPTH = 12
_TEXT = re.compile(r"\\(?:text(?:rm|bf|it|normal)?|mathrm|mbox)\s*\{([^{}]*)\}")
_TUPLE_OF = re.compile(
    r"\(\s*(?:\\[a-z]+|[A-Za-z])(?:\s*,\s*(?:\\[a-z]+|[A-Za-z]))+\s*\)\s*(=|∈)\s*"
)


@lru_cache(maxsize=8192)
def read(text: str) -> Part:
    """The parts of an answer; what cannot be taken apart is a leaf.

    Cached, since the attempts on a problem are compared with the same gold answer.
    """
    return _read(canonical(text), 0)


def _read(text: str, depth: int) -> Part:
    def deeper(piece: str) -> Part:
        return _read(piece, depth + 1)

    text = _bare(text)
    if depth > MAX_DEPTH or not text:
        return Leaf(text)
    if (parts := lists.labelled(text)) is not None:
        return Items("parts", tuple(map(deeper, parts)))
    whole = WHOLE.search(text) or WHOLE_WORDS.search(text)
    if whole is not None and whole.start() > 0:
        names = frozenset(re.findall(r"[A-Za-z]", re.sub(r"_\d", "", whole.group(1))))
        head, domain = text[: whole.start()], text[whole.start() :]
        first = REAL if re.search(r"⟦R⟧|∈ ?R", domain) else first_of(domain)
        return as_family(deeper(head), names, first)
    constant = CONSTANTS.search(text)
    if constant is not None and constant.start() > 0:
        name = constant.group(1) or constant.group(2)
        return as_family(deeper(text[: constant.start()]), frozenset((name,)), REAL)
    if not CONJUNCTION.search(text):
        text, _ = unconditional(text, deep=depth > 0)
    if meaning := word_class(text):
        return _SETS_IN_WORDS.get(meaning, Leaf(text))
    if "\\begin{cases}" in text:
        return Leaf(text)
    for rule in _RULES:
        found = rule(text, deeper)
        if found is not None:
            return found
    return Leaf(text)


_LISTED_PARAMETER = re.compile(
    r"\s*[,;(]\s*(?:where|for|with)?\s*([knm])\s*=\s*(\d{1,2}(?:\s*,\s*\d{1,2})+)\)?$"
)


def _enumerated(text: str, read: Read) -> Part | None:
    """`27 + 36k, k = 0, 1, 2` as the list of its values."""
    match = _LISTED_PARAMETER.search(text)
    if match is None or not match.start():
        return None
    numbers = re.findall(r"\d+", match.group(2))
    parts = [rename(read(text[: match.start()]), match.group(1), f"({n})") for n in numbers]
    values = (part.value if isinstance(part, Named) else part for part in parts)
    return Items("list", tuple(values))


def _of_tuples(text: str, read: Read) -> Part | None:
    """`(x, y) = (1, 2), (2, 1)` and `(x, y) \\in …`: the part after the names."""
    named = _TUPLE_OF.match(text)
    if named is None:
        return None
    rest = _TUPLE_OF.sub("", text)
    several = any(len(split(rest, pattern)) > 1 for pattern in (ANY_COMMA, BOTH, CONJUNCTION))
    return read(rest) if several or named.group(1) == "∈" else None


def _both_signs(text: str, read: Read) -> Part | None:
    """`\\pm (1, 2)` as its two tuples."""
    if text[0] != "±" or "," not in text or not enclosed(text[1:].strip()):
        return None
    plus = read(text[1:])
    if not isinstance(plus, Items) or not all(isinstance(item, Leaf) for item in plus.items):
        return None
    texts = [item.text for item in plus.items if isinstance(item, Leaf)]
    return Items("list", (plus, Items("tuple", tuple(Leaf(f"-({item})") for item in texts))))


def _bare(text: str) -> str:
    """`text` without dollar signs and without `\\text` around all of it."""
    text = text.strip()
    if text.startswith("$") and text.endswith("$") and text.count("$") == 2:
        text = text[1:-1].strip()
    elif not re.search(r"\$ ?\d", text):
        text = text.replace("$", "").strip()
    text = text.rstrip(".,;").strip()
    whole = _TEXT.fullmatch(text)
    return text if whole is None else whole.group(1).strip()


_SETS_IN_WORDS: dict[str, Part] = {
    "all": Reals((Interval(None, None),)),
    "none": Reals(()),
    "nonnegative": Reals((Interval("0", None, True),)),
    "positive": Reals((Interval("0", None),)),
    "nonpositive": Reals((Interval(None, "0", False, True),)),
    "negative": Reals((Interval(None, "0"),)),
}
_RULES: tuple[Callable[[str, Read], Part | None], ...] = (
    _enumerated,
    _of_tuples,
    _both_signs,
    lists.permuted,
    lists.alternatives,
    sets.excepted,
    sets.membership,
    lists.bracketed,
    sets.reals,
    lists.vector,
    lists.matrix,
    lists.sizes,
    lists.listed,
    sets.related,
    naming.equated,
)
"""The rules are tried in this order; what binds most loosely comes first."""
