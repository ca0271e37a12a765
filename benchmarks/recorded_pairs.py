"""Preference pairs out of recorded solutions, and a policy of a given shape to train on them.

Nothing is executed or graded: the answer that a row's authors recorded, compared as a number with
its gold answer, says whether a solution is right. Lengths, steps and what sequences share are
therefore those of real solutions; what a rejected continuation says may not be.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from scdpo.errors import DataError
from scdpo.formats import RecordedSolution, get_format, read_recorded
from scdpo.policies import Policy
from scdpo.records import Pair, Step
from scdpo.training.fresh import FreshPolicyConfig, fresh_policy
from scdpo.training.steps import by_question
from scdpo.training.tokens import PairTokens
from scdpo.training.tree import grow

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FILES = ("MathCoder-L-7b_GSM8K.jsonl", "MathCoder-L-13b_GSM8K.jsonl")
MAX_LENGTH = 2048
"""Tokens of prompt and solution."""
MAX_CHARACTERS = 4000
"""Of a solution; with the tokenizers trained here that is within `MAX_LENGTH` tokens."""
FRESH = FreshPolicyConfig(
    vocab_size=8192,
    hidden_size=384,
    layers=8,
    heads=6,
    kv_heads=2,
    intermediate_size=1024,
    max_context=MAX_LENGTH,
)


@dataclass(frozen=True, slots=True)
class Question:
    """A question with a right recorded solution and the wrong ones, all of them finished."""

    right: RecordedSolution
    wrong: tuple[RecordedSolution, ...]


@dataclass(frozen=True, slots=True)
class Figures:
    """What pairs look like: means over questions (tokens, steps) and the share of all tokens, of
    every sequence by itself, that the questions' trees need not compute."""

    questions: int
    pairs: int
    question_tokens: float
    solution_tokens: float
    steps: float
    tokens: int
    saved: float


def read_questions(folder: Path) -> list[Question]:
    """The questions that the files of `folder` answer both right and wrong, in their order.

    Right solutions of fewer than three steps, which cannot be branched from two different ones,
    and very long ones are left out.
    """
    right: dict[str, RecordedSolution] = {}
    wrong: dict[str, list[RecordedSolution]] = defaultdict(list)
    for solution in (s for name in FILES for s in read_recorded(folder / name, "mathcoder")):
        answer, gold = _number(solution.recorded_answer or ""), _number(solution.gold)
        long = len(_text(solution.steps)) > MAX_CHARACTERS
        if long or not solution.finished or answer is None or gold is None:
            continue
        if answer != gold:
            wrong[solution.question].append(solution)
        elif len(solution.steps) > 2:
            right.setdefault(solution.question, solution)
    return [Question(one, tuple(wrong[q])) for q, one in right.items() if wrong[q]]


def make_pairs(questions: Sequence[Question], n: int, branches: int, seed: int) -> list[Pair]:
    """One naive pair and `branches` step-controlled ones for each of `n` questions.

    Branch steps differ as long as the preferred solution has other ones. A rejected continuation
    is the rest of a wrong solution of the same question where that is long enough and was not
    taken for the same branch step, else of another question's. Raises DataError when there are
    too few questions.
    """
    if n > len(questions):
        raise DataError(f"{n} questions wanted, {len(questions)} have right and wrong solutions")
    rng = random.Random(seed)
    order = rng.sample(range(len(questions)), len(questions))
    strangers = [s for q in questions for s in q.wrong]
    pairs: list[Pair] = []
    for number in order[:n]:
        question = questions[number]
        pairs.append(_pair(question, 0, question.wrong[0]))
        places = range(1, len(question.right.steps))
        steps = rng.sample(places, min(branches, len(places)))
        steps += rng.choices(places, k=branches - len(steps))
        taken: set[tuple[int, str]] = set()
        for k in steps:
            others = rng.sample(strangers, len(strangers))
            rejected = next(
                s
                for s in (*question.wrong, *others)
                if len(s.steps) > k
                and (k, _text(s.steps[k:])) not in taken
                and len(_text((*question.right.steps[:k], *s.steps[k:]))) <= MAX_CHARACTERS
            )
            taken.add((k, _text(rejected.steps[k:])))
            pairs.append(_pair(question, k, rejected))
    return pairs


def _pair(question: Question, k: int, rejected: RecordedSolution) -> Pair:
    right = question.right
    return Pair(
        id=f"{right.id}-{k}-{rejected.id}-{rejected.line}",
        problem_id=right.id,
        dataset="gsm8k",
        question=right.question,
        kind="step_controlled" if k else "naive",
        format=right.format,
        prompt=right.prompt,
        shared=right.steps[:k],
        chosen=right.steps[k:],
        rejected=rejected.steps[k:],
        branch_step=k,
        chosen_id=right.id,
        rejected_id=rejected.id,
    )


def _text(steps: Sequence[Step]) -> str:
    return "".join(step.text + step.host_text for step in steps)


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", "").replace("$", "").replace("%", "").strip())
    except ValueError:
        return None


def write_pairs(pairs: Sequence[Pair], path: Path) -> Path:
    """One JSON row a pair."""
    path.write_text("".join(pair.model_dump_json() + "\n" for pair in pairs))
    return path


def read_pairs(path: Path) -> list[Pair]:
    """What `write_pairs` wrote."""
    return [Pair.model_validate_json(line) for line in path.read_bytes().splitlines()]


def figures(pairs: Sequence[Pair], tokens: Sequence[PairTokens]) -> Figures:
    """Of pairs and the same pairs as token ids."""
    first = [group[0] for group in by_question([pair.prompt for pair in pairs])]
    groups = by_question([pair.prompt_ids for pair in tokens])
    trees = [
        grow([side for n in g for side in (tokens[n].chosen, tokens[n].rejected)]) for g in groups
    ]
    separate = sum(tree.n_separate for tree in trees)
    return Figures(
        questions=len(groups),
        pairs=len(pairs),
        question_tokens=mean(len(tokens[n].prompt_ids) for n in first),
        solution_tokens=mean(len(tokens[n].chosen[0]) - len(tokens[n].prompt_ids) for n in first),
        steps=mean(len(pairs[n].shared) + len(pairs[n].chosen) for n in first),
        tokens=separate,
        saved=1 - sum(len(tree) for tree in trees) / separate,
    )


def bench_policy(folder: Path, *, large: bool = False) -> Policy:
    """A random policy whose tokenizer was trained on the solutions in `folder`; `large` gives it
    a model of Mistral 7B's shape, in bf16, in place of a small one in fp32."""
    form = get_format("blocks")
    policy = fresh_policy(_texts(folder), form.special_tokens, form.end[0], FRESH)
    if large:
        policy.model = _mistral(policy.model.config.eos_token_id, policy.model.config.pad_token_id)
    return policy


def _texts(folder: Path) -> Iterator[str]:
    for name in FILES:
        for solution in read_recorded(folder / name, "mathcoder"):
            yield solution.prompt + _text(solution.steps)


def _mistral(end: int, pad: int) -> PreTrainedModel:
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    # The config's defaults are the shape of Mistral 7B; its tokenizer's ids are not all used.
    config = MistralConfig(
        max_position_embeddings=MAX_LENGTH,
        sliding_window=None,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=pad,
        dtype="bfloat16",
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        return MistralForCausalLM(config)
    finally:
        torch.set_default_dtype(torch.float32)
