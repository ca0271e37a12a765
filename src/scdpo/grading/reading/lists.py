"""Lists, tuples, brackets, labelled parts, vectors and matrices."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from scdpo.grading.quantities.quantity import quantity
from scdpo.grading.reading.conditions import WHOLE, as_family, first_of
from scdpo.grading.reading.naming import NAME
from scdpo.grading.reading.parts import (
    Equation,
    Family,
    Interval,
    Items,
    Leaf,
    Named,
    Part,
    Read,
    Reals,
)
from scdpo.grading.reading.sets import MAX_PARTS, built, intersection, interval, union
from scdpo.grading.text.brackets import enclosed, split
from scdpo.grading.text.normalise import clean

_LABELS = (
    [f"({c})" for c in "abcdefgh"],
    [f"({c})" for c in "123456789"],
    ["(i)", "(ii)", "(iii)", "(iv)", "(v)"],
    ["(I)", "(II)", "(III)", "(IV)", "(V)"],
    [f"({c})" for c in "ABCDEFGH"],
    list("①②③④⑤⑥"),
    [f"{c})" for c in "abcdefgh"],
)


def labelled(text: str) -> list[str] | None:
    """The parts of `(a) …; (b) …`, or None."""
    for labels in _LABELS:
        if not text.startswith(labels[0]) or not _labels(text, labels):
            continue
        parts, rest = [], text[len(labels[0]) :]
        for label in labels[1:]:
            before, found, after = rest.partition(label)
            if not found:
                break
            parts.append(before)
            rest = after
        parts = [part.strip(" ,;:.") for part in (*parts, rest)]
        parts = [re.sub(r"\s*(?:,|;)?\s*(?:and|和)\s*$", "", part) for part in parts]
        if len(parts) > 1 and all(parts):
            return parts
    return None


CONJUNCTION = re.compile(
    r"\s*(?:,\s*|;\s*)?(?:(?<![A-Za-z])(?:or|Or)(?![A-Za-z])|(?<=\d)or(?=[A-Za-z])|或者?)\s*"
)
BOTH = re.compile(
    r"\s*(?:,\s*|;\s*)?(?:(?<![A-Za-z])and(?![A-Za-z])|(?<![\u4e00-\u9fff])(?:和|且|与)"
    r"|(?<=[\d\w})])(?:和|且|与))\s*"
)
_COMMA = re.compile(r"\s*[;,](?!\d{3}(?!\d))\s*|\s*[;,]\s+|\s*⏎\s*")
ANY_COMMA = re.compile(r"\s*[;,]\s*|\s*⏎\s*")
_SPACED = re.compile(r"-?\d+(?:\.\d+)?(?: -?\d+(?:\.\d+)?)+")
_SEMICOLON = re.compile(r"\s*;\s*")
_GROUPED = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")


def flattened(parts: Sequence[Part]) -> Part:
    """A list of parts without inner lists, in which `x = 1, 2` gives the name to all values."""
    flat: list[Part] = []
    for part in parts:
        name = part.name if isinstance(part, Named) else ""
        inner = part.value if isinstance(part, Named) else part
        if isinstance(inner, Items) and inner.kind == "list":
            flat.extend(Named(name, item) if name else item for item in inner.items)
        else:
            flat.append(part)
    if isinstance(flat[0], Named) and any(isinstance(part, Leaf) for part in flat[1:]):
        name = flat[0].name
        flat = [Named(name, part) if isinstance(part, Leaf) else part for part in flat]
    families = [part for part in flat if isinstance(part, Family)]
    if families and all(isinstance(part, Family | Leaf) for part in flat):
        parameters = frozenset().union(*(family.parameters for family in families))
        leaves = [p for part in flat for p in (part.parts if isinstance(part, Family) else (part,))]
        return Family(tuple(leaves), parameters, families[0].first)
    return Items("list", tuple(flat))


def points_of(parts: Sequence[Part]) -> Part | None:
    """`x = 2, y = 1 or x = 1, y = 2` as a list of tuples, in alphabetical order of the names."""
    points: list[Part] = []
    for part in parts:
        named = (
            [item for item in part.items if isinstance(item, Named)]
            if isinstance(part, Items)
            else []
        )
        if len(named) < 2 or not isinstance(part, Items) or len(named) < len(part.items):
            return None
        if len({item.name for item in named}) < len(named):
            return None
        ordered = sorted(named, key=lambda item: item.name)
        points.append(Items("tuple", tuple(item.value for item in ordered)))
    return Items("list", tuple(points))


def alternatives(text: str, read: Read) -> Part | None:
    """`A or B`: a list, or a single set of reals if all parts are sets of reals."""
    text = text if "mod" in text else re.sub(r"\\equiv(?![A-Za-z])|≡", "=", text)
    congruence = _MOD.match(text)
    if congruence is not None:
        left, rest, modulus = (piece.strip() for piece in congruence.groups())
        pieces = [p for piece in split(rest, CONJUNCTION) for p in split(piece, ANY_COMMA)]
        values = [value for piece in pieces for p in split(piece, BOTH) if (value := p.strip())]
        negated = re.search(r"\\not$", left)
        if negated and modulus.isdigit() and 1 < int(modulus) <= 60:
            left, taken = left[: negated.start()].strip(), {value.lstrip("- ") for value in values}
            values = [str(v) for v in range(int(modulus)) if str(v) not in taken]
        if NAME.fullmatch(left) and modulus and "mod" not in rest:
            leaves = tuple(Leaf(f"({value})+({modulus})*k") for value in values)
            return Family(leaves, frozenset("k"))
    pieces = split(text, CONJUNCTION)
    if not 2 <= len(pieces) <= MAX_PARTS or not all(piece.strip() for piece in pieces):
        return None
    parts = [read(piece) for piece in pieces]
    reals = [part for part in parts if isinstance(part, Reals)]
    if len(reals) == len(parts):
        return union(reals)
    points = [p for p in parts if isinstance(p, Named) and isinstance(p.value, Leaf)]
    if reals and len(reals) + len(points) == len(parts):  # k < -2 or k = 1
        texts = [p.value.text for p in points if isinstance(p.value, Leaf)]
        return union([*reals, Reals(tuple(Interval(t, t, True, True) for t in texts))])
    listed = points_of(parts) or flattened(parts)
    # `2 or 7` are two values, unlike the interval from 2 to 7.
    return Items("set", listed.items) if isinstance(listed, Items) else listed


_MOD = re.compile(
    r"^(.*?)(?:\\equiv|≡)(.*?)\(?\s*(?:\\pmod\s*\{?|\\mathrm\s*\{\s*mod\s*\}\s*|\\bmod\s*"
    r"|\\mod\s*\{?"
    r"|\\operatorname\{mod\}\s*|mod\s*)([^{}()]+)\}?\s*\)?$"
)


def _conditioned(part: Part, condition: Reals) -> Part:
    """A formula with a condition on its variable; a family if the variable counts from a number."""
    counts = condition.name in ("k", "n", "m") and len(condition.intervals) == 1
    low = condition.intervals[0].low if counts else None
    if low is None or not isinstance(part, Leaf) or not re.fullmatch(r"\d{1,3}", low):
        return part
    first = int(low) + (not condition.intervals[0].low_closed)
    return Family((part,), frozenset((condition.name,)), first)


_SIZES = re.compile(r"\s*(?:\\times(?![A-Za-z])|×|\*|(?<![A-Za-z])(?:by|x|X)(?![A-Za-z])|乘)\s*")


def sizes(text: str, _read: Read) -> Part | None:
    """`12 cm by 5 cm`: lengths, widths and heights in any order."""
    pieces = [piece.strip() for piece in split(text, _SIZES)]
    if not 2 <= len(pieces) <= 3 or not all(re.match(r"\d", piece) for piece in pieces):
        return None
    known = [quantity(clean(piece)) for piece in pieces]
    measured = [size for size in known if size is not None and size.unit.dimensions]
    if None in known or len(measured) < 2:
        return None
    return Items("set", tuple(Leaf(piece) for piece in pieces))


def listed(text: str, read: Read) -> Part | None:
    """`a, b and c`."""
    if _GROUPED.fullmatch(text):
        return None
    if _SPACED.fullmatch(text):
        return Items("row", tuple(Leaf(item) for item in text.split()))
    pattern = _COMMA if re.search(r"\d,\d{3}(?!\d)", text) else ANY_COMMA
    groups = [piece for piece in split(text, _SEMICOLON) if piece.strip()]
    if len(groups) > 1 and points_of(sides := [read(g) for g in groups]):
        return points_of(sides)
    pieces = [p for piece in split(text, pattern) for p in split(piece, BOTH)]
    pieces = [piece.strip() for piece in pieces]
    if len(pieces) < 2 or len(pieces) > MAX_PARTS or not all(pieces):
        return None
    parts = [read(piece) for piece in pieces]
    reals = [part for part in parts if isinstance(part, Reals)]
    if len(reals) == len(parts) and len({part.name for part in reals}) == 1 and reals[0].name:
        return intersection(reals)
    if reals and isinstance(parts[0], Named | Equation | Leaf) and len(reals) == len(parts) - 1:
        behind = {part.name for part in reals}
        if all(behind) and any(
            re.search(rf"(?<![A-Za-z\\]){re.escape(n)}", pieces[0]) for n in behind
        ):
            # The rest is a condition: y = √x, x > 0; 2k + 1, k ≥ 0.
            return _conditioned(parts[0], reals[0]) if len(reals) == 1 else parts[0]
    return flattened(parts)


_PERMUTED = re.compile(
    r"(\(.+\)),? ?(?:\\text ?\{ ?)?(?:and|with|or|as well as) (?:all )?(?:of )?"
    r"(?:its|their|the|any)? ?(cyclic )?(?:permutations|orders|rearrangements)"
    r"(?: of (?:it|this|them))? ?\}?|(\(.+\))(?:及|和)其(?:所有)?(循环)?排列"
)


def _labels(text: str, labels: Sequence[str]) -> bool:
    """Whether the first labels are labels rather than operands: no operator follows them."""
    for label in labels[:2]:
        at = text.find(label)
        if at < 0 or text[at + len(label) :][:1] in ("", *"+-*/^=<>≤≥)_,!"):
            return False
    return True


def permuted(text: str, read: Read) -> Part | None:
    """`(1, 1, 2) and its permutations` as the list of them."""
    match = _PERMUTED.fullmatch(text)
    if match is None:
        return None
    base = read(match.group(1) or match.group(3))
    if not isinstance(base, Items) or base.kind != "tuple" or len(base.items) > 4:
        return None
    size = len(base.items)
    if match.group(2) or match.group(4):
        orders = [base.items[at:] + base.items[:at] for at in range(size)]
    else:
        orders = list(itertools.permutations(base.items))
    return Items("list", tuple(Items("tuple", order) for order in dict.fromkeys(orders)))


_BUILDER = re.compile(r"^\s*([A-Za-z\\]+(?:\s*∈\s*⟦[RZ]⟧)?)\s*(?:\||:)\s*(.+)$", re.DOTALL)
_POINT = re.compile(r"[A-Z](?:_\{?\d\}?|')? ?(?=\()")
_COMPOUND = re.compile(r"[<>≤≥≠=∪]| or | and ")


def bracketed(text: str, read: Read) -> Part | None:
    """Tuples, sets, set-builders, intervals and lists in brackets; `A(1, 2)` as a named tuple."""
    if re.fullmatch(r"\(.*\)\s*\^\s*\{?\s*(?:T|\\top|\\intercal)\s*\}?", text, re.DOTALL):
        text = text[: text.rindex("^")].strip()
    point = _POINT.match(text)
    if point is not None and enclosed(text[point.end() :]) and "," in text:
        return Named(point.group().strip(), read(text[point.end() :]))
    if not enclosed(text):
        return None
    opening, inside, closing = text[0], text[1:-1].strip(), text[-1]
    if opening in "([" and closing in ")]":
        ends = split(inside, ANY_COMMA)
        mixed = opening + closing in ("[)", "(]")
        if len(ends) == 2 and (mixed or "\\infty" in inside):
            return Reals((interval(ends[0], ends[1], opening == "[", closing == "]"),))
    kind = {"(": "tuple", "[": "bracket", "{": "set", "⦃": "set", "⟨": "tuple"}[opening]
    if kind == "set":
        builder = _BUILDER.match(inside)
        if builder is not None:
            return built(builder.group(2), read, "⟦Z⟧" in builder.group(1))
        whole = WHOLE.search(inside)
        if whole is not None and re.search(r"[|:]\s*$", inside[: whole.start() + 1].rstrip()):
            names = frozenset(re.findall(r"[A-Za-z]", re.sub(r"_\d", "", whole.group(1))))
            head = re.sub(r"\s*[|:]\s*$", "", inside[: whole.start() + 1].rstrip())
            return as_family(read(head), names, first_of(inside[whole.start() :]))
        if not inside:
            return Reals(())
    items = [item.strip() for item in split(inside, ANY_COMMA)]
    if len(items) > MAX_PARTS or not all(items):
        return None
    if len(items) == 1:
        if kind == "set" and re.fullmatch(r"\\(?:varnothing|emptyset) ?|∅", inside):
            return Items("set", (Reals(()),))
        if kind == "tuple" and opening == "(":
            return read(inside) if _COMPOUND.search(inside) else None
        inner = read(inside)
        return inner if isinstance(inner, Items | Reals | Family) else Items("set", (inner,))
    parts = tuple(read(item) for item in items)
    if kind == "set":
        flat = flattened(parts)
        return Items("set", flat.items) if isinstance(flat, Items) else flat
    return Items("tuple" if kind == "tuple" else "bracket", parts)


_VECTOR = re.compile(
    r"\\(?:vec|mathbf|hat|boldsymbol|bm|overrightarrow|widehat)\s*\{?\s*(?:\\mathbf\{)?"
    r"\\?([ijk])(?:math)?\s*\}*"
)


def vector(text: str, read: Read) -> Part | None:
    """`2\\vec{i} - \\vec{j}` as the tuple of its components."""
    if not _VECTOR.search(text):
        return None
    components = {"i": "0", "j": "0", "k": "0"}
    marked = _VECTOR.sub(r"«\1»", text)
    terms = [t for t in re.split(r"(?=[+-])", marked.replace(" ", "")) if t]
    for term in terms:
        match = re.fullmatch(r"([+-]?)(.*?)\*?«([ijk])»", term)
        if match is None:
            return None
        sign, factor, name = match.groups()
        components[name] = f"{sign.replace('+', '')}{factor or '1'}"
    size = 3 if "k" in "".join(re.findall("«(.)»", marked)) else 2
    return Items("tuple", tuple(Leaf(components[name]) for name in "ijk"[:size]))


_MATRIX = re.compile(
    r"\\begin\{(?:[pbBvV]?matrix|smallmatrix|array)\}(?:\s*\{[lcr|@{} ]*\})?(.*?)"
    r"\\end\{(?:[pbBvV]?matrix|smallmatrix|array)\}",
    re.DOTALL,
)


def matrix(text: str, read: Read) -> Part | None:
    """A matrix or column vector in LaTeX, with the factor before it multiplied in."""
    scale, begin, rest = text.partition("\\begin{")
    if not begin or "vmatrix" in text or text.count("\\begin{") > 1:
        return None
    bare = begin + re.sub(r"\s*[)\]]$", "", rest)
    scale = re.sub(r"[(\[]$", "", scale.strip()).strip()
    match = _MATRIX.fullmatch(bare)
    if match is None or re.search(r"[=,;]", scale):
        return None
    rows = [row for row in split(match.group(1).strip(), re.compile("⏎")) if row.strip()]
    cells = [[cell.strip() for cell in split(row, re.compile(r"&"))] for row in rows]
    if scale:
        factor = "-1" if scale == "-" else scale
        cells = [[f"({factor})*({cell})" for cell in row] for row in cells]
    read_rows = [Items("tuple", tuple(read(cell) for cell in row)) for row in cells]
    if len(cells) == 1:
        return read_rows[0]
    if all(len(row) == 1 for row in cells):
        return Items("column", tuple(row.items[0] for row in read_rows))
    return Items("matrix", tuple(read_rows))
