"""Conditions after an answer: `k \\in \\mathbb{Z}`, `for all x > 0`, `(when x = 1)`."""

from __future__ import annotations

import re

from scdpo.grading.reading.parts import REAL, Family, Items, Leaf, Named, Part, Reals
from scdpo.grading.reading.sets import integers
from scdpo.grading.text.brackets import balanced

_EACH = r"(?:(?:all|any|every|each|some|an?|arbitrary) )*"
CONSTANTS = re.compile(
    rf"[\s,;(]+(?:(?:where|for|with)\s*{_EACH}(?:real |arbitrary |fixed )*"
    r"(?:constants?|parameters?|numbers?) \$?([A-Za-z](?:_\{?\d\}?)?)\$?"
    rf"|(?:where|with)\s*\$?([A-Za-z](?:_\{{?\d\}}?)?)\$? is {_EACH}(?:real |arbitrary |fixed )*"
    r"(?:constant|parameter|number))\s*[).]*\s*$"
)
"""An arbitrary constant that is named at the end: `for any real constant c`."""
_BEFORE = (
    r"(?:\s*[,;(|:]\s*(?:where|for|with|here|其中|当)?|\s+(?:where|for|with|here|其中|当)"
    r"|\s+(?=[A-Za-z] ?∈)|^)"
)
WHOLE = re.compile(
    rf"{_BEFORE}\s*(?:(?:\\forall|∀)\s*)?{_EACH}"
    rf"(?:positive |nonnegative |natural )?(?:integers?|numbers?)? ?\$?"
    r"(?<![A-Za-z\\])([A-Za-z](?:_\d)?(?:\s*,\s*[A-Za-z](?:_\d)?)*)\$?\s*"
    r"(?:∈\s*(?:⟦[ZNR]⟧|Z|N|R)(?:\^\{?[+*]?\}?|_\{?[+\d]*\}?)?"
    rf"|(?:is|are|being)? ?{_EACH}(?:positive |nonnegative )?integers?|(?:为|是)(?:任意)?正?整数"
    r"|∈\s*(?:整数|正整数|自然数))\s*[).]*\s*$"
)
"""The parameters of a family at its end: `, k ∈ ⟦Z⟧`, `where n is an integer`."""
WHOLE_WORDS = re.compile(
    rf"[\s,;(]+(?:where|for|with|其中)\s*{_EACH}(?:positive |nonnegative )?integers?\s+"
    r"\$?([A-Za-z])\$?\s*[).]*\s*$"
)
_CONDITION = re.compile(
    r"(?:[\s,;]+|(?=\())(?:(?:where|when|if|whenever|provided(?: that)?|such that|given that"
    r"|for (?:all|any|every|each|some)|for|at|attained|achieved|reached|其中|当|\\forall|∀)"
    r"(?![A-Za-z]).*"
    r"|\((?:when|where|if|for|since|as|because|with|at|which|the [a-z]+ [a-z]+)(?![A-Za-z]).*\)"
    r"|\(\$? ?(?:[-\d.\\a-z]+ ?[<≤] ?)?[A-Za-z](?:_\d)? ?(?:[<>≤≥≠]|∈)[^()]*\)"
    r"|\([^()]*(?:extraneous|reject|discard|ignor|invalid|舍去)[^()]*\))$",
    re.DOTALL,
)


def unconditional(text: str, deep: bool = False) -> tuple[str, str]:
    """A text without the condition after its answer (`for all x > 0`, `when x = 1`), and that
    condition, which is empty where there is none.

    From a part of an answer (`deep`) only a condition that holds for all values is removed: 5 at
    x = 2 and 3 at x = 1 are not 5 at x = 1 and 3 at x = 2.
    """
    condition = (_UNIVERSAL if deep else _CONDITION).search(text)
    if condition is not None and condition.start() > 0 and balanced(text[: condition.start()]):
        behind = condition.group().strip(" ,;")
        if ";" in behind:
            return text, ""  # other parts follow
        behind = behind[1:-1] if behind[0] + behind[-1] == "()" else behind
        behind = _KEYWORD.sub("", behind)
        return text[: condition.start()].strip().rstrip(",;"), behind
    return text, ""


_UNIVERSAL = re.compile(r"[\s,;]+for (?:all|any|every|each)(?![A-Za-z]).*$", re.DOTALL)
_KEYWORD = re.compile(r"^(?:[a-z]+ )*(?:where|when|if|at|for|with|in|all|any|every|each|其中|当) ?")


def first_of(domain: str) -> int | None:
    """The least whole number of a domain; None for all integers."""
    if re.search(r"⟦N⟧|(?<![A-Za-z])N(?![A-Za-z])|nonnegative|non-negative|≥ ?0|自然数", domain):
        return 1 if re.search(r"[*+]|_\{?[1+]", domain) else 0
    return 1 if re.search(r"\^ ?\{?\+|_\{?\+|positive|正整数", domain) else None


def as_family(part: Part, names: frozenset[str], first: int | None) -> Part:
    """A part with the parameters `names`, which run from `first`, as a family of values."""
    if isinstance(part, Reals) and part.name in names and first != REAL:
        return integers(part) or Family((part,), names, first)
    parts = part.items if isinstance(part, Items) and part.kind in ("list", "set") else (part,)
    if len({p.name for p in parts if isinstance(p, Named)}) > 1:
        return Family((part,), names, first)
    parts = tuple(p.value if isinstance(p, Named) else p for p in parts)
    flat: list[Part] = []
    for item in parts:
        flat.extend(
            item.items if isinstance(item, Items) and item.kind in ("list", "set") else (item,)
        )
    if all(isinstance(item, Leaf) for item in flat):
        return Family(tuple(flat), names, first)
    return Family((part,), names, first)
