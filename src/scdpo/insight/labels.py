"""Which steps of a solution are wrong: an oracle for the embedded problems, and human labels.

The oracle knows a problem's intermediate values, which its worked solution states. A step is wrong
if it states an equation that is false, or computes a value that is none of the true ones. It cannot
see a sentence that names the wrong thing, and takes a correct detour over other values for wrong.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from scdpo.errors import DataError, InputError
from scdpo.problems.worked import NUMBER, arithmetic, computed
from scdpo.records import Problem, Record, Solution, Step

_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")


class StepLabels(Record):
    """What is known about a solution's steps.

    `wrong` has an entry for each step: whether it is wrong, or None where nothing is known, as
    about all steps after the first wrong one. `first_wrong` is the index of that step, None if no
    step is known to be wrong.
    """

    solution_id: str
    wrong: tuple[bool | None, ...]
    first_wrong: int | None


def true_values(problem: Problem) -> frozenset[float]:
    """The values that a problem's worked solution computes, and its answer.

    Raises InputError for a problem without a worked solution, or with one whose equations cannot
    be read.
    """
    if not problem.solution:
        raise InputError(f"{problem.id}: no worked solution to take the true values from")
    lines = [computed(line) for line in problem.solution.split("\n")]
    if any(line is None for line in lines):
        raise InputError(f"{problem.id}: its worked solution has an equation that cannot be read")
    values = [value for line in lines if line is not None for value in line.values]
    return frozenset([*map(float, values), float(problem.answer.replace(",", ""))])


def oracle(problem: Problem, solution: Solution) -> StepLabels:
    """Which steps of a solution to an embedded problem are wrong.

    A step is judged by the values that its program printed, by the arithmetic in its sentences,
    and by the answer that it boxes. Raises InputError as `true_values` does.
    """
    return _labels(solution.id, wrong_steps(problem, solution.steps))


def wrong_steps(problem: Problem, steps: Iterable[Step]) -> list[bool | None]:
    """For each step of a solution, whether it is wrong, and None after the first wrong one; see
    `oracle`."""
    values = true_values(problem)
    known = values | _numbers(problem.question)
    wrong: list[bool | None] = []
    for step in steps:
        wrong.append(None if True in wrong else _is_wrong(step, values, known, problem))
    return wrong


def _labels(name: str, wrong: Sequence[bool | None]) -> StepLabels:
    first = next((n for n, bad in enumerate(wrong) if bad), None)
    return StepLabels(solution_id=name, wrong=tuple(wrong), first_wrong=first)


def _is_wrong(
    step: Step, values: frozenset[float], known: frozenset[float], problem: Problem
) -> bool:
    if step.kind == "code":
        printed = _numbers(step.output or "")
        # Code may also print a number of the question, and an error prints none of the values.
        return not printed or not all(_is_among(value, known) for value in printed)
    if boxed := _BOXED.findall(step.text):
        found = _numbers(boxed[-1])
        return not any(
            _is_among(value, {float(problem.answer.replace(",", ""))}) for value in found
        )
    line = computed(step.text)
    if line is None or line.expressions:
        return line is None or not all(_is_among(value, known) for value in line.values)
    # The last calculation is the step's own; others describe a quantity, such as a ratio.
    calculations = arithmetic(step.text)
    return bool(calculations) and not _is_among(calculations[-1], known)


def is_boxed(step: Step) -> bool:
    """Whether a step boxes an answer."""
    return bool(_BOXED.search(step.text))


def _numbers(text: str) -> frozenset[float]:
    return frozenset(float(number.replace(",", "")) for number in re.findall(NUMBER, text))


def _is_among(value: float, values: Iterable[float]) -> bool:
    return any(math.isclose(value, other, rel_tol=1e-9, abs_tol=1e-9) for other in values)


class HumanLabelled(Record):
    """A solution of ProcessBench (arXiv 2412.06559): its steps, and what experts say of them.

    `label` is the index of the first wrong step, -1 if there is none.
    """

    id: str
    generator: str
    problem: str
    steps: tuple[str, ...]
    final_answer_correct: bool
    label: int


def read_processbench(path: Path, limit: int | None = None) -> list[HumanLabelled]:
    """The rows of a ProcessBench file (JSON list, or JSONL). Raises DataError and InputError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        rows = json.loads(text) if text.lstrip().startswith("[") else _lines(text)
        known = HumanLabelled.model_fields
        found = [
            HumanLabelled.model_validate({k: v for k, v in row.items() if k in known})
            for row in rows[:limit]
        ]
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"not a file of ProcessBench: {str(error).splitlines()[0]}", path
        ) from error
    for row in found:
        if not -1 <= row.label < len(row.steps):
            raise DataError(f"{row.id}: label {row.label} of {len(row.steps)} steps", path)
    return found


def _lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines() if line.strip()]


Layout = Literal["processbench"]


def human_labels(row: HumanLabelled) -> StepLabels:
    """The labels of a row of ProcessBench."""
    first = row.label if row.label >= 0 else len(row.steps)
    wrong = [True if n == first else (False if n < first else None) for n in range(len(row.steps))]
    return _labels(row.id, wrong)
