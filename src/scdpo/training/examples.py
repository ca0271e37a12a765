"""What a supervised training learns from: solutions as token ids and loss masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scdpo.errors import InputError
from scdpo.records import Solution
from scdpo.training.tokens import Encode, solution_tokens
from scdpo.training.tree import MaskedIds


def examples_from_solutions(
    solutions: Iterable[Solution], encode: Encode, *, score_output: bool = False
) -> list[MaskedIds]:
    """Token ids and loss masks of the solutions worth learning from.

    Those are the ones that may be the preferred side of a pair (`Solution.side`): correct,
    finished and without a flag. Of equal solutions of a problem only the first is taken.
    """
    taken: dict[tuple[str, str, str], Solution] = {}
    for solution in solutions:
        if solution.side() == "chosen":
            taken.setdefault((solution.problem_id, solution.prompt, solution.text), solution)
    return [
        solution_tokens(s.prompt, s.prompt_ids, s.steps, encode, score_output)
        for s in taken.values()
    ]


def examples_of(
    data: Sequence[Solution | MaskedIds], encode: Encode, *, score_output: bool = False
) -> list[MaskedIds]:
    """Examples as they are, or those of the good solutions. Raises InputError for both kinds at
    once, and for solutions of which none is good."""
    solutions = [row for row in data if isinstance(row, Solution)]
    if not solutions:
        return [row for row in data if not isinstance(row, Solution)]
    if len(solutions) < len(data):
        raise InputError("supervised training: either solutions or (ids, mask) examples, not both")
    examples = examples_from_solutions(solutions, encode, score_output=score_output)
    if not examples:
        raise InputError("supervised training: no correct, finished solution without a flag")
    return examples


@dataclass(frozen=True, slots=True)
class Usable:
    """The examples that can be trained on, and how many cannot, by reason (`too_long`,
    `nothing_counts`). `longest` is the most tokens of an example, and `limit` where it comes
    from: the setting, or the policy's context."""

    examples: list[MaskedIds]
    dropped: dict[str, int]
    longest: int
    limit: str

    @property
    def text(self) -> str:
        """In a line: `trains on 74 of 312 solutions (12,496 tokens), not on 238 with more than
        200 tokens (max_length)`."""
        n, tokens = len(self.examples), sum(len(ids) for ids, _ in self.examples)
        why = {
            "too_long": f"with more than {self.longest:,} tokens ({self.limit})",
            "nothing_counts": "without a token that counts",
        }
        left = [f"{many:,} {why[reason]}" for reason, many in self.dropped.items() if many]
        all_ = n + sum(self.dropped.values())
        return f"trains on {n:,} of {all_:,} solutions ({tokens:,} tokens)" + (
            f", not on {' and '.join(left)}" if left else ""
        )


def usable(examples: Iterable[MaskedIds], *, max_length: int, context: int | None = None) -> Usable:
    """The examples of at most `max_length` tokens, and of at most the policy's `context`, in
    which a token counts (the very first one of a text has no prediction)."""
    longest = min(max_length, context or max_length)
    kept: list[MaskedIds] = []
    dropped = {"too_long": 0, "nothing_counts": 0}
    for ids, mask in examples:
        if len(ids) > longest:
            dropped["too_long"] += 1
        elif not any(mask[1:]):
            dropped["nothing_counts"] += 1
        else:
            kept.append((ids, mask))
    limit = "max_length" if longest == max_length else "the policy's context"
    return Usable(kept, dropped, longest, limit)
