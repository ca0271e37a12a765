"""The format in which a policy writes: a recipe's options completed from the policy's tokenizer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from scdpo.errors import InputError
from scdpo.formats.base import Format
from scdpo.formats.chat import ChatPrompt, has_chat_template
from scdpo.formats.registry import checked_options, get_format

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ChatTemplate = Literal["auto"]
"""`auto`: the tokenizer's own chat template."""

_MARKER = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")
"""What looks like a control token, rather than like words."""
ADD_TOKENS = "fine-tune the policy with `sft: {add_tokens: true}`, which adds them"


def policy_format(
    name: str,
    *,
    tokenizer: PreTrainedTokenizerBase | None,
    system: str | None = None,
    end: str | Sequence[str] | None = None,
    template: str | None = None,
    boundary: str | None = None,
    chat_template: ChatTemplate | None = None,
) -> Format:
    """The format of a policy, from a recipe's options and the policy's tokenizer.

    The options are those of `get_format`. With `chat_template` "auto", the tokenizer's chat
    template writes the prompt: `system` is its system text (None: the template's own), `template`
    the user's turn (by default just the question), and `end` defaults to the end of the
    assistant's turn. Otherwise `end` defaults to the tokenizer's EOS; in format `blocks`, it is one
    of the format's own markers. `tokenizer` None, for a policy whose tokenizer is not at hand,
    leaves the defaults of `get_format`.

    Raises InputError for what `get_format` refuses, a chat template that is missing or cannot be
    rendered, markers of `blocks` that the tokenizer does not have as single tokens, and a
    tokenizer without EOS if `end` is not given.
    """
    checked_options(name, template=template, boundary=boundary, chat_template=chat_template)
    if tokenizer is None:
        if chat_template is not None:
            raise InputError(
                "format.chat_template: the policy's tokenizer is not at hand; write the prompt as "
                "format.template"
            )
        return get_format(name, system=system, end=end, template=template, boundary=boundary)
    if name == "blocks":
        return _with_markers(get_format(name, system=system, end=end), tokenizer)
    if chat_template is None:
        end = _eos(tokenizer) if end is None else end
        return get_format(name, system=system, end=end, template=template, boundary=boundary)
    if template is not None:
        get_format(name, template=template)  # refuses one without {question}
    prompt = ChatPrompt(tokenizer, system=system, template=template or "{question}")
    end = prompt.end if end is None else end
    return get_format(name, end=end, template=prompt, boundary=boundary)


def format_notes(
    format: Format,
    tokenizer: PreTrainedTokenizerBase | None,
    chat_template: ChatTemplate | None,
) -> list[str]:
    """What a user should know of a policy's format before anything is generated, a line each:
    a chat template that is not used, and end markers that the tokenizer does not have."""
    if tokenizer is None:
        return []
    notes = []
    own = chat_template is None and format.name != "blocks"
    if own and has_chat_template(tokenizer) and not _writes_chat_prompt(format, tokenizer):
        notes.append(
            "the policy's tokenizer has a chat template, which the recipe does not use "
            "(format: {chat_template: auto})"
        )
    missing = [e for e in format.end if _MARKER.fullmatch(e) and not is_token(tokenizer, e)]
    if missing:
        notes.append(
            f"{', '.join(missing)}: no single token of the policy's tokenizer, so the policy may "
            "never end a solution with it (key format.end)"
        )
    return notes


def is_token(tokenizer: PreTrainedTokenizerBase, marker: str) -> bool:
    """Whether a marker is a single added token of the tokenizer."""
    ids = tokenizer(marker, add_special_tokens=False)["input_ids"]
    added = tokenizer.added_tokens_decoder.get(ids[0]) if len(ids) == 1 else None
    return added is not None and added.content == marker  # it may be the unknown token


def _with_markers(format: Format, tokenizer: PreTrainedTokenizerBase) -> Format:
    missing = [m for m in format.special_tokens if not is_token(tokenizer, m)]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(
            f"format {format.name!r}: the policy's tokenizer does not have {', '.join(missing[:3])}"
            f"{more} as single tokens; {ADD_TOKENS}, or use format fenced or plain"
        )
    return format


def _eos(tokenizer: PreTrainedTokenizerBase) -> str:
    if not tokenizer.eos_token:
        raise InputError("format.end is needed: the policy's tokenizer has no EOS token")
    return str(tokenizer.eos_token)


def _writes_chat_prompt(format: Format, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a prompt that is written by hand ends as the chat template's does."""
    try:
        prompt = ChatPrompt(tokenizer)("?")
    except InputError:
        return True  # a template that cannot be rendered is nothing to recommend
    after = prompt[prompt.rindex("?") + 1 :].strip()
    return bool(after) and format.prompt("?").rstrip().endswith(after)
