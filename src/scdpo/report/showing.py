"""Rows of a run for reading: problems, solutions, branches, pairs side by side, evaluations.

Whatever a model, a user or a program wrote is printed through `terminal.visible`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from scdpo.records import Evaluation, Pair, Problem, Solution, Step
from scdpo.terminal import visible

VERDICTS = {"correct": "bold green", "wrong": "bold red", "undecided": "bold yellow"}
PARTS_HERE = "▸"
"""Stands where the two sides of a pair part."""


def show_problem(problem: Problem) -> RenderableType:
    """A problem with its gold answer and, if it has one, its worked solution."""
    parts: list[RenderableType] = [_rule(problem.id), visible(problem.question)]
    parts.append(_facts("gold", _answers(problem)))
    facts = [("level", problem.level), ("subject", problem.subject)]
    parts += [_facts(name, value) for name, value in facts if value]
    if problem.solution:
        parts += [_facts("worked", ""), _indented(visible(problem.solution, "dim"))]
    return Group(*parts, "")


def show_solutions(
    solutions: Iterable[Solution], problems: Mapping[str, Problem]
) -> Iterator[RenderableType]:
    """Solutions with their steps, executions and verdicts; the prompt once for those of a problem
    that follow each other."""
    shown: tuple[str, str] | None = None
    for solution in solutions:
        if (solution.problem_id, solution.prompt) != shown:
            if shown is not None:
                yield ""
            shown = solution.problem_id, solution.prompt
            yield _heading(solution.problem_id, solution.prompt, problems)
        yield _solution(solution)


def show_evaluation(row: Evaluation, problems: Mapping[str, Problem]) -> RenderableType:
    """A policy's greedy answer to a question."""
    problem = problems.get(row.problem_id)
    parts: list[RenderableType] = [_rule(row.problem_id)]
    if problem is not None:
        parts.append(visible(problem.question))
    parts.append(_facts("gold", row.gold if problem is None else _answers(problem)))
    head = _verdict(f"{row.policy}", row.verdict.name, row.verdict.reason, row.answer)
    head.append(f"   {row.finish}, {row.n_steps} steps, {row.n_tokens} tokens", style="dim")
    parts += ["", head, _indented(visible(row.text))]
    return Group(*parts, "")


@dataclass(frozen=True, slots=True)
class PairSides:
    """What the rows that a pair was made of say about it, where they are known."""

    chosen: Solution | None = None
    rejected: Solution | None = None
    problem: Problem | None = None


def show_pair(pair: Pair, known: PairSides) -> RenderableType:
    """A pair: what both sides share, then both sides, step by step and side by side."""
    problems = {} if known.problem is None else {known.problem.id: known.problem}
    about = f"{pair.kind}, {pair.split}"
    if pair.branch_step:
        about += f", {pair.branch_step} shared step{'s' * (pair.branch_step > 1)}"
    parts: list[RenderableType] = [_heading(pair.problem_id, pair.prompt, problems)]
    parts.append(_facts("pair", f"{pair.id}  {about}"))
    parts += [_step(n, step, dim=True) for n, step in enumerate(pair.shared, 1)]
    return Group(*parts, "", _side_by_side(pair, known), "")


def _side_by_side(pair: Pair, known: PairSides) -> RenderableType:
    table = Table(box=None, padding=(0, 1, 0, 1), expand=True, show_edge=False)
    for name, own_id, steps, solution in (
        ("chosen", pair.chosen_id, pair.chosen, known.chosen),
        ("rejected", pair.rejected_id, pair.rejected, known.rejected),
    ):
        head = Text.assemble((f"{name} ", "bold"), visible(own_id))
        if solution is not None:
            head.append("\n").append_text(_answer(solution.verdict.name, "", solution.answer))
        tokens = sum(len(step.token_ids) for step in steps)
        head.append(f"\n{len(steps)} steps, {tokens or 'no'} sampled tokens", style="dim")
        table.add_column(head, ratio=1, overflow="fold")
    same, there = where_they_part(pair.chosen, pair.rejected)
    for n in range(max(len(pair.chosen), len(pair.rejected))):
        cells = [
            _side_step(pair.branch_step + n + 1, steps[n], n, same, there)
            if n < len(steps)
            else Text(f"\n{PARTS_HERE} ends here" if n == same else "", style="bold yellow")
            for steps in (pair.chosen, pair.rejected)
        ]
        table.add_row(*cells)
    return table


