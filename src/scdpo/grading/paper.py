"""The answer rule of the code released with the SCDPO paper, so that numbers can be compared.

Paper: "Step-Controlled DPO", arXiv 2407.00782; its code is GitHub `mathllm/Step-Controlled_DPO`.
There a single function judges all data sets, in sampling and in evaluation. It takes the box out
of the solution's last block, cleans both answers by string replacements, and calls them equal if
the strings are equal, if their comma-separated parts are the same set, or if both are arithmetic
and round to the same two decimals. It parses with latex2sympy2 1.9.1 and runs Python's `eval` on
the output. This module computes the same results with a small grammar and evaluates no code. (The
recorded MathCoder solutions were judged by an older rule of the same group, which removes more
units and computes roots: `mathllm/MathCoder`.)

The rule is kept apart from ours on purpose: its boxes and its arithmetic keep the quirks of the
released code, and no change of ours may reach it.

Differences from our own rule (`final_answer` and `Grader`), each with an example in
docs/grading.md: the first boxed number counts, a solution without a box is an answer as a whole,
only what follows the last `=` is compared, percent signs are dropped, mixed numbers are products,
roots and constants have no value, whole numbers never equal quotients, no algebra, and there is
no `undecided`.

Left out, since no gold answer of the paper's data sets needs them, are binomials and `\\over`;
relations between numbers, which the original compares as 0 and 1; the square root for a literal
exponent 0.5; and quotients by a decimal, some of which the original computes wrongly (`-12/0.5`
is -6 there). `grading.judging` has the exception for the simuleq set, which accepts any number in
the box.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

MAX_LENGTH = 1_000
"""Longest text read as arithmetic, in characters; longer texts are compared as strings."""
MAX_DEPTH = 40
MAX_BITS = 10_000
"""Most bits of an intermediate number; Python refuses to print integers of 4,300 digits."""
DECIMALS = 2

_BOX = re.compile(r"oxed\{", re.IGNORECASE)
_REWRITTEN = (
    *((" ", ""), ("\n", ""), ("\\,", ""), ("∞", "\\infty"), ("+\\infty", "\\infty")),
    *(("\\\\", "\\"), ("\\text", ""), ("\\mbox", ""), ("\\left", ""), ("\\right", "")),
    *(("bmatrix", "pmatrix"), ("^{\\circ}", ""), ("^\\circ", ""), ("{m}^3", ""), ("m^3", "")),
    *(("{units}", ""), ("units", ""), ("{km}", ""), ("km", ""), ("\\!", ""), ("\\\\", "\\")),
    *(("tfrac", "frac"), ("dfrac", "frac"), ("\\$", ""), ("$", ""), ("\\%", ""), ("{.", "{0.")),
)
_BARE_ROOT = re.compile(r"\\sqrt(?!\{|\\sqrt)(.)", re.DOTALL)
_BARE_FRACTION = re.compile(r"\\frac(?!\{|\\frac)(.)(?:(?=\{)|(?!\\frac)(.))", re.DOTALL)

_TOKEN = re.compile(
    r"[\s~]*(?:(?P<number>[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?|\.[0-9]+)"
    r"|(?P<mark>\\(?:frac|cdot|times|div)(?![a-z])|\\[{}]|[-+*/:^(){}\[\].&_])|(?P<end>$))"
)
_CLOSERS = {"(": ")", "{": "}", "[": "]", "\\{": "\\}"}
_TIMES = ("*", "\\cdot", "\\times")
_OVER = ("/", ":", "\\div")
_ENDS = ("", ".", "&", "_", *_CLOSERS.values())
"""What may follow a number: the original's grammar stops there and ignores the rest."""

_Value = int | float
"""An int until something is divided, and a float from then on, even where its value is whole.

Python prints the first as `3` and the second as `3.0`, and the original compares the output.
"""


def paper_answer(text: str) -> str | None:
    """The answer that the code released with arXiv 2407.00782 reads off a solution's last step.

    From the first box to the last brace of the text, or to the first brace where none is opened
    before it: of the boxes `\\boxed{5}, \\boxed{6}` the first is the answer, while
    `\\boxed{x^{2}}, \\boxed{6}` gives `x^{2}}, \\boxed{6`, of which `paper_equal` reads only a
    number at the front. Without a box, or if it is never closed, the whole text is the answer.
    None if nothing is left. Our rule, `final_answer`, takes the last complete box.
    """
    text = text.replace("{}", "")
    box, end = _BOX.search(text), text.rfind("}")
    answer = text[box.end() : end] if box is not None and end >= box.end() else text
    opening, closing = answer.find("{"), answer.find("}")
    if closing >= 0 and (opening < 0 or closing < opening):
        answer = answer[:closing]
    return answer.strip(" \n") or None


def paper_equal(gold: str, answer: str | None) -> bool:
    """Whether the code released with arXiv 2407.00782 counts `answer` as correct.

    `answer` is what `paper_answer` returned; None is wrong. `gold` may be as in the data set: the
    authors' files have braces added to fractions (`\\frac65`) and units in `\\text{ …}` cut off,
    which is done here to the gold answer and, as there, not to the model's.
    """
    gold = _clean(paper_answer(gold.split("\\text{ ")[0] or gold) or "", brace=True)
    answer = _clean(answer or "")
    if not gold or not answer:
        return False
    gold, answer = _rounded_tuple(gold), _rounded_tuple(answer)
    if gold == answer or ("," in gold and set(gold.split(",")) == set(answer.split(","))):
        return True
    number = _rounded(gold)
    return number is not None and number == _rounded(answer)


