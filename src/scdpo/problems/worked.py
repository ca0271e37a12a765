"""Worked solutions with written arithmetic, turned into step-by-step solutions with code.

A line such as ``Each row has 12 x 4 = 48 seats.`` contains an equation. Every equation is found
and checked, and its value is left to a program: the sentence keeps the expression, a code step
computes it, and later code steps use the variable. A line is used only if all its equations are
true, so that a policy trained on it never learns false arithmetic.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

NUMBER = r"\d+(?:,\d{3})+(?:\.\d+)?|\d*\.\d+|\d+"
_OPERATION = r"[-+*()]|/(?!\s?[a-zA-Z])"  # the slash in "kilometres/hour" is no division
_TOKEN = re.compile(rf"(?P<number>{NUMBER})(?P<percent>\s?%)?|(?P<op>{_OPERATION})|(?P<equal>=)")
_OPERATORS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_TIMES = re.compile(r"(?:(?<=[\d)%])\s*|(?<=[a-z])\s+)x\s*(?=[\d($€£])|\s*×\s*")


@dataclass(frozen=True, slots=True)
class Computed:
    """A sentence with its equations: `expressions[i]` evaluates to `values[i]`."""

    sentence: str
    expressions: tuple[str, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    start: int
    end: int


def evaluate(expression: str, names: Mapping[str, float] | None = None) -> float:
    """The value of an arithmetic expression over numbers and `names`, as Python computes it.

    Raises ValueError for anything other than numbers, names, + - * / and parentheses.
    """
    try:
        tree = ast.parse(expression, mode="eval").body
        return _evaluate(tree, names or {})
    except (SyntaxError, ArithmeticError, KeyError, RecursionError, MemoryError) as error:
        raise ValueError(f"{expression!r} is not an arithmetic expression") from error


def _evaluate(node: ast.expr, names: Mapping[str, float]) -> float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        assert isinstance(node.value, int | float)
        return node.value
    if isinstance(node, ast.Name):
        return names[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluate(node.operand, names)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _evaluate(node.left, names), _evaluate(node.right, names)
        return _OPERATORS[type(node.op)](left, right)
    raise ValueError("not arithmetic")


def plain_signs(line: str) -> str:
    """The line with plain operator signs and without bullets, currency signs or digit grouping."""
    line = re.sub(r"^\s*(?:[-•*]|\d+[.)])\s+", "", line).strip()
    line = line.replace("÷", "/").replace("−", "-").replace("–", "-")
    line = re.sub(r"(?<=\d),(?=\d{3}\b)", "", line)
    line = _TIMES.sub("*", line)
    return re.sub(r"[$€£]", "", line)


def computed(line: str) -> Computed | None:
    """Find every equation in a line; None if an equation is false or cannot be read.

    A line without an equals sign gives a `Computed` without expressions.
    """
    line = plain_signs(line)
    tokens = [_Token(_python(m), m.start(), m.end()) for m in _TOKEN.finditer(line)]
    expressions: list[str] = []
    values: list[float] = []
    cuts: list[tuple[int, int]] = []
    left = 0
    for index, token in enumerate(tokens):
        if token.text != "=":
            continue
        if index + 1 >= len(tokens) or not tokens[index + 1].text[0].isdigit():
            return None
        equation = _longest(tokens[left:index], evaluate(tokens[index + 1].text))
        if equation is None:
            return None
        expressions.append(equation[0])
        values.append(equation[1])
        cuts.append((token.start, _value_end(line, tokens[index + 1].end)))
        left = index + 2
    return Computed(_without(line, cuts), tuple(expressions), tuple(values))


def arithmetic(line: str) -> list[float]:
    """The values of the calculations in a sentence that states no results, in their order.

    Words and units between numbers and operators are passed over, as in ``12 x 4 seats``. A
    calculation ends where two numbers follow each other. What cannot be computed is left out.
    """
    tokens = [_Token(_python(m), m.start(), m.end()) for m in _TOKEN.finditer(plain_signs(line))]
    runs: list[list[_Token]] = [[]]
    for before, token in zip([None, *tokens], tokens, strict=False):
        numbers = before is not None and _is_number(before) and _is_number(token)
        if token.text == "=" or numbers:
            runs.append([])
        if token.text != "=":
            runs[-1].append(token)
    values: list[float] = []
    for run in runs:
        while run and run[-1].text in "+-*/(":
            run.pop()
        if sum(map(_is_number, run)) > 1:
            with suppress(ValueError):
                values.append(evaluate(_expression(run)))
    return values


def _is_number(token: _Token) -> bool:
    return any(character.isdigit() for character in token.text)


def _python(match: re.Match[str]) -> str:
    number = match["number"]
    if number is None:
        return match[0]
    number = number.replace(",", "")
    number = number.lstrip("0") or "0" if "." not in number else number
    number = "0" + number if number.startswith(".") else number
    return f"{number}/100" if match["percent"] else number


def _longest(tokens: list[_Token], stated: float) -> tuple[str, float] | None:
    """The longest run of tokens before the equals sign that computes the stated value."""
    for begin in range(len(tokens)):
        if len(tokens) - begin < 3:
            return None
        expression = _expression(tokens[begin:])
        try:
            value = evaluate(expression)
        except ValueError:
            continue
        if _same(value, stated):
            return _spaced(expression), value
    return None


def _expression(tokens: list[_Token]) -> str:
    """The tokens as Python; adjacent numbers stay separate."""
    text = " ".join(f"({token.text})" if "/100" in token.text else token.text for token in tokens)
    text = re.sub(r"(?<=\d) \(", "*(", text)
    return re.sub(r"(?<!\d) | (?!\d)", "", text)


def _same(value: float, stated: float) -> bool:
    """Whether two values are equal: exactly for integers, else up to floating-point error."""
    if isinstance(value, int) and isinstance(stated, int):
        return value == stated
    return abs(value - stated) <= 1e-9 * max(1.0, abs(stated))


def _spaced(expression: str) -> str:
    return re.sub(r"(?<=[\w)])([-+*/])", r" \1 ", expression)


def _value_end(line: str, end: int) -> int:
    return end + 1 if line[end : end + 1] == "%" else end


def _without(line: str, cuts: list[tuple[int, int]]) -> str:
    for start, end in reversed(cuts):
        line = line[:start].rstrip() + line[end:]
    return re.sub(r"\s+", " ", line).strip()
