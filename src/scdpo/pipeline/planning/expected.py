"""How many questions, attempts and pairs to expect, and how long texts are.

Figures found in the paper (arXiv 2407.00782) stand in tables here and in its recipes; the number of
attempts follows from a model: a question's share of right solutions is drawn from a beta
distribution, whose mean is the accuracy at temperature 1 and whose width is such that the known
share of questions has both a right and a wrong one.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scdpo.errors import InputError
from scdpo.pipeline.planning.config import FoundPairs, PlanConfig
from scdpo.problems import EMBEDDED
from scdpo.records import Record

if TYPE_CHECKING:
    from scdpo.pipeline.recipe import ProblemSource, Recipe

QUESTIONS: dict[str, dict[str, int]] = {
    "gsm8k": {"train": 7473, "test": 1319},
    "math": {"train": 7500, "test": 5000},
    "math500": {"test": 500},
    "ape210k": {"train": 200488, "validation": 5000, "valid": 5000, "test": 5000},
    "cmath": {"validation": 600, "test": 1098},
    "mgsm_zh": {"test": 250},
    "mgsm_en": {"test": 250},
    "svamp": {"train": 700, "test": 300},
    "asdiv": {"test": 2305},
    "mawps": {"test": 520},
}
"""Questions of published data sets, by split, as the hub has them."""

FOUND: dict[str, FoundPairs] = {
    "gsm8k": FoundPairs(questions=7473, naive=6333, step_controlled=6000),
    "math": FoundPairs(questions=7500, naive=5667, step_controlled=12000),
    EMBEDDED: FoundPairs(questions=400, within=8, naive=192, step_controlled=259),
}
"""Means of the paper's three 7B policies, and what `scdpo run embedded` finds. Other data sets are
taken to be like GSM8K."""
ACCURACY = {"gsm8k": 0.78, "math": 0.37, "math500": 0.37, EMBEDDED: 0.62}
"""Share of right solutions: means of the paper's SFT policies, and the embedded policy's."""

PROMPT = {"gsm8k": 80, "math": 100, "math500": 100, "ape210k": 60, "cmath": 60, "mgsm_zh": 80}
CODE = {"gsm8k": 560, "math": 530, "math500": 530, "ape210k": 400, "cmath": 400, "mgsm_zh": 450}
CHAIN = {"gsm8k": 150, "math": 240, "math500": 240}
"""Mean tokens of prompts, of code-integrated solutions with their output (MathCoder's on GSM8K and
MATH, as recorded), and of chains of thought."""
EMBEDDED_TOKENS = (85, 110)
"""Mean tokens of a prompt and of a solution of the embedded policy."""


class Questions(Record):
    """The questions of one data set in a recipe, and what to expect of them."""

    dataset: str
    count: int
    prompt: int
    solution: int


class Sampled(Record):
    """What sampling finds for one data set; `parents` are questions with a preferred solution.

    `attempts` and `branches` are solutions and continuations sampled.
    """

    questions: Questions
    attempts: float
    parents: float
    naive: float
    branches: float
    step_controlled: float
    combinations: float
    """Naive pairs that the solutions can be combined to."""


def questions_of(recipe: Recipe, sources: tuple[ProblemSource, ...]) -> list[Questions]:
    """The questions of a recipe's sources. Files that exist are counted. Raises InputError."""
    return [
        Questions(
            dataset=source.source,
            count=_count(source),
            prompt=_tokens(recipe, source.source)[0],
            solution=_tokens(recipe, source.source)[1],
        )
        for source in sources
    ]


def _count(source: ProblemSource) -> int:
    if source.path is None or Path(source.path).exists():
        return len(source.load())
    if isinstance(source.ids, tuple):
        return len(source.ids)
    known = QUESTIONS.get(source.source, {}).get(source.split)
    if known is None and source.limit is None:
        raise InputError(
            f"problems: how many questions {source.source} has in {source.split} is not known, and "
            f"{source.path} is not here; set its limit"
        )
    left = math.inf if known is None else max(known - (source.offset or 0), 0)
    return int(min(left, source.limit or math.inf))