def _clean(answer: str, brace: bool = False) -> str:
    """The spelling in which the released code compares answers.

    Lower case, the part after the last `=` or `\\approx`, no spaces, and without degrees,
    currency, percent signs and the three units it knows. It braces `\\frac12` only next to a
    root; `brace` does it everywhere.
    """
    text = answer.lower().split("=")[-1].split("\\approx")[-1]
    for written, meant in _REWRITTEN:
        text = text.replace(written, meant)
    if text.startswith("."):
        text = "0" + text
    text = _BARE_ROOT.sub(r"\\sqrt{\1}", text)
    return _BARE_FRACTION.sub(_braced, text) if brace or "sqrt" in text else text


def _braced(fraction: re.Match[str]) -> str:
    over, under = fraction.groups()
    return f"\\frac{{{over}}}" + ("" if under is None else f"{{{under}}}")


def _rounded_tuple(text: str) -> str:
    """`(a,b,…)` with every item rounded; unchanged if it is no tuple or an item has no value."""
    items = text[1:-1].split(",")
    if not (text.startswith("(") and text.endswith(")")) or len(items) < 2:
        return text
    rounded: list[str] = []
    for item in items:
        kept = "infty" in item or item in ("a", "-a")
        number = item if kept else _rounded(item)
        if number is None:
            return text
        rounded.append(number)
    return f"({','.join(rounded)})"


def _rounded(text: str) -> str | None:
    """The value of `text` at two decimals, as the released code prints it; None without a value."""
    if len(text) > MAX_LENGTH:
        return None
    try:
        return str(round(_Arithmetic(text).whole(), DECIMALS))
    except (_NoValueError, ZeroDivisionError, OverflowError):
        return None


class _NoValueError(ValueError):
    """The text is not arithmetic, or its value is too large."""


class _Arithmetic:
    """Recursive descent over a text, which is read as far as its first complete expression."""

    def __init__(self, text: str):
        self.text = text
        self.at = 0
        self.depth = 0

    def whole(self) -> _Value:
        value = self.sum()
        if self.peek() not in _ENDS:
            raise _NoValueError
        return value

    def peek(self) -> str:
        """The next token; the empty string at the end of the text."""
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            raise _NoValueError
        return match.group(match.lastgroup or "end")

    def take(self, expected: str = "") -> str:
        """Consume and return the next token, which must be `expected` if that is given."""
        match = _TOKEN.match(self.text, self.at)
        token = "" if match is None else match.group(match.lastgroup or "end")
        if match is None or not token or (expected and token != expected):
            raise _NoValueError
        self.at = match.end()
        return token

    def sum(self) -> _Value:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _NoValueError
        value = self.product()
        while self.peek() in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
            value = _bounded(value + sign * self.product())
        self.depth -= 1
        return value

    def product(self) -> _Value:
        value = self.signed()
        while (operator := self.peek()) in _TIMES or operator in _OVER:
            self.take()
            factor = self.signed()
            value = _bounded(value * factor if operator in _TIMES else value / factor)
        return value

    def signed(self) -> _Value:
        sign = 1
        while self.peek() in ("+", "-"):
            sign = -sign if self.take() == "-" else sign
        return sign * self.adjacent()

    def adjacent(self) -> _Value:
        """Factors without a sign between them, mixed numbers too; they bind before `/`."""
        value = self.power()
        while (token := self.peek()) == "\\frac" or token in _CLOSERS or _is_number(token):
            value = _bounded(value * self.power())
        return value

    def power(self) -> _Value:
        value = self.atom()
        while self.peek() == "^":
            self.take()
            if self.peek() != "{" and not _is_number(self.peek()):
                raise _NoValueError
            value = _bounded(_power(value, self.atom()))
        return value

    def atom(self) -> _Value:
        token = self.take()
        if _is_number(token):
            number = Fraction(token.replace(",", ""))
            return number.numerator if number.denominator == 1 else float(number)
        if token == "\\frac":
            over, under = self.group("{"), self.group("{")
            return _bounded(over / under)
        if token in _CLOSERS:
            self.at -= len(token)
            return self.group(token)
        raise _NoValueError

    def group(self, opening: str) -> _Value:
        self.take(opening)
        value = self.sum()
        self.take(_CLOSERS[opening])
        return value


def _is_number(token: str) -> bool:
    return token[-1:].isdigit()


def _bounded(value: _Value) -> _Value:
    if value.bit_length() > MAX_BITS if isinstance(value, int) else not math.isfinite(value):
        raise _NoValueError
    return value


def _power(base: _Value, exponent: _Value) -> _Value:
    """`base ** exponent`, without computing what is too large, and without complex numbers."""
    if isinstance(base, int) and isinstance(exponent, int) and exponent >= 0:
        if base.bit_length() * exponent > MAX_BITS:
            raise _NoValueError
        return int(base**exponent)
    if base < 0 and exponent != int(exponent):
        raise _NoValueError
    return float(float(base) ** float(exponent))
