"""A common spelling for answers in LaTeX, full-width characters and the output of Python."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from scdpo.grading.text.python import without_reprs

PLAIN_NUMBER = re.compile(r"-?\d+(?:[.,/]\d+)*", re.ASCII)
"""The most frequent answers, in which no spelling is to be changed."""
_FULL_WIDTH = "".join(map(chr, range(0xFF01, 0xFF5F)))
_CHARACTERS = str.maketrans(
    {
        **{wide: chr(ord(wide) - 0xFEE0) for wide in _FULL_WIDTH},
        **dict.fromkeys("−–—﹣", "-"),
        **dict.fromkeys("\u00a0\u3000\u2002\u2003", " "),
        "￥": "¥",
        "。": ".",
        "、": ",",
        "∕": "/",
        "⁄": "/",
        "²": "^2",
        "³": "^3",
        "％": "%",
        **{mark: f"_{{{digit}}}" for digit, mark in enumerate("₀₁₂₃₄₅₆₇₈₉")},
    }
)
_THIN_SPACE = re.compile(r"(?<=\d)(?: ?\\[,;:! ] ?|,\\!|\{,\}|~|[\u2009\u202f])(?=\d{3}(?!\d))")
_SPACE = re.compile(r"\\[,;:!> ]|~|\\q?quad\b|[\u2009\u202f]|\s+")
_FRACTION = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_FRAC_DIGITS = re.compile(r"\\frac\s*(\d)\s*(\d)")
_FRAC_DIGIT = re.compile(r"\\frac\s*(\d)\s*\{")
_FRAC_LAST = re.compile(r"\\frac\s*(\{[^{}]*\})\s*(\d)")
_SIZING = re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])\s*|\\displaystyle\s*")
_TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|sf)?|mathrm|mathbf|mathit|mbox|operatorname)\s*\{([^{}]*)\}"
)
_ESCAPED = re.compile(
    r"\\\\(?=(?:le|ge|leq|geq|ne|neq|frac|dfrac|sqrt|boxed|text|pi|in|infty|left|right|cup|cdot"
    r"|times|pm|sin|cos|tan|log|ln|mathbb|circ)(?![A-Za-z]))"
)
"""A backslash that is escaped once too often."""
_BOX = re.compile(r"\\+(?:boxed|fbox)\s*\{(.*)\}", re.DOTALL)
_OPEN_BOX = re.compile(r"\\+(?:boxed|fbox)\s*\{")
_COMMA = re.compile(r" *, +(?!(?<=\d, )\d{3}(?!\d))| +,")  # 32, 349 is not a number
_APPROXIMATELY = re.compile(
    r"^\s*(?:\\text ?\{ ?(?:approximately|about|roughly)\s*\}|\\approx|≈|\\sim|approximately "
    r"|about |roughly |大?约)\s*"
)
_SUBJECT = re.compile(
    r"^(\$?(?:[A-Za-z](?:\([a-z]\))?|[A-Z]{2,3})\$?) is (?:equal to )?(?![A-Za-z]{2})"
)
_COMPARED = re.compile(
    r"(?<=[\d})$]) is (?:the )?(?:small|larg|great|bigg|clos|near|less)(?:er|est)?"
    r"(?: (?:one|value|number))?\.?$"
)
"""A comparison after the value that was asked for: `-3 is smaller`."""
_NEGATIVE = re.compile(r"^(?:negative|minus|负) ?(?=\d)")
_BELOW_ZERO = re.compile(
    r"^(?:it is |about )?(\d+(?:\.\d+)?|[a-z]{3,9}(?:-[a-z]{3,5})?)((?: ?(?:degrees?|°"
    r"|\^ ?\\?circ|\^ ?\{ ?\\circ ?\}|℃|℉))?"
    r"(?: ?(?:C|F|celsius|fahrenheit|centigrade))?) (below|above) (?:zero|0)\.?$",
    re.IGNORECASE,
)
_TIMES_TEN = re.compile(r"(?<=\d) ?[xX] ?(?=10 ?(?:\^|\*\*))")
_CHINESE_BELOW = re.compile(r"^零(下|上) ?(?=\d|[一二三四五六七八九十两])")
_LABEL = re.compile(r"^\s*\([a-zA-Z]\)\s+(?=[-\d\\])")
_RELATIONS = (
    *((">=", "\\geq "), ("<=", "\\leq "), ("!=", "\\neq "), ("≥", "\\geq "), ("≤", "\\leq ")),
    *(("≠", "\\neq "), ("\\gt", ">"), ("\\lt", "<"), ("\\varnothing", "\\emptyset")),
)
_FRAC_COMMAND = re.compile(r"\\frac\s*(\\[A-Za-z]+|\w)\s*(\\[A-Za-z]+|\w)")
_DEGREE = re.compile(r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree(?![A-Za-z])")
_CURRENCIES = {"pounds": "£", "euro": "€", "yen": "¥", "textsterling": "£"}
_CURRENCY = re.compile(r"\\(pounds|euro|yen|textsterling)(?![A-Za-z]) ?")
_PRIMES = re.compile(r"\^ ?\{? ?(?:\\prime ?)+\}?")
_DOLLAR = re.compile(r"\\?\$(?! ?-?[\d.])")
_MARKERS = re.compile(r"<\|[a-z_]+\|>|</?s>|<eos>|\[/?INST\]|^#### *")
_BOLD = re.compile(r"(?<![A-Za-z0-9)])\*\*([^*]+)\*\*(?![A-Za-z0-9(])")
_STARS = re.compile(r"^\*+|(?<![\^{*])\*+$")
"""Markdown's stars at both ends, but not the star of N^*."""
_RECURRING = re.compile(
    r"(\.\d*)\\dot ?(?:\{(?=\d\})|(?=\d))(\d)\}?(?:(\d*)\\dot ?(?:\{(?=\d\})|(?=\d))(\d)\}?)?$"
)
_FRAME = re.compile(
    r"^(?:(?:答案?|解|最终答案|综上所述|综上|所以|因此|故|即|则|于是)[,:]? ?(?:是|为|:)? ?(?=\S))+"
    r"|^(?:\\text ?\{ ?)?(?:so|thus|therefore|hence|we get|we have)\b[,:]? ?\}? ?(?=\S)",
    re.IGNORECASE,
)
"""Words before an answer that carry no meaning."""
_NOUN_FRAME = re.compile(
    r"[\u4e00-\u9fff]{1,12}(?:为|是|等于|:) ?(?=[^\u4e00-\u9fff])"
    r"|(?:点|集合|向量|函数|区间|直线|矩阵|坐标|数列|曲线) ?(?=[A-Z]?[(\[{$\\⟨])"
    r"|the (?:point|set|vector|interval|function|line|matrix) (?=[A-Z]?[(\[{$\\⟨])"
)
_NEGATION = re.compile("不(?!等式)")
_PY_POWER = re.compile(r"\*\*\s*(?:(-?\w+)|\((-?\w+(?:/\w+)?)\))")
_PY_NAME = re.compile(r"(?<![\\A-Za-z])(pi|sin|cos|tan|exp)(?![A-Za-z])")


