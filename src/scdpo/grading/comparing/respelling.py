"""Other ways to read an answer's text: decimal commas, digit groups, 2.5K, C(10, 3), 3 x 5.

Such a spelling is ambiguous (`1,5` may be a list), so that `rules.decide` looks at the other
reading only where the usual one makes the answers unequal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

from scdpo.grading.comparing.written import parsed, value
from scdpo.grading.formulas.evaluation import real_constant
from scdpo.grading.quantities.equality import rounds_to
from scdpo.grading.quantities.quantity import quantity
from scdpo.grading.quantities.units import Dimensions
from scdpo.grading.text.brackets import balanced, split
from scdpo.grading.text.canonical import canonical
from scdpo.grading.text.normalise import clean, tidy

MAX_LENGTH = 200
"""Longest answer that is read in another way, in characters."""

_AROUND = r"(?P<before>-?(?:\\?[$€£¥₹] ?|Rs\.? ?|(?:Rp|R\\?\$|CHF|kr)\.? ?|[A-Za-z] ?= ?|- )?)"
_BEHIND = (
    r"(?P<after>(?! ?(?:\\times|\\cdot|[xX] ?\d|\\pi|\\sqrt))"
    r"(?: ?(?:[€$£₹%]|\\%|\\?[A-Za-z{(μ°\u4e00-\u9fff].*)|))"
)
_COMMA = re.compile(
    rf"{_AROUND}(?P<whole>\d{{1,3}}(?:[. ]\d{{3}})+|\d+),(?P<part>\d+){_BEHIND}", re.DOTALL
)
_DOTS = re.compile(rf"{_AROUND}(?P<whole>[1-9]\d{{0,2}}(?:\.\d{{3}})+){_BEHIND}", re.DOTALL)
_MONEY = re.compile(r"(?:Rp|R\\?\$|CHF|kr)\.? ?")
_INDIAN = re.compile(
    rf"{_AROUND}(?P<whole>[1-9]\d?(?:,\d{{2}})+,\d{{3}})(?P<part>(?:\.\d+)?){_BEHIND}", re.DOTALL
)
_SHORT = re.compile(
    r"(-?(?:\\?[$€£¥₹])? ?\d+(?:\.\d+)?) ?(?:(K|k)|(M|mn|mln)|(B|bn))(?![A-Za-z])\+?"
)
_MIXED = re.compile(
    r"(?<![\d.,/])(\d+) (?:and|\\text ?\{ ?and ?\}) (?:(\d+)/(\d+)"
    r"|\\[dt]?frac ?\{(\d+)\} ?\{(\d+)\}"
    r"|(a|one|1|two|2|three|3|four|4|five|5|six|6|seven|7) (half|third|quarter|fourth|fifth|sixth"
    r"|seventh|eighth|ninth|tenth)s?(?![a-z]))"
)
_PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7}
_PARTS |= {"eighth": 8, "ninth": 9, "tenth": 10}
_FEW = {"a": 1} | {
    word: at for at, word in enumerate("one two three four five six seven".split(), 1)
}
_TIMES = re.compile(r"(?<=\d) ?[xX] ?(?=\d)|(?<=\d[)}]) [xX] (?=[\d(])")
_SIZES = re.compile(r"\d[\d.]*(?: ?(?:[xX×]|by) ?\d[\d.]*)+")
_COUNTED = re.compile(
    r"(?<![A-Za-z\\_])(?:(?P<name>nCr|nPr|comb|perm|[CPA]) ?"
    r"\( ?(?P<n>\d{1,4}) ?, ?(?P<k>\d{1,4}) ?\)"
    r"|[CPA] ?\^ ?\{?(?P<chosen>\d{1,4})\}? ?_ ?\{?(?P<of>\d{1,4})\}?(?!\w)"
    r"|(?:\{\} ?)?[_^]?\{?(?P<over>\d{1,4})\}? ?(?P<letter>[CP]) ?"
    r"_? ?\{?(?P<under>\d{1,4})\}?(?!\w))"
)
_FRONT = re.compile(
    r"(?i:\\forall|∀|for (?:all|every|any|each)|for|if|when"
    r"|对(?:于)?(?:任意|所有|一切|任何)?的?|当|若)"
    r" ?(?:the )?(?P<kind>(?:real |all |positive |nonnegative |non-negative |whole"
    r" |natural |正|实|整)*)"
    r"(?:numbers? |integers? |values? of |实数|整数|数)?(?P<names>[A-Za-z](?: ?, ?[A-Za-z])*)"
    r"(?P<condition>(?:[\[(][^\[\]()]*[\])]|[^,:，\[(])*)(?:[,:，]|时,?|\\q?quad|: ?) ?"
    r"(?:then |we have |有|都有|恒有)?(?P<rest>.+)",
    re.DOTALL,
)
_LEADING = re.compile(
    r"[$ (]*(?:\\text\s*\{\s*)?(?:\\forall|∀|for|if|when|对|当|若)", re.IGNORECASE
)
_EVERYWHERE = re.compile(r" ?(?:∈ ?(?:⟦R⟧|R)|(?:is )?real)? ?")


@lru_cache(maxsize=8192)
def respelled(text: str) -> list[tuple[str, bool]]:
    """The other readings of an answer; the flag is False where a reading is as likely as the usual
    one, so that an equality leaves the pair undecided."""
    if len(text) > MAX_LENGTH or _MAYBE.search(text) is None:
        return []
    return list(_readings(text))


_MAYBE = re.compile(
    r"\d[,，. ]\d{3}|\d\{,\}|\$ and \$|\d[,，]\d|\d(?: ?[xXKkMBmb](?![a-z])| and | ?\\text)"
    r"|[CPA] ?\^ ?\{?\d|[CPApcrmDF] ?\}? ?\(|\d ?\}? ?[CP]|[a-zπ°} ]\)$|below"
    r"|matrix|\{array\}|\d/-$|(?i:\\forall|∀|for |if |when |对|当|若)"
)


def _readings(text: str) -> Iterator[tuple[str, bool]]:
    text = tidy(text).replace("{,}", ",")
    if text.endswith("/-"):  # rupees
        text = text[:-2]
        yield text, True
    yield from _numbers(text)
    short = _SHORT.fullmatch(text)
    if short is not None:
        size = 3 if short.group(2) else 6 if short.group(3) else 9
        yield f"{short.group(1)}*10^{size}".replace("$", "").replace("\\", ""), True
    if " and" in text or "{and" in text:
        mixed = _MIXED.sub(_mixed, text)
        if mixed != text:
            yield mixed, True
        elif "$ and $" in text:
            yield _MIXED.sub(_mixed, text.replace("$ and $", " and ").replace("$", "")), False
    if ("x" in text or "X" in text) and (product := _TIMES.sub(r"\\times ", text)) != text:
        yield product, True
    if (computed := _COUNTED.sub(_count, text)) != text:
        yield computed, True
    if text.endswith(")"):
        yield from _two_measures(text)
    if (lower := _CAPITALS.sub(lambda found: _DIVISORS[found.group(1).upper()], text)) != text:
        yield lower, True
    if (cold := _BELOW.fullmatch(text)) is not None:
        yield f"-{cold.group(1)}", False
    if ("matrix" in text or "{array}" in text) and (determinant := _determinant(text)) is not None:
        yield determinant, True
    front = _FRONT.fullmatch(canonical(text)) if _LEADING.match(text) else None
    if front is not None and not re.search(r"\\text|[a-z]{4}", front.group("condition")):
        everywhere = _EVERYWHERE.fullmatch(front.group("condition")) is not None
        yield (
            front.group("rest"),
            everywhere and front.group("kind").strip() in ("", "real", "all", "实"),
        )


_CAPITALS = re.compile(
    r"(?:\\(?:text|mathrm|operatorname)\s*\{\s*)?(?<![A-Za-z])(LCM|GCD|HCF|GCF|hcf|gcf)(?:\s*\})?"
    r"(?=\s*\()"
)
_DIVISORS = {"LCM": "\\operatorname{lcm}", **dict.fromkeys(("GCD", "HCF", "GCF"), "\\gcd")}
_BELOW = re.compile(r"(\d+(?:\.\d+)?)(?: ?(?:°|degrees?))? below\.?")


def _two_measures(text: str) -> Iterator[tuple[str, bool]]:
    """`2 hours (120 minutes)`, `\\frac{\\pi}{6} (30^\\circ)`: both of them, if they are equal."""
    found = _REMARK.fullmatch(text)
    if found is None or not balanced(found.group("said")):
        return
    pieces = found.group("said"), _SIGN.sub("", found.group("remark"))
    sizes = [_measure(piece) for piece in pieces]
    if None in sizes:
        return
    (first, kind), (second, other) = (size for size in sizes if size is not None)
    if kind == other and first and abs(second / first - 1) < Fraction(1, 10**9):
        yield pieces[0], True
        yield pieces[1], True


_TURN = Fraction("3.14159265358979323846264338327950288") / 180


def _measure(text: str) -> tuple[Fraction, Dimensions] | None:
    """A value in base units and its dimensions; angles are in radians, without dimensions."""
    text = re.sub(r" ?radians?$", "", text.strip())
    found = quantity(clean(text))
    if found is None:
        size = value(text)
        return None if size is None else (size, ())
    angle = found.unit.dimensions == (("angle", 1),)
    size = found.value * found.unit.scale * (_TURN if angle else 1)
    return size, () if angle else found.unit.dimensions


def same_sizes(gold: str, answer: str) -> bool | None:
    """Whether answers are the same size: 4 x 6, 6 by 4; None unless both are sizes, which are not
    products."""
    texts = [clean(text) for text in (gold, answer)]
    if not all(map(_SIZES.fullmatch, texts)):
        return None
    sides = [sorted(map(Fraction, re.findall(r"\d+(?:\.\d+)?", text))) for text in texts]
    return sides[0] == sides[1]


def _numbers(text: str) -> Iterator[tuple[str, bool]]:
    """Decimal commas, dots between thousands, Indian groups."""
    found = _COMMA.fullmatch(text)
    if found is not None and not re.search(r"\d,\d", found.group("after")):
        whole, part = found.group("whole"), found.group("part")
        grouped = len(part) == 3 and len(whole) <= 3
        number = f"{re.sub('[. ]', '', whole)}.{part}"
        yield f"{found.group('before')}{number}{found.group('after')}", not grouped
    elif found is None and ";" in text and re.search(r"\d,\d", text) and ", " not in text:
        yield re.sub(r"(?<=\d),(?=\d)", ".", text), True
    found = _DOTS.fullmatch(text)
    if found is not None:
        sure = found.group("whole").count(".") > 1
        before = _MONEY.sub("", found.group("before"))
        yield (
            f"{before}{found.group('whole').replace('.', '')}{found.group('after')}",
            sure,
        )
    found = _INDIAN.fullmatch(text)
    if found is not None:
        number = found.group("whole").replace(",", "") + found.group("part")
        yield f"{found.group('before')}{number}{found.group('after')}", True


def _mixed(found: re.Match[str]) -> str:
    whole, over, under, above, below, few, name = found.groups()
    if name:
        top, bottom = _FEW.get(few) or int(few), _PARTS[name]
    else:
        top, bottom = int(over or above), int(under or below)
    if not 0 < top < bottom:
        return found.group()
    total = int(whole) + Fraction(top, bottom)
    return f"{total.numerator}/{total.denominator}"


def _count(found: re.Match[str]) -> str:
    """The number of combinations or permutations; the text itself where there are none."""
    n = int(found.group("n") or found.group("over") or found.group("of"))
    k = int(found.group("k") or found.group("under") or found.group("chosen"))
    if not 0 < k <= n <= 1_000:
        return found.group()
    name = found.group("name") or found.group("letter") or found.group()[0]
    return str(math.comb(n, k) if name in ("C", "nCr", "comb") else math.perm(n, k))


_MATRIX = re.compile(
    r"(?P<det>\\(?:det|operatorname\{det\}) ?\(?|\| ?|\\(?:l|r)?vert ?)?"
    r"\\begin\{(?P<kind>[pbvBV]?matrix|array)\}"
    r"(?:\{[lcr| ]*\})?(?P<cells>.*?)\\end\{(?P=kind)\} ?\)?(?P<bar>\|)?",
    re.DOTALL,
)


def _determinant(text: str) -> str | None:
    """The value of a determinant of constants of up to four rows."""
    found = _MATRIX.fullmatch(canonical(text))
    if found is None or not (found.group("det") or found.group("kind") == "vmatrix"):
        return None
    rows = [row for row in split(found.group("cells").strip(), re.compile("⏎")) if row.strip()]
    cells = [[value(cell.strip()) for cell in row.split("&")] for row in rows]
    if not 1 < len(rows) <= 4 or any(len(row) != len(rows) or None in row for row in cells):
        return None
    total = _expanded([[cell for cell in row if cell is not None] for row in cells])
    return f"{total.numerator}/{total.denominator}"


def _expanded(rows: list[list[Fraction]]) -> Fraction:
    if len(rows) == 1:
        return rows[0][0]
    minors = ([row[:at] + row[at + 1 :] for row in rows[1:]] for at in range(len(rows)))
    signs = ((-1) ** at * cell for at, cell in enumerate(rows[0]))
    return sum(
        (sign * _expanded(minor) for sign, minor in zip(signs, minors, strict=True)), Fraction(0)
    )


_BARE_LESS = re.compile(r".*\d(?: ?\\?%)? less\.?", re.IGNORECASE | re.DOTALL)


def bare_less(text: str) -> bool:
    """Whether an answer is a difference without what it is less than: `20 less`."""
    return len(text) <= MAX_LENGTH and _BARE_LESS.fullmatch(text.strip()) is not None


_REMARK = re.compile(
    r"(?P<said>.*[^\s(,;:=+*/^_-]) ?\((?P<remark>(?:=|≈|\\approx|i\.e\.,?"
    r"|or|about|approximately|which is"
    r"|equal to|即|约|大约|也就是|或)? ?[^()]+)\)",
    re.DOTALL,
)
_SIGN = re.compile(
    r"^(?:=|≈|\\approx|i\.e\.,?|or|about|approximately|which is|equal to|即|大?约|也就是|或) ?"
)


def without_remark(text: str) -> str:
    """`1/4 (25%)` without the remark in brackets, which repeats the value in another form."""
    if len(text) > MAX_LENGTH or not text.rstrip(" $.").endswith((")", "）")):
        return text
    plain = tidy(text)
    found = _REMARK.fullmatch(plain)
    if found is None or not balanced(found.group("said")):
        return text
    said, remark = found.group("said"), _SIGN.sub("", found.group("remark"))
    values = [_share(said), _share(remark)]
    if values[0] is None or values[1] is None or said.strip() == remark.strip():
        return text
    if re.fullmatch(r"-?\d+", said.strip()) and "/" in remark and "%" not in remark:
        return text  # a mixed number
    written = quantity(clean(remark))
    close = written is not None and rounds_to(
        values[0] * (100 if written.percent else 1), written.number
    )
    return said if values[0] == values[1] or close else text


def contradicted(text: str) -> bool:
    """Whether a number is followed by another in brackets, which is no factor: `3/2 (0.75)`."""
    if len(text) > MAX_LENGTH or _CONTRADICTED.fullmatch(text) is None:
        return False
    return without_remark(text) == text


_CONTRADICTED = re.compile(
    r"\s*(?:-?\d+ ?/ ?\d+|-?\d*\.\d+|-?\\[dt]?frac\{\d+\}\{\d+\}) \((?:=|≈|or|about)? ?"
    r"[\d./]+ ?\\?%?\)\s*"
)


def _share(text: str) -> Fraction | None:
    """The value of a remark or of what it is about, with a percent sign applied."""
    found = quantity(clean(text))
    if found is not None:
        return found.value
    node = parsed(canonical(text))
    return None if node is None else real_constant(node)