def where_they_part(chosen: Sequence[Step], rejected: Sequence[Step]) -> tuple[int, int]:
    """How many first steps are the same, and how many first characters of the next step."""
    for n, (one, other) in enumerate(zip(chosen, rejected, strict=False)):
        a, b = one.text + one.host_text, other.text + other.host_text
        if a != b:
            same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
            return n, min(len(a), len(b)) if same is None else same
    return min(len(chosen), len(rejected)), 0


def common_part(step: Step, n: int, same: int, there: int) -> tuple[int, int]:
    """How many characters of the text and of the host's text of step n both sides share, from
    what `where_they_part` found."""
    cut = there if n == same else len(step.text) + len(step.host_text) if n < same else 0
    return min(cut, len(step.text)), max(0, cut - len(step.text))


def _side_step(number: int, step: Step, n: int, same: int, there: int) -> Text:
    """A step of one side: dim as long as both are the same, marked where they part."""
    text = _step_head(number, step).append("\n")
    own, host = common_part(step, n, same, there)
    text.append_text(visible(step.text[:own], "dim"))
    if n == same and own < len(step.text):
        text.append(PARTS_HERE, style="bold yellow")
    text.append_text(visible(step.text[own:]))
    text.append_text(visible(step.host_text[:host], "dim cyan"))
    if n == same and own == len(step.text):
        text.append(PARTS_HERE, style="bold yellow")
    text.append_text(visible(step.host_text[host:], "cyan"))
    return text


def _heading(problem_id: str, prompt: str, problems: Mapping[str, Problem]) -> RenderableType:
    parts: list[RenderableType] = [_rule(problem_id)]
    if problem := problems.get(problem_id):
        parts.append(_facts("gold", _answers(problem)))
    parts.append(_facts("prompt", prompt))
    return Group(*parts)


def _solution(solution: Solution) -> RenderableType:
    head = _verdict(solution.id, solution.verdict.name, solution.verdict.reason, solution.answer)
    n_tokens = sum(len(step.token_ids) for step in solution.steps)
    figures = f"{solution.finish}, {len(solution.steps)} steps"
    head.append(f"   {figures}{f', {n_tokens} tokens' if n_tokens else ''}", style="dim")
    parts: list[RenderableType] = ["", head]
    if solution.flags:
        parts.append(_indented(_facts("flags", ", ".join(solution.flags))))
    k = solution.branch_step
    if solution.parent:
        steps = "step 1" if k == 1 else f"steps 1 to {k}"
        parts.append(_indented(_facts("shares", f"{steps} with {solution.parent}")))
    parts += [_step(n, step) for n, step in enumerate(solution.steps, 1) if n > k]
    return Group(*parts)


def _step(number: int, step: Step, *, dim: bool = False) -> RenderableType:
    text = _step_head(number, step).append("\n")
    text.append_text(visible(step.text, "dim" if dim else ""))
    text.append_text(visible(step.host_text, "dim cyan" if dim else "cyan"))
    return _indented(text)


def _step_head(number: int, step: Step) -> Text:
    return Text.assemble((f"{number} {step_facts(step)}", "dim italic"))


def step_facts(step: Step) -> str:
    """What is known of a step besides its text: `code, T 1.15, log-prob −0.31`."""
    facts: list[str] = [step.kind]
    if step.temperature is not None:
        facts.append(f"T {step.temperature:g}")
    if step.mean_logp is not None:
        facts.append(f"log-prob {round(step.mean_logp, 2) + 0.0:.2f}")
    if step.cut:
        facts.append(f"output cut: {step.cut}")
    return ", ".join(facts)


def _verdict(name: str, verdict: str, reason: str, answer: str | None) -> Text:
    return visible(name, "bold").append("   ").append_text(_answer(verdict, reason, answer))


def _answer(verdict: str, reason: str, answer: str | None) -> Text:
    text = Text.assemble((verdict, VERDICTS.get(verdict, "bold")))
    if reason:
        text.append(" (").append_text(visible(reason)).append(")")
    shown = visible("no answer" if answer is None else f"answer {answer}")
    return text.append(", ").append_text(shown)


def _answers(problem: Problem) -> str:
    return " or ".join((problem.answer, *problem.alternatives))


def _rule(title: str) -> Rule:
    return Rule(visible(title, "bold"), align="left", style="dim")


def _facts(name: str, value: str) -> RenderableType:
    """A name and what stands there; further lines are indented as the first one is."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(min_width=7, no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    table.add_row(name, visible(value))
    return table


def _indented(shown: RenderableType) -> Padding:
    return Padding(shown, (0, 0, 0, 2), expand=False)
