"""Text and token ids: the tokenizer of a policy, and its ids without anything added."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from scdpo.errors import PolicyError
from scdpo.policies.names import brief, policy_path

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_text(
    tokenizer: PreTrainedTokenizerBase, text: str, *, start: bool = False
) -> tuple[int, ...]:
    """Token ids of `text`, with special-token markers recognised and nothing added around it.

    `start` prepends BOS if the tokenizer begins every text with it, unless the text already begins
    with it, or begins as texts from the tokenizer's chat template do: the template decides then,
    as in `apply_chat_template`. Without `start`, the text continues another one: a tokenizer that
    begins every text with a space (SentencePiece's dummy prefix) does not do so here.
    """
    before = () if start else _anchor(tokenizer)
    joined = f"{ANCHOR}{text}" if before else text
    ids = tokenizer(joined, add_special_tokens=False)["input_ids"]
    if before and tuple(ids[: len(before)]) == before:
        ids = ids[len(before) :]
    elif before:  # the text's beginning has merged with the line break before it
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if start:
        around = tokenizer("", add_special_tokens=True)["input_ids"]
        bos = tokenizer.bos_token_id
        wanted = bos is not None and bos in around and ids[:1] != [bos]
        if wanted and not text.startswith(_chat_openings(tokenizer, str(tokenizer.chat_template))):
            ids = [bos, *ids]
    return tuple(int(i) for i in ids)


@lru_cache(maxsize=16)
def _chat_openings(tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[str, ...]:
    """What texts from a tokenizer's chat template begin with, without and with a system turn.

    None if it has no template, or if one of them begins with what is said, like any other text.
    """
    openings: list[str] = []
    for after in ([], [{"role": "user", "content": "c"}]):
        role = "system" if after else "user"
        try:
            texts = [
                str(
                    tokenizer.apply_chat_template(
                        [{"role": role, "content": said}, *after], tokenize=False
                    )
                )
                for said in "ab"
            ]
        except Exception:  # no template, or what it raises for a role that it does not have
            continue
        same = takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False))
        openings.append("".join(letter for letter, _ in same))
    return tuple(openings) if all(opening.strip() for opening in openings) else ()


def decode_ids(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> str:
    """The exact text of token ids, including special tokens and spaces.

    The ids continue other ones: a space that the first of them begins with is kept.
    """
    before = _anchor(tokenizer)
    text = _decoded(tokenizer, [*before, *ids])
    return text.removeprefix(ANCHOR) if before else text


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return text


ANCHOR = "\n"
"""What stands before a continued text while it is cut into tokens; nothing merges with it."""


@lru_cache(maxsize=16)
def _anchor(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The ids of `ANCHOR` for a tokenizer that treats the beginning of a text in its own way.

    Empty for all others, such as those on bytes, where a text's parts can be cut by themselves.
    """
    anchor, word, both = (
        tuple(int(i) for i in tokenizer(text, add_special_tokens=False)["input_ids"])
        for text in (ANCHOR, "a", f"{ANCHOR}a")
    )
    if both == anchor + word or both[: len(anchor)] != anchor:
        return ()
    return anchor if _decoded(tokenizer, list(both)) == f"{ANCHOR}a" else ()


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a policy. Raises PolicyError."""
    from transformers import AutoTokenizer

    path = policy_path(name)
    folder = Path(path)
    if folder.is_dir() and not any(
        file for pattern in ("tokenizer*", "*.model", "vocab*") for file in folder.glob(pattern)
    ):
        raise PolicyError(f"{name}: no tokenizer in it (tokenizer.json is missing)")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except Exception as error:  # whatever the tokenizer's backend raises
        raise PolicyError(f"{name}: its tokenizer cannot be read: {brief(error)}") from error
    if len(tokenizer) == 0:
        raise PolicyError(f"{name}: its tokenizer has no tokens")
    return tokenizer
