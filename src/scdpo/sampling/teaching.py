"""Rows to learn from: a user's questions with solutions, in one of several layouts.

| layout | a row |
|---|---|
| `question-solution` | `question`, `solution` (text, perhaps with Markdown fences) |
| `question-steps` | `question`, `steps`: objects with `text`, `code`, `output` |
| `messages` | `messages`: a conversation; the assistant's text may be a list of blocks |
| `mathcoder`, `tora` | recorded solutions (see `formats.layouts`) |
| `gsm8k` | `question`, `answer` with calculator marks |

The first three may have `answer`, the gold answer (or a list of which any one is right).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from scdpo.errors import DataError, MissingDependency
from scdpo.formats import LAYOUTS as RECORDED
from scdpo.formats import Format, get_format, neutral, worked_steps
from scdpo.formats.blocks import EMPTY_EXECUTION
from scdpo.problems import one_of_several
from scdpo.problems.benchmarks import PATTERNS
from scdpo.problems.files import NumberedRow, file_rows, find_file, hub_rows
from scdpo.problems.gold import RowError, hash_mark_answer, number_text
from scdpo.problems.marked import marked_steps, without_marks
from scdpo.records import WorkedStep
from scdpo.sampling.rollout import SamplingSettings

Layout = Literal["question-solution", "question-steps", "messages", "mathcoder", "tora", "gsm8k"]
Row = Mapping[str, Any]

WANTED: dict[Layout, tuple[str, ...]] = {
    "question-solution": ("question", "solution"),
    "question-steps": ("question", "steps"),
    "messages": ("messages",),
    "mathcoder": ("messages", "debug_result", "ground_truth", "completion"),
    "tora": ("question", "code", "pred", "gt"),
    "gsm8k": ("question", "answer"),
}
"""The columns that a row of each layout must have."""
_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+")
_SUFFIXES = (".jsonl", ".json", ".tsv", ".parquet")
_HUB_CONFIGS = {"gsm8k": ("main",)}
_ROLES = {"human": "user", "gpt": "assistant"}


class SFTData(SamplingSettings):
    """Questions with solutions to learn from."""

    path: str = Field(
        description="A file (JSON Lines, a JSON array, parquet), a folder that holds the file of "
        "`split`, or a data set on the Hugging Face hub."
    )
    layout: Layout = Field(
        "question-solution",
        description=f"How rows hold question and solution: {', '.join(get_args(Layout))}.",
    )
    columns: dict[str, str] = Field(
        {},
        description="Names of the data's columns where they differ from the layout's, such as "
        "`{question: problem}`.",
    )
    split: str = Field("train", description="The split to read.")
    config: str | None = Field(None, description="The configuration of a data set on the hub.")
    limit: int | None = Field(None, ge=1, description="Read at most this many rows.")
    offset: int = Field(0, ge=0, description="Skip this many rows at the beginning.")
    dataset: str | None = Field(
        None,
        description="The data set's name in rows; by default the layout's if that is `gsm8k`, "
        "else the file's.",
    )
    execute: bool = Field(
        False,
        description="Run the programs: outputs that are missing are filled in, and a solution "
        "whose recorded outputs are not printed again is not used.",
    )
    grade: bool = Field(
        True,
        description="Compare answers with the gold answers of rows that have one; only correct "
        "solutions are used.",
    )

    @property
    def name(self) -> str:
        """The data's name in ids of rows: that of the file or data set."""
        return Path(self.path).name.split(".")[0] or "data"

    @property
    def dataset_name(self) -> str:
        """The name of the data set that questions belong to."""
        return self.dataset or ("gsm8k" if self.layout == "gsm8k" else self.name)


@dataclass(frozen=True, slots=True)
class Taught:
    """A row to learn from: a question and its solution, not yet in a format.

    `text` is the solution as it was written, where that is natural language that formats take
    verbatim; `steps` are its steps. `golds` are the gold answers, none if the row has none. `row`
    names the row: its number, counted from 1. `system` is the row's own system text. A row that
    cannot be used has a `reason`.
    """

    row: str
    question: str = ""
    golds: tuple[str, ...] = ()
    several: bool = False
    steps: tuple[WorkedStep, ...] = ()
    text: str | None = None
    system: str = ""
    reason: str = ""


