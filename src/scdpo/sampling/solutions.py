"""From attempts to graded solution rows, for sampling, branching and evaluation alike."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from scdpo.engines.base import EngineProtocol
from scdpo.formats import Format, policy_format
from scdpo.grading import Claim, Grader, judge
from scdpo.records import Problem, Solution, SolutionHead, Step, Verdict, undecided
from scdpo.sampling.driver import drive
from scdpo.sampling.flags import solution_flags
from scdpo.sampling.rollout import Limits, RolloutResult, Schedule, Task, rollout
from scdpo.sandbox import SandboxProtocol, Session
from scdpo.waiting import Progress, silent


@dataclass(frozen=True, slots=True)
class Attempt:
    """A solution to draw. `id` names its row, and `number` counts the attempts on a problem or,
    with a `parent`, the continuations of that solution; its first `branch_step` steps are kept."""

    id: str
    problem: Problem
    prompt: str
    prompt_ids: tuple[int, ...]
    number: int
    seed: int
    parent: Solution | None = None
    branch_step: int = 0


@dataclass(slots=True)
class Sampler:
    """Draws graded solutions with a policy (`engine`), the format it writes, the grader of its
    answers and the sandbox for its programs (None for formats without code). `policy` is the
    policy's name in rows; if empty, the engine's name is used."""

    engine: EngineProtocol
    format: Format
    grader: Grader
    sandbox: SandboxProtocol | None
    policy: str = ""

    async def draw(
        self,
        attempts: Sequence[Attempt],
        schedule: Schedule,
        limits: Limits,
        *,
        sessions: Sequence[Session | None] | None = None,
        error_words_in_question: bool = False,
        progress: Progress = silent,
    ) -> list[Solution]:
        """Roll out attempts side by side and grade them; returns solutions in order.

        Continuations run in `sessions`. Raises EngineError, SandboxError and GradingError.
        """
        rollouts = [
            rollout(
                Task(
                    a.prompt_ids,
                    schedule,
                    a.seed,
                    a.parent.steps[: a.branch_step] if a.parent else (),
                    key=a.problem.id,
                ),
                self.format,
                limits,
                self.engine.encode,
            )
            for a in attempts
        ]
        results = await drive(
            rollouts, self.engine, self.sandbox, sessions=sessions, progress=progress
        )
        claims = [
            self._claim(a.problem, result) for a, result in zip(attempts, results, strict=True)
        ]
        # In a thread: other rollouts go on while answers are compared.
        judged = await asyncio.to_thread(judge, claims, self.grader)
        return [
            self._solution(attempt, result, answer, verdict, error_words_in_question)
            for attempt, result, (answer, verdict) in zip(attempts, results, judged, strict=True)
        ]

    def _claim(self, problem: Problem, result: RolloutResult) -> Claim:
        golds = (problem.answer, *problem.alternatives)
        if result.finish != "finished":
            return Claim(None, golds)
        return claim_of(result.steps, self.format, golds, several=problem.several)

    def _solution(
        self,
        attempt: Attempt,
        result: RolloutResult,
        answer: str | None,
        verdict: Verdict,
        error_words_in_question: bool,
    ) -> Solution:
        problem = attempt.problem
        return Solution(
            id=attempt.id,
            problem_id=problem.id,
            dataset=problem.dataset,
            question=problem.question,
            format=self.format.name,
            policy=self.policy or self.engine.name,
            prompt=attempt.prompt,
            # A recorded parent has no ids, and its continuations must share its prompt exactly.
            prompt_ids=attempt.parent.prompt_ids if attempt.parent else attempt.prompt_ids,
            steps=result.steps,
            finish=result.finish,
            answer=answer,
            verdict=verdict if result.finish == "finished" else unfinished(result.finish),
            flags=solution_flags(
                problem.question,
                result.steps,
                self.format.stop,
                error_words_in_question=error_words_in_question,
            ),
            attempt=attempt.number,
            seed=attempt.seed,
            parent=attempt.parent.id if attempt.parent else None,
            branch_step=attempt.branch_step,
        )


@contextmanager
def sampler_for(
    engine: EngineProtocol,
    format: Format | str | None,
    grader: Grader | None,
    sandbox: SandboxProtocol | None,
) -> Iterator[Sampler]:
    """A sampler; if no grader is given, it gets its own, which is closed at the end.

    Without a format, it is the one that the policy states (`engine.solution_format`), else
    `blocks`. It is completed from the tokenizer of an engine that has one (`engine.tokenizer`), as
    is a format given by its name.
    """
    tokenizer = getattr(engine, "tokenizer", None)
    if format is None:
        options = getattr(engine, "solution_format", None) or {"name": "blocks"}
        written = policy_format(**options, tokenizer=tokenizer)
    elif isinstance(format, str):
        written = policy_format(format, tokenizer=tokenizer)
    else:
        written = format
    if grader is not None:
        yield Sampler(engine, written, grader, sandbox)
        return
    with Grader() as own:
        yield Sampler(engine, written, own, sandbox)


def unfinished(finish: str) -> Verdict:
    """The verdict on a solution cut by a limit: undecided, never wrong."""
    return undecided(f"unfinished: {finish}")


def claim_of(
    steps: tuple[Step, ...], format: Format, golds: tuple[str, ...], *, several: bool = False
) -> Claim:
    """The claim of a finished solution, to be judged against the gold answers."""
    last = ""
    for step in reversed(steps):
        last = format.plain(format.render((step,)))
        if last.strip():
            break
    return Claim(format.plain(format.render(steps)), golds, several, last)


def count_solutions(solutions: Iterable[Solution | SolutionHead]) -> dict[str, int | float]:
    """Counts of solutions by verdict and side of a pair, then by what kept them out of pairs."""
    sums = ("attempts", "correct", "wrong", "undecided", "preferred", "dispreferred")
    counts: Counter[str] = Counter(dict.fromkeys(sums, 0))
    for solution in solutions:
        counts["attempts"] += 1
        counts[solution.verdict.name] += 1
        if solution.finish != "finished":
            counts[f"cut:{solution.finish}"] += 1
        elif solution.verdict.undecided:
            counts[f"undecided:{solution.verdict.reason.split(':')[0][:40]}"] += 1
        for flag in solution.flags:
            counts[flag] += 1
        counts["preferred"] += solution.side() == "chosen"
        counts["dispreferred"] += solution.side() == "rejected"
    reasons = sorted(counts.keys() - set(sums))
    return {name: counts[name] for name in (*sums, *reasons)}
