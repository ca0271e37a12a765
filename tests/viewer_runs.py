"""A small run folder to look at, with texts that would like to be more than text."""

from __future__ import annotations

from pathlib import Path

from scdpo.insight.rewards import SolutionRewards, StepReward
from scdpo.records import CORRECT, WRONG, Evaluation, Pair, Problem, Solution, Step, Verdict
from scdpo.store import RunFolder

SCRIPT = "<script>document.title = 'owned'</script>"
END_OF_SCRIPT = "</script><img src=x onerror=\"document.title='owned'\">"
ANSI = "\x1b[31mred\x1b[0m"
RIGHT_TO_LEFT = "abc\u202edcba\u202c\u200f"
LONG = "0123456789" * 100_000
HOSTILE = " ".join((SCRIPT, END_OF_SCRIPT, ANSI, RIGHT_TO_LEFT))
N_TRAIN, N_TEST = 60, 5
POLICIES = ("sft", "dpo", "scdpo")


def problem(n: int, part: str = "train", question: str | None = None) -> Problem:
    return Problem(
        id=f"tiny/{part}/{n}",
        dataset="tiny",
        question=f"How many are {n} and 1?" if question is None else question,
        answer=str(n + 1),
        level=str(n % 3),
    )


def step(text: str, *, output: str | None = None, temperature: float = 1.0) -> Step:
    return Step(
        kind="text" if output is None else "code",
        text=text,
        token_ids=(1, 2, 3),
        output=output,
        temperature=temperature,
        mean_logp=-0.25 * temperature,
    )


def solution(
    n: int,
    attempt: int,
    verdict: Verdict,
    steps: tuple[Step, ...],
    *,
    parent: Solution | None = None,
    k: int = 0,
) -> Solution:
    about = problem(n)
    name = f"{about.id}#{attempt}" if parent is None else f"{parent.id}@{attempt}"
    return Solution(
        id=name,
        problem_id=about.id,
        dataset=about.dataset,
        question=about.question,
        format="plain",
        policy="sft",
        prompt=f"Q: {about.question}\nA:",
        prompt_ids=(7, 8, 9),
        steps=steps,
        finish="finished",
        answer=str(n + 1) if verdict.correct else str(n),
        verdict=verdict,
        attempt=attempt,
        seed=attempt,
        parent=parent.id if parent else None,
        branch_step=k,
    )


def samples(n: int) -> list[Solution]:
    """A correct and a wrong naive sample; problem 3 has a wrong one only, and hostile texts."""
    if n == 3:
        hostile = (step(HOSTILE), step("print(1)", output=ANSI), step(LONG))
        return [solution(n, 0, WRONG, hostile)]
    right = (step("First, think."), step("print(1 + 1)", output="2"), step(f"So it is {n + 1}."))
    wrong = (step("Guess."), step(f"So it is {n}."))
    return [solution(n, 0, CORRECT, right), solution(n, 1, WRONG, wrong)]


def branches(n: int) -> list[Solution]:
    """Two wrong continuations of the correct sample, after steps 1 and 2, and a correct one."""
    if n == 3:
        return []
    trunk = samples(n)[0]
    return [
        solution(
            n,
            attempt,
            CORRECT if attempt == 2 else WRONG,
            (*trunk.steps[:k], step("Otherwise.", temperature=1.1), step("Done.", temperature=1.2)),
            parent=trunk,
            k=k,
        )
        for attempt, k in enumerate((1, 2, 2))
    ]


def pair(chosen: Solution, rejected: Solution) -> Pair:
    k = rejected.branch_step
    return Pair(
        id=f"{chosen.id}|{rejected.id}",
        problem_id=chosen.problem_id,
        dataset=chosen.dataset,
        question=chosen.question,
        kind="step_controlled" if k else "naive",
        format=chosen.format,
        prompt=chosen.prompt,
        shared=chosen.steps[:k],
        chosen=chosen.steps[k:],
        rejected=rejected.steps[k:],
        branch_step=k,
        chosen_id=chosen.id,
        rejected_id=rejected.id,
    )


def evaluation(n: int, policy: str) -> Evaluation:
    """Everyone is right on 0 and 1, only scdpo on 2, only dpo on 3, nobody on 4."""
    right = n < 2 or (n, policy) in {(2, "scdpo"), (3, "dpo")}
    return Evaluation(
        problem_id=f"tiny/test/{n}",
        dataset="tiny",
        policy=policy,
        gold=str(n + 1),
        answer=str(n + 1 if right else n),
        verdict=CORRECT if right else WRONG,
        finish="finished",
        n_steps=2,
        n_tokens=12,
        text=f"{policy} says {n + 1 if right else n}. {SCRIPT}",
    )


def rewards(of: Solution, policy: str, sign: int) -> SolutionRewards:
    steps = [
        StepReward(
            tokens=(s.text[:2], s.text[2:4], s.text[4:]),
            rewards=(0.01, 0.02 * sign, -0.03 * (n + 1)),
            logps=(-0.1, -0.2, -0.3),
        )
        for n, s in enumerate(of.steps)
    ]
    return SolutionRewards(
        policy=policy, beta=0.1, solution_id=of.id, problem_id=of.problem_id, steps=tuple(steps)
    )


def write_run(path: Path, train: int = N_TRAIN) -> Path:
    """The run folder, with all stages that are looked at."""
    numbers = range(train)
    kinds = {
        "problems/train": [problem(n) for n in numbers],
        "problems/test": [problem(n, "test") for n in range(N_TEST)],
        "solutions": [row for n in numbers for row in samples(n)],
        "branches": [row for n in numbers for row in branches(n)],
        "pairs/naive": [pair(*samples(n)) for n in numbers if n != 3],
        "pairs/step_controlled": [
            pair(samples(n)[0], branches(n)[0]) for n in numbers if branches(n)
        ],
        **{f"evaluations/{p}": [evaluation(n, p) for n in range(N_TEST)] for p in POLICIES},
        "credit/rewards": [
            rewards(row, policy, sign)
            for row in (*samples(0), *branches(0))
            for policy, sign in (("scdpo", -1), ("dpo", 1))
        ],
    }
    with RunFolder(path) as folder:
        for name, rows in kinds.items():
            stage = folder.stage(name).open({"name": name})
            stage.append(rows)
            stage.finish({"counted": len(rows)})
    return path
