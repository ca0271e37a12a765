"""From records to token ids, and which of them count in the loss.

Text that the policy wrote counts. Text that the host appended (execution output) counts only with
`score_output`, as in the code released with arXiv 2407.00782. The prompt never counts, nor does
anything in a pair's shared prefix (Eq. 4). Sampled ids are used as they are. Recorded steps
without ids are encoded segment by segment, so that a prefix has the same ids in both branches.
Nothing is appended: the last step of a finished solution already has its end marker.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from scdpo.records import Pair, PairKind, Step


class Encode(Protocol):
    """Token ids of a text; `start` puts the token that begins every text (BOS) before them."""

    def __call__(self, text: str, /, *, start: bool = False) -> Sequence[int]: ...


@dataclass(frozen=True, slots=True)
class PairTokens:
    """A pair as token ids; a mask is True where a token counts in the loss.

    The chosen sequence is prompt, shared, chosen; the rejected one prompt, shared, rejected.
    """

    pair_id: str
    kind: PairKind
    prompt_ids: tuple[int, ...]
    shared_ids: tuple[int, ...]
    shared_mask: tuple[bool, ...]
    chosen_ids: tuple[int, ...]
    chosen_mask: tuple[bool, ...]
    rejected_ids: tuple[int, ...]
    rejected_mask: tuple[bool, ...]

    @property
    def chosen(self) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """Ids and mask of the whole chosen sequence, prompt included."""
        return self._whole(self.chosen_ids, self.chosen_mask)

    @property
    def rejected(self) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """Ids and mask of the whole rejected sequence, prompt included."""
        return self._whole(self.rejected_ids, self.rejected_mask)

    @property
    def length(self) -> int:
        """Tokens of the longer of the two sequences."""
        prefix = len(self.prompt_ids) + len(self.shared_ids)
        return prefix + max(len(self.chosen_ids), len(self.rejected_ids))

    @property
    def n_counted(self) -> tuple[int, int]:
        """Tokens that count in the chosen and in the rejected sequence."""
        return sum(self.chosen[1][1:]), sum(self.rejected[1][1:])

    def _whole(
        self, ids: tuple[int, ...], mask: tuple[bool, ...]
    ) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        prompt_mask = (False,) * len(self.prompt_ids)
        return self.prompt_ids + self.shared_ids + ids, prompt_mask + self.shared_mask + mask


@dataclass(frozen=True, slots=True)
class Tokenised:
    """The pairs that can be trained on, and how many could not, by reason."""

    pairs: tuple[PairTokens, ...]
    dropped: dict[str, int]


def step_tokens(
    steps: Iterable[Step], encode: Encode, *, score_output: bool = False
) -> tuple[list[int], list[bool]]:
    """Ids of steps and of what the host appended to them, and the mask of what counts."""
    ids: list[int] = []
    mask: list[bool] = []
    for step in steps:
        written = step.token_ids or (encode(step.text) if step.text else ())
        appended = step.host_ids or (encode(step.host_text) if step.host_text else ())
        ids += [*written, *appended]
        mask += [True] * len(written) + [score_output] * len(appended)
    return ids, mask


def solution_tokens(
    prompt: str,
    prompt_ids: Sequence[int],
    steps: Iterable[Step],
    encode: Encode,
    score_output: bool = False,
) -> tuple[list[int], list[bool]]:
    """Ids of prompt and solution for supervised training, with the mask of what counts.

    `prompt_ids` are used as they are; if there are none, `prompt` is encoded as the start of a
    text.
    """
    start = list(prompt_ids or encode(prompt, start=True))
    ids, mask = step_tokens(steps, encode, score_output=score_output)
    return start + ids, [False] * len(start) + mask


def pair_tokens(
    pair: Pair, encode: Encode, *, score_output: bool = False, score_shared: bool = False
) -> PairTokens:
    """A pair's ids and masks; `score_shared` lets the shared steps count like the others."""
    shared_ids, shared_mask = step_tokens(pair.shared, encode, score_output=score_output)
    chosen_ids, chosen_mask = step_tokens(pair.chosen, encode, score_output=score_output)
    rejected_ids, rejected_mask = step_tokens(pair.rejected, encode, score_output=score_output)
    return PairTokens(
        pair_id=pair.id,
        kind=pair.kind,
        prompt_ids=tuple(pair.prompt_ids or encode(pair.prompt, start=True)),
        shared_ids=tuple(shared_ids),
        shared_mask=tuple(shared_mask if score_shared else [False] * len(shared_mask)),
        chosen_ids=tuple(chosen_ids),
        chosen_mask=tuple(chosen_mask),
        rejected_ids=tuple(rejected_ids),
        rejected_mask=tuple(rejected_mask),
    )


def tokenise(
    pairs: Iterable[Pair],
    encode: Encode,
    *,
    max_length: int,
    score_output: bool = False,
    score_shared: bool = False,
) -> Tokenised:
    """Token ids of all pairs that can be trained on, in order.

    Dropped and counted: `too_long`, a sequence of more than `max_length` tokens (cutting it
    would lose the question or the end of the prefix); `nothing_counts`, a sequence without a
    token that the loss can score (the very first token of a text has no prediction).
    """
    kept: list[PairTokens] = []
    dropped = {"too_long": 0, "nothing_counts": 0}
    for pair in pairs:
        tokens = pair_tokens(pair, encode, score_output=score_output, score_shared=score_shared)
        if tokens.length > max_length:
            dropped["too_long"] += 1
        elif not (any(tokens.chosen[1][1:]) and any(tokens.rejected[1][1:])):
            dropped["nothing_counts"] += 1
        else:
            kept.append(tokens)
    return Tokenised(pairs=tuple(kept), dropped=dropped)
