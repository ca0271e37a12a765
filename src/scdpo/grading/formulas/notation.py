"""The tokens of a formula in LaTeX, Unicode or Python."""

from __future__ import annotations

import re

from scdpo.grading.formulas.tree import NotAFormulaError

FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan arccot asin acos atan sinh cosh tanh coth exp "
    "ln log lg sqrt cbrt abs floor ceil max min gcd lcm cis binomial factorial sgn Re Im "
    "arg Gamma zeta".split()
)
GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi "
    "rho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi "
    "Omega ell hbar".split()
)
_MARKS = "overline|bar|vec|hat|tilde|overrightarrow|widehat|mathbf|boldsymbol|mathcal|mathbb|angle"
_UNICODE = str.maketrans(
    {
        "·": "*",
        "⋅": "*",
        "×": "*",
        "∙": "*",
        "÷": "/",
        "√": "\\uroot ",
        "π": "\\pi ",
        "∞": "\\infty ",
        "−": "-",
        "–": "-",
        "θ": "\\theta ",
        "α": "\\alpha ",
        "β": "\\beta ",
        "λ": "\\lambda ",
        "φ": "\\phi ",
        "ω": "\\omega ",
        "′": "'",
        "⌊": "\\lfloor ",
        "⌋": "\\rfloor ",
        "⌈": "\\lceil ",
        "⌉": "\\rceil ",
        **{c: f"^{{{n}}}" for n, c in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
        **{c: f"_{{{n}}}" for n, c in enumerate("₀₁₂₃₄₅₆₇₈₉")},
        "½": "\\frac{1}{2}",
        "⅓": "\\frac{1}{3}",
        "¼": "\\frac{1}{4}",
        "¾": "\\frac{3}{4}",
        "⅔": "\\frac{2}{3}",
        "ⁿ": "^{n}",
        "°": "\\degree ",
    }
)
_REWRITES = (
    (re.compile(r"\\(?:left|right|[bB]igg?[lr]?|middle)(?![A-Za-z])\s*\.?(?=[^A-Za-z\d]|$)"), ""),
    (re.compile(r"\\(?:displaystyle|textstyle|limits|nolimits)(?![A-Za-z])"), ""),
    (re.compile(r"\\[,;:!> ]|~|\\q?quad(?![A-Za-z])"), " "),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\[dt]binom(?![A-Za-z])"), r"\\binom"),
    (
        re.compile(r"\\(?:mathrm|text|textit|mathit|operatorname|rm)\s*\*?\{\s*([A-Za-z]+)\s*\}"),
        r" \1 ",
    ),
    (re.compile(r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree(?![A-Za-z])"), r"\\deg "),
    (re.compile(r"\\(?:lvert|rvert|vert|mid)(?![A-Za-z])"), "|"),
    (re.compile(r"\\(?:cdot|times|ast)(?![A-Za-z])"), "*"),
    (re.compile(r"\\div(?![A-Za-z])"), "/"),
    (
        re.compile(r"\\?(max|min|gcd|lcm)\s*(?:⦃|\\\{)([^⦃⦄{}]*)(?:⦄|\\\})"),
        r"\\\1(\2)",
    ),
    (re.compile(r"∛"), r"\\uroot[3]"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\\(?:lbrack|lparen)(?![A-Za-z])"), "("),
    (re.compile(r"\\(?:rbrack|rparen)(?![A-Za-z])"), ")"),
    (re.compile(r"(?<=\d)(?:\{,\}|,\\!|,)(?=\d{3}(?!\d))"), ""),
    (re.compile(rf"\\(?:{_MARKS})\s*\{{\s*([A-Za-z]{{1,4}})\s*\}}"), r"\\mark{\1}"),
    (re.compile(rf"\\(?:{_MARKS})\s+([A-Za-z])(?![A-Za-z])"), r"\\mark{\1}"),
    (re.compile(r"\{\s*([^{}]+?)\s*\\choose\s*([^{}]+?)\s*\}"), r"\\binom{\1}{\2}"),
    (re.compile(r"\{?\s*\}?_\{?(\w+)\}?\s*C\s*_\{?(\w+)\}?(?![\w^])"), r"\\binom{\1}{\2}"),
    (
        re.compile(r"(?<![A-Za-z\\])C_(?:\{(\w+)\}|(\w))\^(?:\{(\w+)\}|(\w))"),
        r"\\binom{\1\2}{\3\4}",
    ),
    (
        re.compile(r"(?<![A-Za-z\\])[AP]_(?:\{(\d+)\}|(\d))\^(?:\{(\d+)\}|(\d))"),
        r"(\\binom{\1\2}{\3\4}\\factorial(\3\4))",
    ),
)
_IMAGINARY = re.compile(r"(?<=\d)j(?![A-Za-z])|(?<![A-Za-z\\])I(?![A-Za-z(_])")
"""The imaginary unit as Python and SymPy print it."""
_EULER = re.compile(r"(?<![A-Za-z\\])E(?=\*\*|\^)|(?<=\*)E(?![A-Za-z(_])")
_TOKEN = re.compile(
    r"\s*(?:(?P<repeating>\d*\.\d*\s*\\(?:overline|bar|dot)\s*\{?\d+\}?)"
    r"|(?P<number>(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,4}(?![\w.]))?)"
    r"|(?P<mark>\\mark\{[A-Za-z]+\})"
    r"|(?P<command>\\[A-Za-z]+)"
    r"|(?P<word>[A-Za-z]+)"
    r"|(?P<op>\\%|[-+*/^_(){}\[\]|!%,'])"
    r")"
)


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    position = 0
    text = text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise NotAFormulaError(f"unexpected {text[position]!r}")
        token = match.group().strip()
        tokens.extend(_letters(token) if match.lastgroup == "word" else [token])
        position = match.end()
    return tokens


def _letters(word: str) -> list[str]:
    """A run of letters as a function of Python or as factors; a longer word is prose."""
    if word in ("pi", "oo", "inf"):
        return ["\\pi" if word == "pi" else "\\infty"]
    for size in range(len(word), 1, -1):  # xsin, 2ln: letters before a function's name
        head, tail = word[: len(word) - size], word[len(word) - size :]
        if tail in FUNCTIONS and len(head) <= 2:
            return [*head, f"\\{tail}"]
    if len(word) > 3:
        raise NotAFormulaError(f"a word: {word}")
    return list(word)


def tokens(text: str) -> list[str]:
    """The tokens of a formula. Raises NotAFormulaError for texts that cannot be a formula."""
    text = text.translate(_UNICODE)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    if "\\" not in text or "sqrt(" in text:
        text = _EULER.sub("e", _IMAGINARY.sub("i", text))
    return _tokens(text)