def read_taught(data: SFTData, format: Format) -> list[Taught]:
    """The rows of the data, for writing them in `format`.

    Raises DataError where the data cannot be read, is empty, or has no row in the layout, and
    MissingDependency without the extra `datasets` where that is needed.
    """
    numbered = enumerate(_rows(data), start=1)
    last = None if data.limit is None else data.offset + data.limit
    taught: list[Taught] = []
    found: dict[str, None] = {}
    for number, (_, row) in islice(numbered, data.offset, last):
        found.update(dict.fromkeys(row))
        try:
            read = READ[data.layout](_renamed(row, data.columns), format)
        except RowError as error:
            taught.append(Taught(row=str(number), reason=str(error)))
            continue
        names = [str(number) if len(read) == 1 else f"{number}-{n}" for n in range(len(read))]
        taught += [replace(one, row=name) for one, name in zip(read, names, strict=True)]
    _check(data, taught, list(found))
    several = data.dataset_name
    return [
        replace(one, several=True) if one_of_several(several, one.question) else one
        for one in taught
    ]


def _check(data: SFTData, taught: list[Taught], found: list[str]) -> None:
    """Raise DataError if there are no rows or if none of them is in the layout."""
    if not taught:
        after = f" after the first {data.offset}" if data.offset else ""
        raise DataError(f"no rows in it{after}", data.path)
    if not all(one.reason for one in taught):
        return
    wanted = WANTED[data.layout]
    missing = [name for name in wanted if data.columns.get(name, name) not in found]
    if missing:
        named = ", ".join(f"{name}: COLUMN" for name in missing)
        raise DataError(
            f"layout {data.layout} needs the columns {', '.join(wanted)}; the rows have"
            f" {', '.join(map(str, found)) or 'none'}; name them with columns: {{{named}}}",
            data.path,
        )
    raise DataError(
        f"none of {len(taught)} rows is in layout {data.layout} (row {taught[0].row}:"
        f" {taught[0].reason})",
        data.path,
    )


def data_file(data: SFTData) -> Path | None:
    """The file that holds the rows; None for a data set on the hub.

    Raises DataError if there is none.
    """
    path = Path(data.path)
    if path.is_dir():
        return find_file(path, PATTERNS, data.split)
    if path.exists():
        return path
    if _HUB_NAME.fullmatch(data.path) and path.suffix not in _SUFFIXES:
        return None
    raise DataError("no such file or folder", data.path)


def _rows(data: SFTData) -> Iterator[NumberedRow]:
    path = data_file(data)
    if path is not None:
        return _parquet_rows(path) if path.suffix == ".parquet" else file_rows(path)
    configs = (data.config,) if data.config else _HUB_CONFIGS.get(data.layout, ())
    return hub_rows(data.path, configs, data.split)


def _parquet_rows(path: Path) -> Iterator[NumberedRow]:
    try:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingDependency("pyarrow", "datasets") from error
    try:
        table = pyarrow.parquet.ParquetFile(path)
        for batch in table.iter_batches():
            for row in batch.to_pylist():
                yield None, row
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"not a parquet file: {str(error).splitlines()[0]}", path) from error


def _renamed(row: Row, columns: Mapping[str, str]) -> Row:
    """The row with the layout's names for its columns."""
    if not columns:
        return row
    kept = {key: value for key, value in row.items() if key not in columns.values()}
    return kept | {name: row[column] for name, column in columns.items() if column in row}


# ---- layouts


def _question_solution(row: Row, format: Format) -> list[Taught]:
    text = _text(row.get("solution"), "solution")
    return [_from_text(_text(row.get("question"), "question"), text, _golds(row))]


def _question_steps(row: Row, format: Format) -> list[Taught]:
    steps = row.get("steps")
    if not isinstance(steps, list) or not steps:
        raise RowError("no steps")
    worked = tuple(_step(step) for step in steps)
    return [Taught("", _text(row.get("question"), "question"), _golds(row), steps=worked)]


def _step(step: object) -> WorkedStep:
    if isinstance(step, str):
        return WorkedStep(text=step)
    if not isinstance(step, Mapping):
        raise RowError("a step that is neither an object nor a text")
    parts = [step.get(key) for key in ("text", "code", "output")]
    if not all(part is None or isinstance(part, str) for part in parts):
        raise RowError("a step whose text, code or output is not a text")
    text, code, output = parts
    if not (text or code):
        raise RowError("a step without text and code")
    return WorkedStep(text=text or "", code=code or None, output=output if code else None)


