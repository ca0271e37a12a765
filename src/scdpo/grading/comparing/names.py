"""The names of values, in the form in which they are compared."""

from __future__ import annotations

import re

from scdpo.grading.quantities.units import is_unit
from scdpo.grading.reading.parts import Leaf, Named, Part, rename


def key(name: str) -> str:
    """A name as it is compared: without fonts, spaces and braces, and long names in lower case."""
    name = re.sub(r"\\(?:text|mathrm|mathbf|operatorname|mathit)\s*\{([^{}]*)\}", r"\1", name)
    name = re.sub(r"^m?\\angle", "", name)
    name = re.sub(r"[\s{}\\$]", "", name)
    if name.isupper() and name.isalpha() and len(name) in (2, 3):
        name = min(name, name[::-1])  # the angle CAB is BAC, the segment BA is AB
    name = re.sub(r"\([a-z]\)$", "", name)
    return name if len(name) <= 4 else name.lower()


def wordy(name: str) -> bool:
    """Whether a name consists of words, which an answer need not repeat."""
    plain = key(name)
    if plain.isascii() and plain.isupper():
        return False  # points: ABC
    chinese = any("\u4e00" <= character <= "\u9fff" for character in plain)
    return chinese or len(re.sub(r"_.*|\(.*", "", plain)) > 2


def base(name: str) -> str:
    """A name without its number, as solutions are called x_1, x_2."""
    return re.sub(r"_\{?[\d,]+\}?$", "", name.strip())


_INDEXED = re.compile(r"([A-Za-z]+)_\{?([a-z])((?: ?[-+] ?\d)?)\}?")
_APPLIED = re.compile(r"([^()]+)\(\s*([A-Za-z])\s*\)")


def same_argument(gold: Named, answer: Named) -> Named:
    """`f(x) = x + 1` for a gold `f(n) = n + 1`, and `a_k = 2^k` for `a_n = 2^n`: the name of the
    argument or of the index does not matter."""
    ours, theirs = (_INDEXED.fullmatch(part.name.strip()) for part in (gold, answer))
    if ours is not None and theirs is not None and ours.group(1) == theirs.group(1):
        return _same_index(gold, answer, ours, theirs)
    for indexed, part in ((ours, answer), (theirs, gold)):
        applied = _APPLIED.fullmatch(part.name.strip())
        if indexed is not None and applied is not None and applied.group(1) == indexed.group(1):
            if indexed.group(3):
                continue
            old, new = applied.group(2), indexed.group(2)
            if part is gold:
                old, new = new, old
            return Named(gold.name, rename(answer.value, old, new))
    first, second = _APPLIED.fullmatch(gold.name.strip()), _APPLIED.fullmatch(answer.name.strip())
    if first is None or second is None:
        return answer
    return Named(answer.name, rename(answer.value, second.group(2), first.group(2)))


def _same_index(gold: Named, answer: Named, ours: re.Match[str], theirs: re.Match[str]) -> Named:
    """`a_{n+1} = 2^n` and `a_k = 2^{k-1}` for a gold answer `a_n = 2^{n-1}`."""
    old, new = theirs.group(2), ours.group(2)
    if old != new and rename(answer.value, new, "(0)") != answer.value:
        return answer  # a_k = n does not speak of the index
    shift = int(ours.group(3).replace(" ", "") or 0) - int(theirs.group(3).replace(" ", "") or 0)
    return Named(gold.name, rename(answer.value, old, f"({new}{shift:+d})" if shift else new))


def recursive(part: Named) -> bool:
    """Whether a sequence is given by its own members: `a_{n+1} = 2a_n`."""
    name = _INDEXED.fullmatch(part.name.strip())
    if name is None or not isinstance(part.value, Leaf):
        return False
    return f"{name.group(1)}_" in part.value.text


def nouns(part: Part) -> set[str]:
    """The words for the things that a leaf counts, without units of measure."""
    if isinstance(part, Named) and wordy(part.name):
        return nouns(Leaf(f"{part.name} ")) | nouns(part.value)
    if not isinstance(part, Leaf):
        return set()
    text = re.sub(r"\\[A-Za-z]+", " ", part.text)
    words = re.findall(r"[A-Za-z]{3,}", text)
    english = {word.lower().removesuffix("s") for word in words if not is_unit(word)}
    chinese = {c for run in re.findall("[\u4e00-\u9fff]+", text) if not is_unit(run) for c in run}
    return (english - {"ball", "and"}) | chinese
