"""The problems of a recipe's sources."""

from __future__ import annotations

from collections import Counter

from scdpo.errors import InputError
from scdpo.pipeline.recipe import Part, Recipe
from scdpo.problems import EMBEDDED
from scdpo.records import Problem

NO_ORACLE = "only the embedded problems have an oracle that knows which steps are wrong"


def read_problems(recipe: Recipe, part: Part, limit: int | None = None) -> list[Problem]:
    """The problems of all sources of a part, in their order; `limit`: the first ones of them.

    Rows are kept by the id of their question, so a question that two sources have in common is
    refused. Raises InputError, and what `ProblemSource.load` raises.
    """
    problems: list[Problem] = []
    for source in recipe.problems.sources(part):
        left = None if limit is None else limit - len(problems)
        if left == 0:
            break
        most = min((n for n in (left, source.limit) if n is not None), default=None)
        problems += source.model_copy(update={"limit": most}).load()
    name, count = Counter(problem.id for problem in problems).most_common(1)[0]
    if count > 1:
        raise InputError(f"problems.{part}: two of its sources have question {name}")
    return problems


def problems_with_oracle(recipe: Recipe, part: Part) -> dict[str, Problem]:
    """The embedded problems of a part, by id: their worked solutions tell which steps are wrong.

    From the package, as runs that were begun with an earlier version lack the worked solutions.
    """
    sources = [source for source in recipe.problems.sources(part) if source.source == EMBEDDED]
    return {problem.id: problem for source in sources for problem in source.load()}
