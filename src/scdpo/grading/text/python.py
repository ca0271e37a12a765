"""Answers as Python and SymPy print them, in mathematical notation."""

from __future__ import annotations

import re

from scdpo.grading.text.brackets import closing, enclosed, split

_WRAPPER = re.compile(
    r"\b(?:(?:np|numpy|sympy|sp|decimal|fractions)\.)?"
    r"(?:u?int\d*|float\d*|Integer|Float|Decimal|mpf|str_?)\(\s*['\"]?([^()'\"]*)['\"]?\s*\)"
)
_FRACTION = re.compile(
    r"\b(?:fractions\.|sympy\.)?(?:Fraction|Rational)\(\s*(-?\d+)\s*,\s*(\d+)\s*\)"
)
_SEQUENCE = re.compile(
    r"(?:np\.|numpy\.)?(?:array|list|FiniteSet|set|tuple|Matrix|Point)\((.*)\)", re.DOTALL
)
_DICT = re.compile(r"\{\s*['\"]?[A-Za-z_]\w*['\"]?\s*:\s*[^<>]*\}")
_LONE_DICT = re.compile(r"\[(\{[^{}\[\]]*\})\]")
"""The output of SymPy's `solve` for a single solution of several unknowns."""
_CALL = re.compile(
    r"(?<![A-Za-z.])(?:sympy\.|sp\.)?"
    r"(Interval(?:\.open|\.Lopen|\.Ropen)?|Union|Point[23]D|Poly"
    r"|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Abs|FiniteSet)\("
)
_RELATION = {"Eq": "=", "Ne": "!=", "Lt": "<", "Le": "<=", "Gt": ">", "Ge": ">="}
_JOINED = {"Union": " ∪ ", "And": " and ", "Or": " or "}
_SETS = {"EmptySet": "∅", "Reals": "ℝ", "Integers": "ℤ", "Naturals": "ℕ", "Rationals": "ℚ"}
_SET = re.compile(rf"(?:S\.)?({'|'.join(_SETS)})(?:\(\))?")
_LOGIC = re.compile(r"[<>=][^&|]*(?:\) ?[&|] ?\(|&[^&|]*[<>])")
_UNBOUNDED = re.compile(r"-oo <=? ?\w+|\w+ <=? ?oo|\w+ >=? ?-oo|oo >=? ?\w+")


def without_reprs(text: str) -> str:
    """The numbers, containers, sets and relations of Python and SymPy in mathematical notation.

    `Fraction(1, 2)` is `(1/2)`, `Interval.open(0, oo)` is `(0, oo)`, `Eq(y, 2*x)` is `y = 2*x`,
    `(0 <= x) & (x < oo)` is `0 <= x`. A text with none of these is returned unchanged.
    """
    if "(" in text or "&" in text:
        text = _WRAPPER.sub(r"\1", _FRACTION.sub(r"(\1/\2)", text))
        if "\\" not in text:
            text = _without_logic(_without_calls(text))
        sequence = _SEQUENCE.fullmatch(text)
        text = sequence.group(1) if sequence is not None else text
    if text.endswith(",)") and text.startswith("("):
        text = text[1:-2]
    text = _LONE_DICT.sub(r"\1", text)
    if _DICT.fullmatch(text) and "\\" not in text:
        text = ", ".join(part.replace(":", "=", 1) for part in text[1:-1].split(","))
    name = _SET.fullmatch(text)
    return _SETS[name.group(1)] if name is not None else text


def _without_calls(text: str) -> str:
    """`text` with SymPy's sets, points and relations written out, the innermost first."""
    calls = list(_CALL.finditer(text))
    for call in reversed(calls):
        end = closing(text, call.end() - 1)
        if end is None:
            continue
        written = _written(call.group(1), _pieces(text[call.end() : end], ","))
        if written is not None:
            text = text[: call.start()] + written + text[end + 1 :]
    return text


def _written(name: str, parts: list[str]) -> str | None:
    """A call in mathematical notation; None if its arguments do not fit."""
    if name.startswith("Interval"):
        return _interval(name.partition(".")[2], parts)
    if name in _RELATION:
        return f"{parts[0]} {_RELATION[name]} {parts[1]}" if len(parts) == 2 else None
    if name in _JOINED:
        return _JOINED[name].join(parts)
    if name == "Poly":
        return parts[0]
    if name == "Abs":
        return f"|{parts[0]}|" if len(parts) == 1 and "|" not in parts[0] else None
    inside = ", ".join(parts)
    return f"{{{inside}}}" if name == "FiniteSet" else f"({inside})"


def _interval(kind: str, parts: list[str]) -> str | None:
    """SymPy's interval; its third and fourth arguments say whether an end is open."""
    if not 2 <= len(parts) <= 4:
        return None
    open_at = [kind in ("open", "Lopen"), kind in ("open", "Ropen")]
    for index, flag in enumerate(parts[2:]):
        if flag.rpartition("=")[2].strip() not in ("True", "False"):
            return None
        open_at[index] = flag.endswith("True")
    low, high = parts[:2]
    left = "(" if open_at[0] or low == "-oo" else "["
    right = ")" if open_at[1] or high == "oo" else "]"
    return f"{left}{low}, {high}{right}"


def _without_logic(text: str) -> str:
    """`(-2 < x) & (x < 0) | (x > 3)` with `and` and `or`, without bounds at infinity."""
    if _LOGIC.search(text) is None:
        return text
    cases = [_pieces(_unwrapped(case), "&") for case in _pieces(_unwrapped(text), "|")]
    written: list[str] = []
    for case in cases:
        bounds = [_unwrapped(bound) for bound in case]
        kept = [bound for bound in bounds if not _UNBOUNDED.fullmatch(bound)] or bounds
        written.append(" and ".join(kept))
    return " or ".join(written)


def _unwrapped(text: str) -> str:
    """`text` without parentheses around all of it."""
    text = text.strip()
    while text.startswith("(") and enclosed(text):
        text = text[1:-1].strip()
    return text


def _pieces(text: str, mark: str) -> list[str]:
    """The pieces of `text` between marks that no bracket encloses."""
    return [piece.strip() for piece in split(text, re.compile(re.escape(mark)))]
