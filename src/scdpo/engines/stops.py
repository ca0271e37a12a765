"""Finding the end of a step in sampled token ids, with as little decoding as possible."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from scdpo.engines.base import CompletionFinish
from scdpo.policies import decode_ids, encode_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_UNDECODABLE = "\ufffd"
"""What a token that holds only part of a character decodes to."""


class Endings:
    """What ends a step: markers and EOS by their token ids, other strings by the decoded text.

    A string that is one added token of the tokenizer (a marker such as `<|endofblock|>`) is
    matched by its id, so ordinary tokens that happen to spell it do not count. `by_id` and
    `by_text` say what each of them means.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        stop: tuple[str, ...],
        end: tuple[str, ...],
        eos_ids: frozenset[int],
    ):
        self.by_id: dict[int, CompletionFinish] = dict.fromkeys(eos_ids, "end")
        self.by_text: list[tuple[str, CompletionFinish]] = []
        # Later entries win: an end string over a stop string, and both over the model's own EOS.
        groups: tuple[tuple[tuple[str, ...], CompletionFinish], ...] = (
            (stop, "stop"),
            (end, "end"),
        )
        for strings, finish in groups:
            for string in strings:
                marker = _added_token(tokenizer, string)
                if marker is not None:
                    self.by_id[marker] = finish
                else:
                    self.by_text.insert(0, (string, finish))

    def in_text(self, text: str) -> CompletionFinish | None:
        """What the strings in a decoded text mean; None if there are none."""
        return next((finish for string, finish in self.by_text if string in text), None)


class StopWatch:
    """Tells whether the last sampled token ended a step, for one set of stop and end strings.

    A string that is no marker is searched for in the decoded text, and only after a token in which
    it can end. If that token extends beyond the string, so does the completion's text.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        vocabulary: Sequence[str],
        stop: tuple[str, ...],
        end: tuple[str, ...],
        eos_ids: frozenset[int],
    ):
        self._tokenizer = tokenizer
        self._endings = Endings(tokenizer, stop, end, eos_ids)
        self._in_text = frozenset(
            token
            for string, _ in self._endings.by_text
            for token in _can_end_in(string, vocabulary)
        )
        self.may_end = self._in_text.union(self._endings.by_id)
        """The tokens after which `finish` must be called."""

    def finish(self, ids: Sequence[int]) -> CompletionFinish | None:
        """Why the sampled `ids` (not empty) are complete, or None if they are not."""
        reason = self._endings.by_id.get(ids[-1])
        if reason is None and ids[-1] in self._in_text:
            reason = self._endings.in_text(decode_ids(self._tokenizer, ids))
        return reason


class StopWatches:
    """The stop watches of one tokenizer, built once per set of strings."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, n_vocab: int, eos_ids: Iterable[int]):
        self._tokenizer = tokenizer
        self._n_vocab = n_vocab
        self._eos_ids = frozenset(eos_ids)
        self._vocabulary: list[str] = []
        self._watches: dict[tuple[tuple[str, ...], tuple[str, ...]], StopWatch] = {}

    def of(self, stop: tuple[str, ...], end: tuple[str, ...]) -> StopWatch:
        """The watch for these strings; all watches share the decoded vocabulary."""
        if not self._vocabulary:
            self._vocabulary = [decode_ids(self._tokenizer, (i,)) for i in range(self._n_vocab)]
        key = (stop, end)
        if key not in self._watches:
            self._watches[key] = StopWatch(
                self._tokenizer, self._vocabulary, stop, end, self._eos_ids
            )
        return self._watches[key]


def _added_token(tokenizer: PreTrainedTokenizerBase, string: str) -> int | None:
    """The id of `string` if it is a single added token, else None."""
    ids = encode_text(tokenizer, string)
    if len(ids) == 1 and ids[0] in tokenizer.added_tokens_decoder:
        return ids[0]
    return None


def _can_end_in(string: str, vocabulary: Sequence[str]) -> list[int]:
    """The tokens inside which an occurrence of `string` can end.

    Tokens that hold only part of a character are included. A token decoded alone may lose its
    leading space, as with SentencePiece, so both variants are tried.
    """
    tails = tuple(string[i:] for i in range(len(string)))

    def ends(text: str) -> bool:
        return _UNDECODABLE in text or any(
            string in variant or variant.startswith(tails) for variant in (text, f" {text}")
        )

    return [token for token, text in enumerate(vocabulary) if ends(text)]
