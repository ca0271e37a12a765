"""Symbolic equality with Math-Verify. It may never return, so only worker processes run it."""

from __future__ import annotations

import random
from fractions import Fraction
from functools import lru_cache
from typing import Any

from scdpo.grading.quantities.equality import ROUNDED, rounds_to
from scdpo.grading.quantities.quantity import quantity
from scdpo.grading.text.normalise import clean, latex
from scdpo.records import CORRECT, WRONG, Verdict, undecided

RELATIVE_TOLERANCE = 1e-5
"""Math-Verify rounds numbers to six decimals, under which all tiny numbers are equal."""


def compare(gold: str, answer: str) -> Verdict:
    """Whether two answers are the same mathematical object.

    The verdict is undecided when either side cannot be parsed or the comparison fails. There is
    no time limit.
    """
    from math_verify import verify

    golds, answers = _parsed(gold), _parsed(answer)
    if not golds:
        return undecided("cannot parse the gold answer")
    if not answers:
        return undecided("cannot parse the answer")
    random.seed(0)  # sympy's numeric tests draw points: the same ones for the same pair
    try:
        equal = verify(golds, answers, timeout_seconds=None, raise_on_error=True)
    except MemoryError:
        return undecided("memory")
    except RecursionError:
        return undecided("nested too deeply")
    except Exception as error:
        return undecided(f"cannot compare: {type(error).__name__}")
    if equal and _far_apart(golds[0], answers[0]):
        equal = False
    if not equal and _same_symbol(golds[0], answers[0]):
        equal = True
    if not equal and _rounded(golds[0], answer):
        return undecided(ROUNDED)
    return CORRECT if equal else WRONG


@lru_cache(maxsize=4096)
def _parsed(text: str) -> list[Any]:
    """Sympy objects of an answer's whole text; empty when it cannot be parsed."""
    text = latex(text)
    # Stripping units takes variables such as m, g and t for units, so try the likelier way first.
    units = any(command in text for command in ("\\text", "\\mathrm", "\\mbox"))
    return _parse(text, units) or _parse(text, not units)


def _parse(text: str, units: bool) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse
    from math_verify.parser import NormalizationConfig

    normalization = NormalizationConfig(
        basic_latex=True, units=units, malformed_operators=True, nits=True, boxed="all"
    )
    try:
        return list(
            parse(
                f"${text}$",
                extraction_config=[LatexExtractionConfig(normalization_config=normalization)],
                fallback_mode="no_fallback",
                parsing_timeout=None,
                raise_on_error=True,
            )
        )
    except Exception:
        return []


def _same_symbol(first: Any, second: Any) -> bool:
    """Whether an expression simplifies to a symbol, which Math-Verify would compare as text."""
    from sympy import Expr, Symbol

    if not (isinstance(first, Expr) and isinstance(second, Expr)):
        return False
    if not (isinstance(first, Symbol) or isinstance(second, Symbol)):
        return False
    return bool((first - second).doit() == 0)


def _far_apart(first: Any, second: Any) -> bool:
    """Whether two constants differ by more than rounding can explain."""
    from sympy import Expr

    if not (isinstance(first, Expr) and isinstance(second, Expr)):
        return False
    if not (first.is_number and second.is_number):
        return False
    try:
        size = abs(first.evalf(30))
        return bool(abs((first - second).evalf(30)) > RELATIVE_TOLERANCE * size) and size != 0
    except Exception:
        return False


def _rounded(gold: Any, answer: str) -> bool:
    """Whether the answer is a short decimal that the gold constant rounds to."""
    from sympy import Expr

    written = quantity(clean(answer))
    if written is None or not isinstance(gold, Expr) or not gold.is_number:
        return False
    try:
        exact = Fraction(str(gold.evalf(30)))
    except (ValueError, TypeError):
        return False
    return rounds_to(exact, written.number)
