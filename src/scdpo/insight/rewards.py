"""Implicit rewards of single tokens and steps (arXiv 2407.00782, Eq. 7)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from scdpo.errors import InputError
from scdpo.policies import Policy
from scdpo.records import Record, Solution
from scdpo.training import tree_token_logps
from scdpo.training.loading import context_length
from scdpo.training.tokens import step_tokens
from scdpo.waiting import Progress, silent

if TYPE_CHECKING:
    from scdpo.training.tree import MaskedIds

ROW_TOKENS = 4096
"""Tokens that go through a model together, at most, unless a question alone has more."""


class StepReward(Record):
    """The implicit reward of one step: of its tokens, their sum and their mean.

    `tokens` are the texts of the tokens that the policy wrote, and `rewards` their rewards
    β log π_θ − β log π_ref in nats; what the host appended is in neither. `logps` are their
    log-probs under the reference policy. `total` and `mean` are 0 for a step without tokens.
    """

    tokens: tuple[str, ...]
    rewards: tuple[float, ...]
    logps: tuple[float, ...]

    @property
    def total(self) -> float:
        """The sum of the rewards."""
        return sum(self.rewards)

    @property
    def mean(self) -> float:
        """The mean of the rewards."""
        return self.total / len(self.rewards) if self.rewards else 0.0


class SolutionRewards(Record):
    """The implicit rewards of a solution's steps under one policy."""

    policy: str
    beta: float
    solution_id: str
    problem_id: str
    steps: tuple[StepReward, ...]

    @property
    def total(self) -> float:
        """The solution's reward, as in the loss (Eq. 4) and in the log of a training."""
        return sum(step.total for step in self.steps)


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A solution's ids with the mask of what the policy wrote, and that mask cut by step."""

    solution: Solution
    ids: list[int]
    mask: list[bool]
    counts: list[int]

    @property
    def sequence(self) -> MaskedIds:
        return self.ids, self.mask


def token_rewards(
    policies: dict[str, Policy],
    reference: Policy,
    solutions: Sequence[Solution],
    *,
    beta: float | Mapping[str, float],
    progress: Progress = silent,
) -> Iterator[SolutionRewards]:
    """The implicit reward of every token that a policy wrote (arXiv 2407.00782, Eq. 7):

        r(s_i, x_i) = β log π_θ(x_i | s_i) − β log π_ref(x_i | s_i)

    `policies` by name, each compared with `reference`; `beta` is the β of their training, or by
    name that of each. Yields the rows of all policies for one solution after another. Execution
    output is no token of a policy and has no reward. Solutions of a question share a token tree,
    so that what they have in common is computed once. `progress` is called with solutions done
    and their number.

    Raises InputError for no policy, for one without a β, for a solution that exceeds a policy's
    context, and for ids that a policy does not have.
    """
    if not policies:
        raise InputError("credit: no policy to look at")
    betas = beta if isinstance(beta, Mapping) else dict.fromkeys(policies, beta)
    if missing := [name for name in policies if name not in betas]:
        raise InputError(f"credit: no β for {', '.join(missing)}")
    limit = min(context_length(policy, 1 << 30) for policy in (reference, *policies.values()))
    done = 0
    for batch in _batches([_encoded(s, reference, limit) for s in solutions]):
        before = _logps(reference, batch)
        after = {name: _logps(policy, batch) for name, policy in policies.items()}
        for n, encoded in enumerate(batch):
            for name in policies:
                yield _row(name, betas[name], encoded, reference, after[name][n], before[n])
        done += len(batch)
        progress(done, len(solutions))


def fits(solution: Solution, policy: Policy) -> bool:
    """Whether a solution fits into a policy's context."""
    prompt = solution.prompt_ids or policy.encode(solution.prompt, start=True)
    ids, _ = step_tokens(solution.steps, policy.encode)
    return len(prompt) + len(ids) <= context_length(policy, 1 << 30)


def _encoded(solution: Solution, policy: Policy, limit: int) -> _Encoded:
    ids = list(solution.prompt_ids or policy.encode(solution.prompt, start=True))
    mask = [False] * len(ids)
    counts = []
    for step in solution.steps:
        step_ids, step_mask = step_tokens([step], policy.encode)
        ids += step_ids
        mask += step_mask
        counts.append(sum(step_mask))
    if len(ids) > limit:
        raise InputError(
            f"credit: {solution.id} has {len(ids)} tokens, but the policies' context is {limit}"
        )
    return _Encoded(solution, ids, mask, counts)


def _batches(encoded: Iterable[_Encoded]) -> Iterator[list[_Encoded]]:
    """Solutions in their order, as many at a time as `ROW_TOKENS` allows."""
    batch: list[_Encoded] = []
    size = 0
    for one in encoded:
        if batch and size + len(one.ids) > ROW_TOKENS:
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += len(one.ids)
    if batch:
        yield batch


def _logps(policy: Policy, batch: Sequence[_Encoded]) -> list[list[float]]:
    """Log-probs of the counted tokens of each solution."""
    policy.model.train(False)
    with torch.no_grad():
        found = tree_token_logps(policy.model, [encoded.sequence for encoded in batch])
    return [logps.tolist() for logps in found]


def _row(
    name: str,
    beta: float,
    encoded: _Encoded,
    reference: Policy,
    after: list[float],
    before: list[float],
) -> SolutionRewards:
    written = [i for i, counted in zip(encoded.ids, encoded.mask, strict=True) if counted]
    steps, at = [], 0
    for count in encoded.counts:
        part = slice(at, at + count)
        texts = token_texts(reference, written[part])
        rewards = [beta * (a - b) for a, b in zip(after[part], before[part], strict=True)]
        steps.append(
            StepReward(tokens=tuple(texts), rewards=tuple(rewards), logps=tuple(before[part]))
        )
        at += count
    return SolutionRewards(
        policy=name,
        beta=beta,
        solution_id=encoded.solution.id,
        problem_id=encoded.solution.problem_id,
        steps=tuple(steps),
    )


def token_texts(policy: Policy, ids: Sequence[int]) -> list[str]:
    """The part of the text that each token adds; together they are the text of `ids`.

    A character whose bytes lie in several tokens belongs to the last of them.
    """
    texts: list[str] = []
    shown = ""
    for n in range(1, len(ids) + 1):
        text = policy.decode(ids[:n])
        unfinished = n < len(ids) and text.endswith("\ufffd")
        texts.append("" if unfinished or not text.startswith(shown) else text[len(shown) :])
        if not unfinished:
            shown = text
    return texts