@lru_cache(maxsize=8192)
def tidy(text: str) -> str:
    """`text` with uniform digits, minus signs and spaces, without invisible characters or
    delimiters around it.

    LaTeX commands stay. The symbolic comparison works on this text.
    """
    if PLAIN_NUMBER.fullmatch(text):
        return text
    if not text.isascii():
        text = text.translate(_CHARACTERS)
    if "\\\\" in text and "\\begin" not in text:
        text = _ESCAPED.sub(r"\\", text)
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
        text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    text = text.strip()
    text = text.replace('\\"', '"')
    if " " in text:
        text = _unspaced(text)
    if "\\" in text:
        text = _PRIMES.sub(lambda match: "'" * match.group().count("prime"), text)
    if "<" in text or "[" in text or "#" in text:
        text = _MARKERS.sub("", text)
    if "*" in text:
        text = _STARS.sub("", _BOLD.sub(r"\1", text))
    text = _without_start(_FRAME, text.strip())
    if "\\" in text:
        text = _RECURRING.sub(r"\1\\overline{\2\3\4}", text)
    if " is " in text:
        text = _SUBJECT.sub(r"\1 = ", _COMPARED.sub("", text))
    text = _without_start(_APPROXIMATELY, text)
    if (negative := _NEGATIVE.match(text)) is not None:
        text = f"-{text[negative.end() :]}"
    if text[-6:].rstrip(".").endswith(("zero", " 0")):
        text = _BELOW_ZERO.sub(_signed, text)
    if "x" in text or "X" in text:
        text = _TIMES_TEN.sub(r"\\times ", text)
    if text.startswith("零") and (below := _CHINESE_BELOW.match(text)) is not None:
        sign = "-" if text[below.end()].isdigit() else "负"
        text = (sign if below[1] == "下" else "") + text[below.end() :]
    noun = _NOUN_FRAME.match(text)
    if (
        noun is not None
        and not re.search("[为是:]", text[noun.end() :])
        and not _NEGATION.search(noun[0])
    ):
        text = text[noun.end() :]
    while True:
        inner = _undelimited(text)
        if inner == text:
            return without_reprs(_balanced(text)).replace("根号", "√")
        text = inner


