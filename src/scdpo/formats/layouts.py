"""Solutions recorded by other projects, read as steps of our formats.

Layout `mathcoder` (github.com/mathllm/MathCoder, folder `outs/`): `debug_result` lists blocks with
the roles system, user, text, code and execution; in a finished solution, the last block repeats
the extracted answer. Layout `tora` (github.com/microsoft/ToRA): `code` holds fenced solutions with
their outputs, `gt` the gold answer, and `pred` the extracted answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from scdpo.errors import DataError, InputError
from scdpo.formats.blocks import EMPTY_EXECUTION, END_OF_BLOCK, MARKERS, Blocks
from scdpo.formats.cutting import END
from scdpo.formats.fenced import Fenced
from scdpo.records import Record, Step

Row = dict[str, Any]
Block = tuple[str, str]
"""Role and content of one block of a MathCoder row."""

ROLES = ("text", "code", "execution")


class RecordedSolution(Record):
    """One recorded solution.

    `id` is the row's own id, or else its line number; it is not unique across files. `gold` and
    `gold_solution` are the row's gold answer and worked solution. `recorded_answer` is what the
    row's authors extracted (for an unfinished solution, possibly a whole block). `finished` is
    false if a limit cut the solution. `oddities` name what is unusual about it: `cut`, `text after
    text`, `code after execution`, `code without execution`, `execution without code`, `empty
    execution`, `empty block`, `marker in a block`.
    """

    id: str
    line: int
    format: str
    question: str
    prompt: str
    gold: str
    gold_solution: str
    steps: tuple[Step, ...]
    recorded_answer: str | None
    finished: bool
    oddities: tuple[str, ...] = ()


def read_recorded(path: Path | str, layout: str, *, end: str = END) -> Iterator[RecordedSolution]:
    """The solutions of a file in `layout`, in order, with every character preserved.

    `end` is appended to finished solutions, which were recorded without their end marker; an
    empty string leaves them as they are. Raises InputError for an unknown layout, and DataError
    with the line number for a row that does not match the layout.
    """
    if layout not in LAYOUTS:
        raise InputError(f"unknown layout {layout!r}; known: {', '.join(LAYOUTS)}")
    read = LAYOUTS[layout]
    for line, row in _json_lines(Path(path)):
        try:
            solutions = read(row, line, end)
        except KeyError as error:
            raise DataError(f"layout {layout!r}: no {error.args[0]!r}", path, line) from error
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            raise DataError(f"not in layout {layout!r}: {error}", path, line) from error
        yield from solutions


def _json_lines(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path) from error
    for number, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        try:
            row = json.loads(raw)
        except ValueError as error:
            raise DataError(f"malformed JSON: {error}", path, number) from error
        if not isinstance(row, dict):
            raise DataError(f"expected a JSON object, found {_kind(row)}", path, number)
        yield number, row


def _mathcoder(row: Row, line: int, end: str) -> list[RecordedSolution]:
    blocks = [
        (_text(b["role"], "role"), _text(b["content"], "content")) for b in row["debug_result"]
    ]
    question = _text(row["messages"][-1]["content"][0]["content"], "question")
    (first, system), (second, asked), *body = blocks
    if (first, second) != ("system", "user") or asked != question:
        raise ValueError("debug_result must start with the system prompt and the question")
    for role, _ in body:
        if role not in ROLES:
            raise ValueError(f"block with role {role!r}; known roles are {', '.join(ROLES)}")
    finished = _repeats_answer(body)
    solution = body[:-1] if finished else body
    cut = not finished and bool(solution) and solution[-1][0] == "text"
    text = "".join(f"<|{role}|>{content}{END_OF_BLOCK}" for role, content in solution)
    text = text.removesuffix(END_OF_BLOCK) if cut else text + end * finished
    format_ = Blocks(system=system, end=(end,) if end else ())
    gold = row["ground_truth"]
    return [
        RecordedSolution(
            id=str(row.get("id", line)),
            line=line,
            format=format_.name,
            question=question,
            prompt=format_.prompt(question),
            gold=_answer(gold["answer"]),
            gold_solution=_text(gold["solution"], "solution"),
            steps=format_.parse(text),
            recorded_answer=_text(row["completion"], "completion"),
            finished=finished,
            oddities=_oddities(solution, finished),
        )
    ]


def _repeats_answer(body: list[Block]) -> bool:
    """Whether the last block only repeats the answer found in the block before it.

    If a limit cut the solution before its answer, the last block is part of the solution: the
    block before it has no box and does not contain it.
    """
    if len(body) < 2 or body[-1][0] != "text":
        return False
    (role, before), (_, last) = body[-2:]
    return last in before or (role == "text" and "\\boxed" in before)


def _oddities(blocks: list[Block], finished: bool) -> tuple[str, ...]:
    roles = ["", *(role for role, _ in blocks), ""]
    pairs = set(pairwise(roles))
    oddities = {
        "cut": not finished,
        "text after text": ("text", "text") in pairs,
        "code after execution": ("execution", "code") in pairs,
        "code without execution": any(a == "code" and b != "execution" for a, b in pairs),
        "execution without code": any(b == "execution" and a != "code" for a, b in pairs),
        "empty execution": ("execution", EMPTY_EXECUTION) in blocks,
        "empty block": any(not content.strip() for _, content in blocks),
        "marker in a block": any(m in content for _, content in blocks for m in MARKERS),
    }
    return tuple(name for name, present in oddities.items() if present)


def _tora(row: Row, line: int, end: str) -> list[RecordedSolution]:
    solutions, answers = row["code"], row["pred"]
    if not isinstance(solutions, list) or not isinstance(answers, list):
        raise ValueError("code and pred must be lists")
    if len(solutions) != len(answers):
        raise ValueError(f"{len(solutions)} solutions in code, but {len(answers)} answers in pred")
    row_id = str(row.get("idx", line))
    return [
        _tora_solution(
            row, line, row_id if len(solutions) == 1 else f"{row_id}-{n}", text, answer, end
        )
        for n, (text, answer) in enumerate(zip(solutions, answers, strict=True))
    ]


def _tora_solution(
    row: Row, line: int, row_id: str, text: str, answer: str | None, end: str
) -> RecordedSolution:
    question = _text(row["question"], "question")
    finished = Fenced(end=()).finished(_text(text, "code"))
    format_ = Fenced(end=(end,) if end else ())
    steps = format_.parse(text + end * finished)
    oddities = {
        "cut": not finished,
        "code without execution": any("```python" in s.text for s in steps if s.kind == "text"),
        "empty execution": any(s.kind == "code" and not s.output for s in steps),
    }
    return RecordedSolution(
        id=row_id,
        line=line,
        format=format_.name,
        question=question,
        prompt=format_.prompt(question),
        gold=_answer(row["gt"]),
        gold_solution=_text(row.get("gt_cot", ""), "gt_cot"),
        steps=steps,
        recorded_answer=None if answer is None else _text(answer, "pred"),
        finished=finished,
        oddities=tuple(name for name, present in oddities.items() if present),
    )


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} must be a string, found {_kind(value)}")
    return value


def _answer(value: object) -> str:
    """A gold answer as text; 51.0 becomes 51."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        raise ValueError(f"no gold answer (found {value!r})")
    return str(value)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", type(None): "null", bool: "a boolean"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else "a string")


LAYOUTS: dict[str, Callable[[Row, int, str], list[RecordedSolution]]] = {
    "mathcoder": _mathcoder,
    "tora": _tora,
}
"""The layouts of recorded solutions by name."""
