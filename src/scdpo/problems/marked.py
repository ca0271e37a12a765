"""GSM8K's own solutions, with their calculator marks made into code steps.

A line such as ``Natalia sold 48/2 = <<48/2=24>>24 clips in May.`` holds a computation between
double angle brackets. The sentence keeps the expression and loses its value, a program computes
it, and later programs use the variable (arXiv 2110.14168 describes the marks).
"""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Iterator, Mapping

from scdpo.problems.gold import RowError, hash_mark_answer
from scdpo.problems.worked import evaluate
from scdpo.records import WorkedStep

_MARK = re.compile(r"<<(?P<inside>[^<>]*)>>")
_CURRENCY = "$€£"
_EQUALS = re.compile(rf"\s*=\s*[{_CURRENCY}]?\s*$")
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])")
_LEAST_NAMED = 13
"""Smaller numbers stay numbers: they are more often months, days or a dozen than an earlier
result."""


def without_marks(solution: str) -> str:
    """The worked solution as prose: without marks, with its answer in a box at the end."""
    lines = [_MARK.sub("", line) for line in _lines(solution)]
    return "\n".join([*lines, _final(solution)])


def marked_steps(solution: str) -> tuple[WorkedStep, ...]:
    """The worked solution as steps with programs and what they print.

    Lines without a computation go into the text of the next step. Raises RowError if the solution
    has no answer, no computation, or one that is false or cannot be read.
    """
    final = _final(solution)
    names = _names()
    values: dict[str, float] = {}
    steps: list[WorkedStep] = []
    said: list[str] = []
    for line in _lines(solution):
        text, computations = _taken_apart(line)
        said.append(text)
        if not computations:
            continue
        code: list[str] = []
        shown: list[str] = []
        for expression, stated in computations:
            name = next(names)
            program = _with_names(expression, values)
            value, program = _computed(program, values, stated)
            values[name] = value
            code.append(f"{name} = {program}")
            shown.append(name)
        output = ", ".join(repr(values[name]) for name in shown)
        steps.append(
            WorkedStep(
                text="\n".join(said),
                code="\n".join([*code, ", ".join(shown)]),
                output=f"({output})" if len(shown) > 1 else output,
            )
        )
        said = []
    if not steps:
        raise RowError("no computation in <<…>>")
    said.append(final)
    return (*steps, WorkedStep(text="\n".join(said)))


def _lines(solution: str) -> list[str]:
    """The lines of the solution that are not blank, without the one that states the answer."""
    body = solution.rpartition("####")[0]
    return [line.strip() for line in body.splitlines() if line.strip()]


def _final(solution: str) -> str:
    return f"The answer is \\boxed{{{hash_mark_answer(solution)}}}."


def _names() -> Iterator[str]:
    letters = string.ascii_lowercase
    yield from letters
    for number in itertools.count(1):
        yield from (f"{letter}{number}" for letter in letters)


def _taken_apart(line: str) -> tuple[str, list[tuple[str, str]]]:
    """The line without its computed values, and the computations: expression and stated value.

    A mark that computes nothing, or that no equals sign leads to, is only removed.
    """
    computations: list[tuple[str, str]] = []
    kept = ""
    at = 0
    for mark in _MARK.finditer(line):
        before = line[at : mark.start()]
        expression, equals, stated = mark["inside"].rpartition("=")
        sign = _EQUALS.search(before)
        value = re.match(rf"[{_CURRENCY}]?\s*-?\s*[\d,]*\.?\d+%?", line[mark.end() :])
        if not equals or not re.search(r"[-+*/%]", expression.strip()[1:]) or not (sign and value):
            kept += before
            at = mark.end()
            continue
        computations.append((expression, stated))
        kept += before[: sign.start()]
        at = mark.end() + value.end()
    return kept + line[at:], computations


def _computed(program: str, values: Mapping[str, float], stated: str) -> tuple[float, str]:
    """The value of a program, and the program, rounded where the stated value is."""
    try:
        value, said = evaluate(program, values), evaluate(_python(stated))
    except ValueError as error:
        raise RowError("a computation that cannot be read") from error
    if abs(value - said) <= 1e-9 * max(1.0, abs(said)):
        return value, program
    for places in range(5):
        if round(value, places) == said:
            rounded = round(value, places) if places else round(value)
            return rounded, f"round({program}, {places})" if places else f"round({program})"
    raise RowError("a false equation")


def _with_names(expression: str, values: Mapping[str, float]) -> str:
    """The expression in Python, with variables in place of the values that they hold."""
    held = {value: name for name, value in values.items() if abs(value) >= _LEAST_NAMED}
    named = _NUMBER.sub(lambda m: held.get(float(m[0]), m[0]), _python(expression))
    return re.sub(r"(?<=[\w)])\s*([-+*/])\s*", r" \1 ", named).strip()


def _python(expression: str) -> str:
    text = re.sub(rf"[{_CURRENCY}\s]", "", expression)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"([\d.]+)%", r"(\1/100)", text)
    text = re.sub(r"(?<![\w.])0+(?=\d)", "", text)  # Python has no 05
    text = re.sub(r"(?<![\d.])\.(?=\d)", "0.", text)
    return re.sub(r"(?<=[\d)])\(|(?<=\))(?=\d)", lambda m: "*" + m[0], text)