def _without_start(pattern: re.Pattern[str], text: str) -> str:
    """`text` without what the pattern matches at its start."""
    found = pattern.match(text)
    return text if found is None else text[found.end() :]


def _signed(found: re.Match[str]) -> str:
    """`5 degrees below zero` as `-5 degrees`, and `five degrees below zero` as `minus five …`."""
    sign = "-" if found[1][0].isdigit() else "minus "
    return (sign if found[3].lower() == "below" else "") + found[1] + found[2]


_SPACED_WORD = re.compile(
    r"\\(mathrm|text|rm|operatorname|mathbf|overrightarrow|overline|widehat) ?"
    r"\{ (~ )?([A-Za-z](?: [A-Za-z])* )\}"
)


def _unspaced(text: str) -> str:
    """`1 2 . 5 \\mathrm { ~ c m }`, as scanned collections print 12.5 cm, without its spaces.

    Single digits in a formula of spaced tokens are a number; a plain row of digits is not.
    """
    if not re.search(r"\\(?!text)[A-Za-z,]|\{ | \. \d|\^ ", text):
        return text
    text = _SPACED_WORD.sub(
        lambda m: f"\\{m.group(1)}{{{m.group(2) or ''}{m.group(3).replace(' ', '')}}}", text
    )
    if not re.search(r"\d\d|\d \d+ ?/", text):  # a scan separates all digits
        text = re.sub(r"(?<=\d) ?\. ?(?=\d)", ".", text)
        text = re.sub(r"(?<=\d)(?<![_^]\d) (?=\d)", "", text)
    if not re.search(r"[_^] |(?<!text)\{ ", text):
        return text
    return re.sub(r" *([_^]) *| +(?=\{)|(?<=(?<!text)\{) +| +(?=\})", r"\1", text)


def _balanced(text: str) -> str:
    """`text` without closing braces at its end that have no opening brace."""
    while text.endswith("}") and text.count("}") > text.count("{") and not text.endswith("\\}"):
        text = text[:-1].rstrip()
    return text


@lru_cache(maxsize=8192)
def clean(text: str) -> str:
    """`text` without what does not affect its meaning, for comparing strings and numbers."""
    if PLAIN_NUMBER.fullmatch(text):
        return text
    text = tidy(text)
    if "\\" in text or "{" in text or "~" in text or not text.isascii():
        text = _THIN_SPACE.sub("", text)
    if "\\" in text:
        text = _without_commands(text)
    text = text.replace("{:}", ":").replace("≈", "=")
    if "$" in text:
        text = _DOLLAR.sub("", text).replace("\\$", "$")
    if "\\" in text:
        text = _DEGREE.sub("°", text.replace("\\%", "%"))
        text = text.replace("\\{", "{").replace("\\}", "}") if "\\frac" not in text else text
    text = _SPACE.sub(" ", text).strip()
    if " " in text:
        text = _AFTER_DEGREE.sub("°", _SPACED_SIGN.sub("-", text))
        text = _AROUND_OPERATOR.sub(r"\1", text)
        text = _COMMA.sub(",", text)
    return text.strip().rstrip(".,;:").strip()