def _messages(row: Row, format: Format) -> list[Taught]:
    turns = row.get("messages")
    if not isinstance(turns, list) or not turns:
        raise RowError("no messages")
    said = [_turn(turn) for turn in turns]
    system = ""
    if said[0][0] == "system":
        system = _plain_content(said[0][1])
        said = said[1:]
    if [role for role, _ in said] != ["user", "assistant"]:
        several = sum(role == "user" for role, _ in said) > 1
        raise RowError("several turns" if several else "not one user and one assistant turn")
    question = _text(_plain_content(said[0][1]), "question")
    content = said[1][1]
    golds = _golds(row)
    if isinstance(content, list) and not all(_is_text(block) for block in content):
        return [Taught("", question, golds, steps=_blocks(content), system=system)]
    text = _text(_plain_content(content), "solution")
    return [replace(_from_text(question, text, golds), system=system)]


def _turn(turn: object) -> tuple[str, Any]:
    if not isinstance(turn, Mapping):
        raise RowError("a message that is not an object")
    role = turn.get("role", turn.get("from"))
    return _ROLES.get(str(role), str(role)), turn.get("content", turn.get("value"))


def _is_text(block: object) -> bool:
    return isinstance(block, Mapping) and block.get("type", "text") == "text"


def _content(block: object) -> str:
    if isinstance(block, Mapping):
        for key in ("content", "text"):
            if isinstance(block.get(key), str):
                return str(block[key])
    raise RowError("a block of a message without text")


def _plain_content(content: object) -> str:
    """The content of a message that holds only text."""
    if isinstance(content, list):
        return "\n".join(_content(block) for block in content)
    return content if isinstance(content, str) else ""


def _blocks(content: list[Any]) -> tuple[WorkedStep, ...]:
    """Steps from the text, code and execution blocks of MathCodeInstruct (arXiv 2310.03731)."""
    steps: list[WorkedStep] = []
    for block in content:
        kind = block.get("type") if isinstance(block, Mapping) else None
        text = _content(block)
        if kind == "text":
            steps.append(WorkedStep(text=text))
        elif kind == "code":
            steps.append(WorkedStep(text="", code=text))
        elif kind != "execution":
            raise RowError(f"a block of type {kind}")
        elif not steps or steps[-1].code is None or steps[-1].output is not None:
            raise RowError("an execution without code")
        else:
            output = "" if text == EMPTY_EXECUTION else text
            steps[-1] = steps[-1].model_copy(update={"output": output})
    return tuple(steps)


def _recorded(layout: str) -> Callable[[Row, Format], list[Taught]]:
    def read(row: Row, format: Format) -> list[Taught]:
        try:
            solutions = RECORDED[layout](dict(row), 0, "")
        except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
            raise RowError(f"not in layout {layout}") from error
        taught: list[Taught] = []
        for solution in solutions:
            source = get_format(solution.format, end=())
            one = Taught(
                row="",
                question=solution.question,
                golds=(solution.gold,),
                reason="" if solution.finished else "unfinished",
            )
            if layout == "tora":
                text = source.render(solution.steps)
                taught.append(replace(one, text=text, steps=worked_steps(text)))
            else:
                taught.append(replace(one, steps=neutral(solution.steps, source)))
        return taught

    return read


def _gsm8k(row: Row, format: Format) -> list[Taught]:
    question, solution = _text(row.get("question"), "question"), _text(row.get("answer"), "answer")
    golds = (hash_mark_answer(solution),)
    if format.name == "plain":
        return [Taught("", question, golds, text=without_marks(solution))]
    return [Taught("", question, golds, steps=marked_steps(solution))]


READ: dict[str, Callable[[Row, Format], list[Taught]]] = {
    "question-solution": _question_solution,
    "question-steps": _question_steps,
    "messages": _messages,
    "mathcoder": _recorded("mathcoder"),
    "tora": _recorded("tora"),
    "gsm8k": _gsm8k,
}
"""How the rows of each layout are read; RowError says why a row cannot be used."""


def _from_text(question: str, text: str, golds: tuple[str, ...]) -> Taught:
    return Taught("", question, golds, steps=worked_steps(text), text=text)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"no {what}")
    return value.strip()


def _golds(row: Row) -> tuple[str, ...]:
    """The gold answers of a row; none where it has none."""
    given = row.get("answer")
    answers = given if isinstance(given, list) else [given]
    usable = (a for a in answers if isinstance(a, str | int | float) and not isinstance(a, bool))
    return tuple(text for a in usable if (text := number_text(a).strip()))
