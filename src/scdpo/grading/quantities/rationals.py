"""Exact rational numbers from plain and LaTeX arithmetic, without evaluating any code."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

MAX_LENGTH = 400
"""Longest text read as a number, in characters."""
MAX_DEPTH = 40
MAX_BITS = 200_000
"""Most bits of an intermediate numerator or denominator: 2006! fits, 20,000! does not."""
MAX_FACTORIAL = 3_000
MAX_EXPONENT = 100_000

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,4})?)"
    r"|(?P<op>\\frac|\\cdot|\\times|\\div|\*\*|[-+*/^(){}!%×÷]))"
)
_GROUPED = re.compile(
    r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])|^-?\d{1,3}(?: \d{3})+(?=$|\.\d)"
)
_DECIMAL = re.compile(r"[-+]?(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d{1,4}))?")
_PLAIN = re.compile(r"-?(?:[0-9]+|[1-9][0-9]{0,2}(?:,[0-9]{3})+)(?:\.[0-9]+)?")
_TIMES = {"*", "\\cdot", "\\times", "×"}
_OVER = {"/", "\\div", "÷"}


APPROXIMATE = -1
FLOAT_DECIMALS = 6
"""Decimals from which a number is taken for the output of a floating-point computation."""


@dataclass(frozen=True, slots=True)
class Number:
    """An exact value and, for a plain decimal, how many decimals it was written with.

    `decimals` is None for everything that is not a decimal literal (fractions, products).
    `digits` counts its significant digits; APPROXIMATE marks the value of a root or of π.
    """

    value: Fraction
    decimals: int | None = None
    digits: int = 0


class _NotANumberError(ValueError):
    """The text is not rational arithmetic, or too large to be computed exactly."""


@lru_cache(maxsize=8192)
def decimal(text: str) -> Number | None:
    """The number that a text consists of, in plain digits (`-15`, `1,500`, `2.50`); else None."""
    if len(text) > MAX_LENGTH or not _PLAIN.fullmatch(text):
        return None
    whole, _, decimals = text.lstrip("-").replace(",", "").partition(".")
    digits = len((whole + decimals).lstrip("0"))
    return Number(Fraction(text.replace(",", "")), len(decimals), digits)


def rational(text: str) -> Number | None:
    """The exact value of integers, decimals, fractions, mixed numbers and their arithmetic.

    Reads `+ - * / ^ ! %`, `\\times`, `\\cdot`, `\\div`, `\\frac{a}{b}`, parentheses, braces,
    digit groups (`1,234`), exponents (`1.5e-3`) and mixed numbers (`1\\frac{5}{6}`, `1(5/6)`,
    `1 5/6`). None for anything else, for division by zero and for sizes beyond the limits.
    """
    if not text or len(text) > MAX_LENGTH:
        return None
    text = _GROUPED.sub(lambda match: match.group().replace(",", "").replace(" ", ""), text.strip())
    try:
        parser = _Parser(text)
        value = parser.whole()
    except (_NotANumberError, ZeroDivisionError):
        return None
    literal = _DECIMAL.fullmatch(text.replace(" ", ""))
    if literal is None or " " in text.strip("-+ "):
        return Number(value)
    decimals = len(literal.group(2) or "") - int(literal.group(3) or 0)
    digits = len(((literal.group(1) or "") + (literal.group(2) or "")).lstrip("0"))
    return Number(value, max(0, decimals), digits)


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise _NotANumberError
    return value


class _Parser:
    """Recursive descent over the tokens of a text."""

    def __init__(self, text: str):
        self.tokens: list[str] = []
        self.at = 0
        self.depth = 0
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise _NotANumberError
            self.tokens.append(match.group().strip())
            position = match.end()

    def whole(self) -> Fraction:
        value = self.sum()
        if self.at != len(self.tokens):
            raise _NotANumberError
        return value

    def peek(self, ahead: int = 0) -> str:
        index = self.at + ahead
        return self.tokens[index] if index < len(self.tokens) else ""

    def take(self, expected: str | None = None) -> str:
        token = self.peek()
        if not token or (expected is not None and token != expected):
            raise _NotANumberError
        self.at += 1
        return token

    def sum(self) -> Fraction:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _NotANumberError
        value = self.product()
        while self.peek() in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
            value = _bounded(value + sign * self.product())
        self.depth -= 1
        return value

    def product(self) -> Fraction:
        value = self.signed()
        while (operator := self.peek()) in _TIMES or operator in _OVER:
            self.take()
            factor = self.signed()
            value = _bounded(value * factor if operator in _TIMES else value / factor)
        return value

    def signed(self) -> Fraction:
        sign = 1
        while self.peek() in ("+", "-"):
            sign = -sign if self.take() == "-" else sign
        return sign * self.power()

    def power(self) -> Fraction:
        base = self.primary()
        while self.peek() in ("!", "%"):
            if self.take() == "%":
                base /= 100
                continue
            if base.denominator != 1 or not 0 <= base <= MAX_FACTORIAL:
                raise _NotANumberError
            if self.peek() == "!":  # 5!! is 5 · 3 · 1
                self.take()
                base = Fraction(math.prod(range(int(base), 0, -2)))
            else:
                base = Fraction(math.factorial(int(base)))
        if self.peek() not in ("^", "**"):
            return base
        self.take()
        exponent = self.signed()
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if exponent.denominator != 1 or abs(exponent) > MAX_EXPONENT:
            raise _NotANumberError
        if bits * abs(exponent) > MAX_BITS:
            raise _NotANumberError
        return base ** int(exponent)

    def primary(self) -> Fraction:
        token = self.take()
        if token in ("(", "{"):
            value = self.sum()
            self.take(")" if token == "(" else "}")
            return value
        if token == "\\frac":
            return _bounded(self.argument() / self.argument())
        if token[0].isdigit() or token[0] == ".":
            return self.mixed(_bounded(Fraction(token)), whole=token.isdigit())
        raise _NotANumberError

    def argument(self) -> Fraction:
        self.take("{")
        value = self.sum()
        self.take("}")
        return value

    def mixed(self, integer: Fraction, whole: bool) -> Fraction:
        """`integer` plus the proper fraction right after it, if there is one."""
        following = self.peek()
        if not whole or not (following in ("\\frac", "(") or following.isdigit()):
            return integer
        if following.isdigit():
            over, under = self.take(), (self.take("/"), self.take())[1]
        elif following == "(":
            self.take()
            over, under = self.take(), (self.take("/"), self.take())[1]
            self.take(")")
        else:
            self.take()
            over, under = (str(self.argument()) for _ in range(2))
        if not (over.isdigit() and under.isdigit() and 0 < int(over) < int(under)):
            raise _NotANumberError
        return integer + Fraction(int(over), int(under))