def _without_commands(text: str) -> str:
    """`text` with one spelling for fractions, and without the commands that only set type."""
    text = _FRACTION.sub(r"\\frac", _SIZING.sub("", text)).replace("\\varnothing", "\\emptyset")
    text = text.replace("{:}", ":")
    text = _CURRENCY.sub(lambda match: _CURRENCIES[match.group(1)], text)
    if "\\frac" in text:
        text = _FRAC_LAST.sub(r"\\frac\1{\2}", _FRAC_DIGITS.sub(r"\\frac{\1}{\2}", text))
        text = _FRAC_DIGIT.sub(r"\\frac{\1}{", text)
    while (unwrapped := _TEXT.sub(r" \1 ", text)) != text:
        text = unwrapped
    return text.replace("\\approx", "=")


_SPACED_SIGN = re.compile(r"^- (?=\d)")
_AFTER_DEGREE = re.compile(r"° (?=[CF](?![A-Za-z]))")
_AROUND_OPERATOR = re.compile(r"\s*([:=+*/^(){}\[\]])\s*")


def _undelimited(text: str) -> str:
    """`text` without a pair of math delimiters, quotes or a box around all of it."""
    for opening, closing in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if text.startswith(opening) and text.endswith(closing):
            inner = text[len(opening) : len(text) - len(closing)]
            if inner and opening not in inner and closing not in inner:
                inner = inner.strip()
                # Bare braces only group in TeX and are not printed.
                return inner[1:-1] if re.fullmatch(r"\{[^{}]*\}", inner) else inner
    if text.startswith("{") and re.fullmatch(r"\{\d+:\d[^{},]*\}", text):
        return text[1:-1]
    if "box" in text:
        if _OPEN_BOX.match(text) and text.count("{") > text.count("}"):
            return _OPEN_BOX.sub("", text)
        box = _BOX.fullmatch(text)
        if box is not None and "boxed" not in box.group(1):
            return box.group(1).strip()
    if len(text) > 2 and text[0] == text[-1] and text[0] in "'\"`":
        return text[1:-1].strip()
    if text.endswith(".") and text[:-1].endswith(("$", "\\)", "\\]")):
        return text[:-1]
    return text


def latex(text: str) -> str:
    """`tidy(text)`, with Python's `**`, `sqrt(…)`, `pi`, `oo` rewritten as LaTeX."""
    text = _THIN_SPACE.sub("", tidy(text)).rstrip(".,;")
    text = _APPROXIMATELY.sub("", _LABEL.sub("", text))
    python = "\\" not in text
    for written, meant in _RELATIONS:
        text = text.replace(written, meant)
    if not python:
        return _FRAC_COMMAND.sub(r"\\frac{\1}{\2}", _FRACTION.sub(r"\\frac", text))
    text = _PY_POWER.sub(lambda match: "^{" + (match.group(1) or match.group(2)) + "}", text)
    text = re.sub(r"(?<![A-Za-z])oo(?![A-Za-z])", r"\\infty", _PY_NAME.sub(r"\\\1 ", text))
    return _roots(text.replace("%", "\\%").replace("π", "\\pi ").replace("√(", "sqrt("))


def _roots(text: str) -> str:
    """`sqrt(…)` as `\\sqrt{…}`, nested ones included; unbalanced parentheses stay."""
    closing: dict[int, int] = {}
    stack: list[int] = []
    for index, character in enumerate(text):
        if character == "(":
            stack.append(index)
        elif character == ")" and stack:
            closing[stack.pop()] = index
    pieces = list(text)
    for match in re.finditer(r"(?<![\\A-Za-z])sqrt\(", text):
        start = match.end() - 1
        if start in closing:
            pieces[match.start()] = "\\" + text[match.start()]
            pieces[start], pieces[closing[start]] = "{", "}"
    return "".join(pieces)
