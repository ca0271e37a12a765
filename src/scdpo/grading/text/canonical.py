"""A single sign for each relation, bracket and conjunction, so that an answer can be split."""

from __future__ import annotations

import re
from functools import lru_cache

from scdpo.grading.text.normalise import PLAIN_NUMBER, tidy

_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\\\(?:\[[\d.]+[a-z]{2}\])?", "⏎"),
        (r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])\s*\.?", ""),
        (r"\\(?:displaystyle|textstyle|limits|nonumber)(?![A-Za-z])", ""),
        (r"(?<=\d)(?: ?\\[,;:! ] ?|,\\!|\{,\}|~)(?=\d{3}(?!\d))", ""),
        (
            r"\\(?:text(?:rm|bf|it)?|mathrm|mbox|textnormal)\s*\{\s*(?:,\s*)?(and|or|And|Or)\s*\}",
            r" \1 ",
        ),
        (
            r"\\(?:text(?:rm|it)?|mathrm|mbox)\s*\{\s*[,;]?\s*((?:[(,]? ?(?:and|or|[fF]or|where"
            r"|when|if|whenever|with|such that|provided|is|are|as|only if|at|attained|achieved"
            r"|reached)\b)[^{}]*)\}",
            r" \1 ",
        ),
        (r"\\(?:lor|vee)(?![A-Za-z])|\|\|(?=[^|]*[<>=≤≥])(?![^|]*\|)", " or "),
        (r"\\(?:land|wedge)(?![A-Za-z])|&&", " and "),
        (r"\\(?:leqslant|leqq|leq|le)(?![A-Za-z])|<=|⩽|=<", "≤"),
        (r"\\(?:geqslant|geqq|geq|ge)(?![A-Za-z])|>=|⩾|=>(?= ?\d)", "≥"),
        (r"\\(?:neq|ne)(?![A-Za-z])|!=|\\not\s*=", "≠"),
        (r"\\lt(?![A-Za-z])|&lt;", "<"),
        (r"\\gt(?![A-Za-z])|&gt;", ">"),
        (r"\\in(?![A-Za-z])", "∈"),
        (r"\\cup(?![A-Za-z])|⋃", "∪"),
        (r"\\cap(?![A-Za-z])", "∩"),
        (r"\\(?:setminus|backslash|smallsetminus)(?![A-Za-z])", "∖"),
        (r"\\pm(?![A-Za-z])|\+ ?/ ?-|\+-(?= ?[\d\\s√(])", "±"),
        (r"\\mp(?![A-Za-z])", "∓"),
        (r"\\text\s*\{\s*([,;])\s*\}", r"\1 "),
        (r"\\text\w*\s*\{([^{}]*(?:extraneous|rejected|discarded)[^{}]*)\}", r" \1 "),
        (r"\\(?:approx|thickapprox|simeq)(?![A-Za-z])", "≈"),
        (r"\\(?:emptyset|varnothing|phi)(?![A-Za-z])(?=\s*$)", "∅"),
        (
            r"\\(?:mathbb|mathbf|Bbb|mathrm)\s*\{?\s*([RZNQC])\s*\}?(?![A-Za-z}])"
            r"|\\([RZNQ])(?![A-Za-z])",
            r"⟦\1\2⟧",
        ),
        (r"\\(?:infty|infin)(?![A-Za-z])|∞|(?<![A-Za-z])oo(?![A-Za-z])", r"\\infty "),
        (r"\\(?:\{|lbrace(?![A-Za-z]))", "⦃"),
        (r"\\(?:\}|rbrace(?![A-Za-z]))", "⦄"),
        (r"\\langle(?![A-Za-z])|〈", "⟨"),
        (r"\\rangle(?![A-Za-z])|〉", "⟩"),
        (r"⦃\s*\\begin\{array\}\s*\{[lcr| ]*\}(?!.*&)(.*)\\end\{array\}", r"\1"),
        (r"⦃\s*\\begin\{array\}\s*\{[lcr| ]*\}(.*)\\end\{array\}", r"\\begin{cases}\1\\end{cases}"),
        (r"\\text\w*\s*\{([^{}]*[\u4e00-\u9fff][^{}]*|[A-Za-z][A-Za-z ]*: ?)\}", r" \1 "),
        (r"\\(?:mid|vert)(?![A-Za-z])", "|"),
        (r"\\(?:Rightarrow|implies|Longrightarrow)(?![A-Za-z])|⇒", "⇒"),
        (r"&\s*=", "="),
        (r"(?<=[A-Za-z)}\d]) ?\$? is (?:equal to )?(?=[-$\\\d(])", "="),
        (r"(?<=[\d}]) ?degrees?(?![A-Za-z])", r"^\\circ "),
        (r"\{:\}", ":"),
        (r"\\text(?:bf|rm)?\s*\{\s*(\(\w{1,3}\))\s*\}", r" \1 "),
        (r"(?s)\\begin\{(?:cases)\}(?!.*&)|(?<!&)\\end\{cases\}", ""),
        (r"\\begin\{(?:aligned|align\*?|gathered)\}|\\end\{(?:aligned|align\*?|gathered)\}", ""),
        (r"\\[,;:!> ]|~|\\q?quad(?![A-Za-z])|\s+", " "),
    )
)
_NUMBER_SETS = {"ℝ": "⟦R⟧", "ℤ": "⟦Z⟧", "ℕ": "⟦N⟧", "ℚ": "⟦Q⟧"}


@lru_cache(maxsize=8192)
def canonical(text: str) -> str:
    """`text` with a single sign for each relation, bracket and conjunction."""
    if PLAIN_NUMBER.fullmatch(text):
        return text
    text = tidy(text)
    if "matrix}" in text:  # MathCoder's copy of MATH lacks a backslash of each line break
        text = re.sub(r"(?<!\\)\\(?=-?\d)", r"\\\\", text)
    for sign, name in _NUMBER_SETS.items():
        text = text.replace(sign, name)
    for pattern, replacement in _REWRITES:
        if pattern.search(text) is not None:  # most match nothing, and searching is cheaper
            text = pattern.sub(replacement, text)
    return text.strip().rstrip(".,;。").strip()


_UPPER_SIGNS, _LOWER_SIGNS = str.maketrans("±∓", "+-"), str.maketrans("±∓", "-+")


def both_signs(text: str) -> tuple[str, str]:
    """A canonical text with the upper and with the lower of its double signs: `1 + √2`, `1 - √2`
    for `1 ± √2`; a text without them, twice."""
    return text.translate(_UPPER_SIGNS), text.translate(_LOWER_SIGNS)


MOST_SIGNS = 3
"""Most double signs of an answer that are taken in every combination."""


def every_sign(text: str) -> list[str] | None:
    """The texts of `±1 ± √2` with each of its signs on its own: four of them.

    None for a text with fewer than two signs, with ∓, or with more than MOST_SIGNS.
    """
    count = text.count("±")
    if not 2 <= count <= MOST_SIGNS or "∓" in text:
        return None
    first, *rest = text.split("±")
    texts = [first]
    for piece in rest:
        texts = [f"{text}{sign}{piece}" for text in texts for sign in "+-"]
    return [_LEADING_PLUS.sub(r"\1", text) for text in texts]


_LEADING_PLUS = re.compile(r"((?:^|[=(\[,])\s*)\+\s*")


def has_both_signs(text: str) -> bool:
    """Whether a canonical text has a double sign, ± or ∓."""
    return "±" in text or "∓" in text