def _tokens(recipe: Recipe, dataset: str) -> tuple[int, int]:
    """Mean tokens of a prompt and of a solution."""
    plan: PlanConfig = recipe.plan
    table = CHAIN if recipe.format.name == "plain" else CODE
    known = (
        EMBEDDED_TOKENS
        if dataset == EMBEDDED
        else (
            PROMPT.get(dataset, PROMPT["gsm8k"]),
            table.get(dataset, table["gsm8k"]),
        )
    )
    return plan.prompt_tokens.get(dataset, known[0]), plan.solution_tokens.get(dataset, known[1])


def rows_of(data: Any) -> int:
    """The rows of `sft.data`: a file's are counted, GSM8K's are known. Raises InputError."""
    path = Path(data.path)
    if path.is_file() and path.suffix == ".jsonl":
        return sum(1 for line in path.read_bytes().splitlines() if line.strip())
    if data.layout == "gsm8k":
        return QUESTIONS["gsm8k"]["train"]
    raise InputError(f"sft.data: the rows of {data.path} are not known; give plan.sft_rows")


def sft_tokens(recipe: Recipe, questions: list[Questions]) -> float:
    """Mean tokens of a row of `sft.data`, prompt included: as those of the training questions."""
    total = sum(q.count for q in questions)
    return sum(q.count * (q.prompt + q.solution) for q in questions) / total


def sampled(recipe: Recipe, questions: Questions) -> Sampled:
    """What stages 1 and 2 find for a data set."""
    name, n = questions.dataset, questions.count
    found = recipe.plan.pairs.get(name) or FOUND.get(name, FOUND["gsm8k"])
    accuracy = recipe.plan.accuracy.get(name) or ACCURACY.get(name, ACCURACY["gsm8k"])
    share = min(found.naive / found.questions, 0.995)
    a, b = fitted(accuracy, share, found.within)
    sample, branch, pairs = recipe.sample, recipe.branch, recipe.pairs
    first = stopped(a, b, sample.correct, sample.wrong, sample.max_attempts)
    naive = n * share * first.both / stopped(a, b, 1, 1, found.within).both
    parents = n * first.any_right
    wanted = branch.negatives_for(name)
    second = stopped(a, b, 0, wanted, branch.max_attempts)
    limit = min(pairs.step_controlled_limit(name), wanted)
    return Sampled(
        questions=questions,
        attempts=n * first.attempts,
        parents=parents,
        naive=naive * min(pairs.naive_per_question, 1),
        branches=parents * second.attempts if wanted else 0.0,
        step_controlled=min(n * found.step_controlled / found.questions, limit * parents),
        combinations=naive * max(sample.correct, 1) * max(sample.wrong, 1),
    )


class Stopped(Record):
    """What becomes of sampling that stops at enough right and wrong solutions."""

    attempts: float
    both: float
    """Share of questions with a right and a wrong solution."""
    any_right: float


@lru_cache(maxsize=256)
def stopped(a: float, b: float, right: int, wrong: int, most: int) -> Stopped:
    """Expected attempts at a question whose share of right solutions is Beta(a, b), until `right`
    right and `wrong` wrong ones are found, at most `most`; and what is found by then."""
    attempts = 0.0
    for n in range(most):
        if n < right + wrong:
            attempts += 1
            continue
        more = (x for x in range(n + 1) if x < right or n - x < wrong)
        attempts += sum(_beta_binomial(x, n, a, b) for x in more)
    none_right, none_wrong = _beta_binomial(0, most, a, b), _beta_binomial(most, most, a, b)
    return Stopped(attempts=attempts, both=1 - none_right - none_wrong, any_right=1 - none_right)


@lru_cache(maxsize=64)
def fitted(accuracy: float, both: float, n: int) -> tuple[float, float]:
    """The beta distribution with mean `accuracy` under which the share `both` of questions has a
    right and a wrong solution among `n`."""
    low, high = math.log(1e-3), math.log(1e3)
    for _ in range(60):
        middle = (low + high) / 2
        a, b = accuracy * math.exp(middle), (1 - accuracy) * math.exp(middle)
        if 1 - _beta_binomial(0, n, a, b) - _beta_binomial(n, n, a, b) < both:
            low = middle
        else:
            high = middle
    return a, b


def _beta_binomial(x: int, n: int, a: float, b: float) -> float:
    """The probability of x right solutions among n."""
    choose = math.lgamma(n + 1) - math.lgamma(x + 1) - math.lgamma(n - x + 1)
    return math.exp(choose + _log_beta(x + a, n - x + b) - _log_beta(a, b))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
