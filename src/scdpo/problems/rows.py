"""One function per benchmark, from a row as its authors publish it to question and gold answer.

The functions also accept the column names of the data sets on the Hugging Face hub. They raise
RowError for a row without a question or an answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from scdpo.problems.gold import (
    Row,
    RowError,
    boxed_answer,
    hash_mark_answer,
    one_of_several,
    problem_id,
    text_of,
    without_thousands,
    without_unit,
)

EMPTY_BOXES = {"math/c4db0acec9dc": "0", "math/11b329c0bd3e": "0"}
"""Gold answers of two questions of MATH's training split that were published with an empty box.
Both ask how many primes there are among numbers that their solutions show to be composite."""


@dataclass(frozen=True, slots=True)
class Item:
    """The contents of a row. `id` and `dataset` are set only if the row gives them."""

    question: str
    answer: str
    alternatives: tuple[str, ...] = ()
    several: bool = False
    solution: str = ""
    level: str | None = None
    subject: str | None = None
    id: str | None = None
    dataset: str | None = None


def gsm8k(row: Row) -> Item:
    """`answer` is a worked solution that ends in `#### N`."""
    question = text_of(row, "question", "question")
    solution = text_of(row, "answer", "answer")
    return Item(question, hash_mark_answer(solution), solution=solution)


def math(row: Row) -> Item:
    r"""The answer is the last `\boxed` of the solution, or `answer` (MATH-500); level 1 to 5."""
    question = text_of(row, "question", "problem", "question")
    solution = _optional(row, "solution") or ""
    answer = _optional(row, "answer") or EMPTY_BOXES.get(problem_id("math", question))
    if answer is None:
        answer = boxed_answer(text_of(row, "answer", "answer", "solution"))
    level = re.fullmatch(r"(?:Level )?(\d)", _optional(row, "level") or "")
    return Item(
        question,
        answer,
        solution=solution,
        level=level[1] if level else None,
        subject=_optional(row, "type", "subject"),
    )


def ape210k(row: Row) -> Item:
    """The answer as published: a number, `1(5/6)`, `25%` or a formula."""
    return Item(
        text_of(row, "question", "original_text", "question_chinese"),
        text_of(row, "answer", "ans", "result"),
        solution=_optional(row, "equation") or "",
    )


def cmath(row: Row) -> Item:
    """The level is the school grade, 1 to 6."""
    return Item(
        text_of(row, "question", "question"),
        text_of(row, "answer", "golden", "answer"),
        level=_optional(row, "grade"),
    )


def mgsm(row: Row) -> Item:
    """Question and number; `answer` is a fallback, as it may be a worked solution."""
    answer = text_of(row, "answer", "answer_number", "answer")
    return Item(text_of(row, "question", "question"), without_thousands(answer))


def svamp(row: Row) -> Item:
    """Body and question, joined by a comma, or by a space if the body ends in punctuation."""
    body = text_of(row, "question", "Body")
    question = text_of(row, "question", "Question")
    joint = " " if body.endswith((".", "!", "?", ",")) else ", "
    return Item(
        f"{body}{joint}{question}",
        text_of(row, "answer", "Answer"),
        solution=_optional(row, "Equation") or "",
        subject=_optional(row, "Type"),
    )


def asdiv(row: Row) -> Item:
    """The answer without its unit in parentheses."""
    body, question = text_of(row, "question", "body"), text_of(row, "question", "question")
    return Item(
        f"{body} {question}",
        without_unit(text_of(row, "answer", "answer")),
        solution=_optional(row, "formula") or "",
        level=_optional(row, "grade"),
        subject=_optional(row, "solution_type"),
    )


def mawps(row: Row) -> Item:
    """The subject is the subset of MAWPS: addsub, multiarith, singleeq or singleop."""
    return Item(
        text_of(row, "question", "input", "question"),
        text_of(row, "answer", "target", "result"),
        subject=_optional(row, "type"),
    )


def messages(row: Row) -> Item:
    """A row of MathCoder's test files: the user's message, and `ground_truth` with the answer."""
    try:
        (content,) = (turn["content"] for turn in row["messages"] if turn["role"] == "user")
        question = content[0]["content"]
        gold = row["ground_truth"]
        answer, solution = gold["answer"], gold.get("solution", "")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise RowError("no single user message, or no ground_truth with an answer") from error
    return own({"question": question, "answer": answer, "solution": solution})


def simuleq(row: Row) -> Item:
    """As `messages`, with `several` set if the question asks for several values."""
    item = messages(row)
    return replace(item, several=one_of_several("simuleq", item.question))


def own(row: Row) -> Item:
    """A user's own row: `question` and `answer`, which may be a list of alternative answers.

    Optional: `alternatives` (a list), `several` (true if the question asks for several values and
    `answer` is only one of them), `solution`, `level`, `subject`, `id`, `dataset`.
    """
    several = row.get("several") or False
    if not isinstance(several, bool):
        raise RowError("several must be true or false")
    more = row.get("alternatives") or []
    if not isinstance(more, list):
        raise RowError("alternatives must be a list of answers")
    answers = row.get("answer")
    if not isinstance(answers, list):
        answers = [answers]
    return Item(
        text_of(row, "question", "question"),
        text_of({**row, "answer": next(iter(answers), None)}, "answer", "answer"),
        alternatives=tuple(
            text_of({"alternatives": a}, "alternative", "alternatives") for a in answers[1:] + more
        ),
        several=several,
        solution=_optional(row, "solution") or "",
        level=_optional(row, "level"),
        subject=_optional(row, "subject"),
        id=_optional(row, "id"),
        dataset=_optional(row, "dataset"),
    )


def _optional(row: Row, *keys: str) -> str | None:
    try:
        return text_of(row, "", *keys)
    except RowError:
        return None
