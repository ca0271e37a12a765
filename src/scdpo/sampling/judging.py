"""What finished solutions state in the end, and whether it is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scdpo.formats.base import Format
from scdpo.grading import Grader
from scdpo.grading.several import Statement, last_statement, verdict_on_statement
from scdpo.records import Step, Verdict


@dataclass(frozen=True, slots=True)
class Claim:
    """A solution's plain text and the gold answers that it is held against.

    `text` None is a solution without an end, which states nothing. `last` is its last step that
    has text, all that the paper's rule looks at. `several` is the problem's (see
    `records.Problem`).
    """

    text: str | None
    golds: tuple[str, ...]
    several: bool = False
    last: str = ""


def claim_of(
    steps: tuple[Step, ...], form: Format, golds: tuple[str, ...], *, several: bool = False
) -> Claim:
    """What a whole solution claims."""
    text = form.plain(form.render(steps))
    plain = (form.plain(form.render((step,))) for step in reversed(steps))
    return Claim(text, golds, several, next((step for step in plain if step.strip()), ""))


def judge(claims: Sequence[Claim], grader: Grader) -> list[tuple[str | None, Verdict]]:
    """The final answer of each solution and the verdict on it, in their order.

    Raises GradingError when the grading workers cannot start.
    """
    stated = [_stated(claim, grader) for claim in claims]
    pairs = [
        (claim.golds, candidate)
        for claim, one in zip(claims, stated, strict=True)
        for candidate in one.candidates
    ]
    graded = iter(grader.grade_many(pairs))
    found = []
    for one in stated:
        verdicts = {candidate: next(graded) for candidate in one.candidates}
        found.append((one.answer, _verdict(one, verdicts, grader)))
    return found


@dataclass(frozen=True, slots=True)
class _Stated:
    """The answer of a solution, what of it is compared, and the statement that it comes from
    where it is one of several values."""

    answer: str | None
    candidates: tuple[str | None, ...]
    statement: Statement | None = None


def _stated(claim: Claim, grader: Grader) -> _Stated:
    if claim.text is None:
        return _Stated(None, ())
    paper = grader.config.compat == "paper"
    text = claim.last if paper and claim.last else claim.text
    if claim.several:
        statement = last_statement(text)
        return _Stated(statement.answer, statement.candidates, statement)
    answer = grader.answer_in(text)
    return _Stated(answer, (answer,))


def _verdict(one: _Stated, verdicts: Mapping[str | None, Verdict], grader: Grader) -> Verdict:
    if one.statement is None:
        return verdicts.get(one.answer, Verdict(name="undecided", reason="no answer"))
    if grader.config.compat == "paper":
        # Its code accepts any number that is boxed, and leaves nothing undecided.
        right = any(verdict.name == "correct" for verdict in verdicts.values())
        return Verdict(name="correct" if right else "wrong")
    return verdict_on_statement(
        one.statement, {text: verdict for text, verdict in verdicts.items() if text is not None}
    )
