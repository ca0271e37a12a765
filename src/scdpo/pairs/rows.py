"""Preference rows of other projects as pairs.

The accepted layouts, by the keys of a row (further keys are ignored):

- `prompt`, `chosen`, `rejected` as strings: TRL's explicit prompt;
- the same as lists of messages (`role`, `content`): TRL's conversational rows;
- `chosen`, `rejected` as lists of messages that begin alike: TRL's implicit prompt;
- `prompt`, `initial_reason_steps`, `chosen`, `rejected`: Step-DPO (arXiv 2406.18629), the right
  and the wrong next step after correct first steps.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypeGuard, cast

from scdpo.errors import DataError
from scdpo.formats import Format, get_format
from scdpo.records import Pair, Step

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

End: TypeAlias = Literal["auto", "never"]
Messages: TypeAlias = list[dict[str, Any]]

STEPS = "initial_reason_steps"
LAYOUTS = (
    "prompt, chosen, rejected (strings or lists of messages); chosen, rejected (lists of messages"
    f" that begin alike); prompt, {STEPS}, chosen, rejected"
)
"""The accepted layouts, for messages."""

_LABEL = re.compile(r"^(?=Step \d+[:.])", re.MULTILINE)
_BARE_LABEL = re.compile(r"Step \d+[:.]\s*")
_OPENING = re.compile(r"Let's think step by step[.:]?\s*", re.IGNORECASE)


class _Texts(NamedTuple):
    """A row as texts, whatever its layout."""

    prompt: str
    shared: tuple[str, ...]
    chosen: str
    rejected: str
    question: str


def pairs_from_rows(
    rows: Iterable[Mapping[str, Any]],
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    end: End = "auto",
    format: str | None = None,
) -> list[Pair]:
    """Pairs from preference rows; the layout of each row is recognised by its keys and types.

    Messages are rendered with the chat template of `tokenizer`, strings are taken as they are.
    `end: auto` appends the tokenizer's EOS token to completions that are strings beside an
    explicit prompt, as TRL does, unless they end with it; never to the next steps of Step-DPO,
    which do not end a solution. `format` names the solution format that the completions are
    written in (`blocks`, `fenced`, `plain`): they are then cut into steps, and execution output
    in them does not count in the loss. By default a completion is one step that counts whole.

    Step-DPO's correct first steps become `shared`, and their number is the branch step k. They
    are the elements of a list, or the parts of a string that begin with `Step 1:`, `Step 2:`, …
    (without such labels: its lines).

    Raises DataError with the number of the row (from 1) where its layout is unknown, where
    messages cannot be rendered, or where a tokenizer is missing.
    """
    cut = None if format is None else get_format(format)
    return [_pair(n, row, tokenizer, end, cut) for n, row in enumerate(rows, 1)]


def _pair(
    n: int,
    row: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase | None,
    end: End,
    cut: Format | None,
) -> Pair:
    texts = _texts(n, row, tokenizer, end)
    problem = hashlib.sha256(texts.prompt.encode()).hexdigest()[:12]
    dataset = row.get("dataset")
    return Pair(
        id=f"row-{n}",
        problem_id=f"prompt-{problem}",
        dataset=dataset if isinstance(dataset, str) else "rows",
        question=texts.question,
        kind="step_controlled" if texts.shared else "naive",
        format="plain" if cut is None else cut.name,
        prompt=texts.prompt,
        shared=tuple(Step(kind="text", text=text) for text in texts.shared),
        chosen=_steps(texts.chosen, cut),
        rejected=_steps(texts.rejected, cut),
        branch_step=len(texts.shared),
        chosen_id=f"row-{n}/chosen",
        rejected_id=f"row-{n}/rejected",
    )


def _steps(text: str, cut: Format | None) -> tuple[Step, ...]:
    return (Step(kind="text", text=text),) if cut is None else cut.parse(text)


def _texts(
    n: int, row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase | None, end: End
) -> _Texts:
    prompt, chosen, rejected = (row.get(key) for key in ("prompt", "chosen", "rejected"))
    if isinstance(chosen, str) and isinstance(rejected, str):
        if row.get(STEPS) is not None:
            return _step_dpo(n, row, tokenizer)
        if isinstance(prompt, str):
            chosen, rejected = (_ended(n, text, tokenizer, end) for text in (chosen, rejected))
            return _Texts(prompt, (), chosen, rejected, prompt)
    elif _is_messages(chosen) and _is_messages(rejected) and STEPS not in row:
        if prompt is None:
            prompt, chosen, rejected = _common_beginning(n, chosen, rejected)
        if _is_messages(prompt):
            return _conversation(n, row, prompt, (chosen, rejected), tokenizer)
    raise _unknown(n, row)


def _step_dpo(n: int, row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase | None) -> _Texts:
    prompt, given = row.get("prompt"), row[STEPS]
    question = prompt if isinstance(prompt, str) else ""
    if _is_messages(prompt):
        question = _question(prompt)
        prompt = _render(n, row, prompt, tokenizer, add_generation_prompt=True)
    if isinstance(given, (list, tuple)) and all(isinstance(step, str) for step in given):
        before, steps = "", [step for step in given if step]
    elif isinstance(given, str):
        before, steps = _labelled_steps(given)
    else:
        raise _unknown(n, row)
    if not isinstance(prompt, str):
        raise _unknown(n, row)
    return _Texts(prompt + before, tuple(steps), row["chosen"], row["rejected"], question)


def _labelled_steps(text: str) -> tuple[str, list[str]]:
    """What stands before the first step, and the steps; together they are the text.

    An opening phrase belongs to the first step, and the label of the step that is still to come
    to the last one.
    """
    labelled = _LABEL.search(text) is not None
    parts = _LABEL.split(text) if labelled else text.splitlines(keepends=True)
    steps: list[str] = []
    waiting = ""
    for number, part in enumerate(parts):
        opening = _OPENING.fullmatch(part) or (labelled and not number)
        if opening or _BARE_LABEL.fullmatch(part) or not part.strip():
            waiting += part
        else:
            steps.append(waiting + part)
            waiting = ""
    if not steps:
        return waiting, []
    steps[-1] += waiting
    return "", steps


def _conversation(
    n: int,
    row: Mapping[str, Any],
    prompt: Messages,
    sides: tuple[Messages, Messages],
    tokenizer: PreTrainedTokenizerBase | None,
) -> _Texts:
    """Prompt and completions as the chat template renders them.

    A completion is what the whole conversation has after the prompt with its generation prompt.
    """
    start = _render(n, row, prompt, tokenizer, add_generation_prompt=True)
    completions: list[str] = []
    for name, side in zip(("chosen", "rejected"), sides, strict=True):
        whole = _render(n, row, [*prompt, *side], tokenizer)
        if not whole.startswith(start):
            raise DataError(
                f"row {n}: the chat template renders {name} so that the prompt is not its"
                " beginning; pass prompt, chosen and rejected as strings"
            )
        completions.append(whole[len(start) :])
    return _Texts(start, (), completions[0], completions[1], _question(prompt))


def _render(
    n: int,
    row: Mapping[str, Any],
    messages: Messages,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    add_generation_prompt: bool = False,
) -> str:
    if tokenizer is None:
        raise DataError(f"row {n}: messages need a chat template; pass the tokenizer")
    options = row.get("chat_template_kwargs") or {}
    try:
        text = tokenizer.apply_chat_template(
            messages,
            tools=row.get("tools"),
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **options,
        )
    except Exception as error:  # whatever the template or its engine raises
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise DataError(f"row {n}: the chat template cannot render it: {reason}") from error
    return cast(str, text)


def _common_beginning(
    n: int, chosen: Messages, rejected: Messages
) -> tuple[Messages, Messages, Messages]:
    """The messages that both conversations begin with, and what each has after them."""
    shorter = min(len(chosen), len(rejected))
    k = next((i for i in range(shorter) if chosen[i] != rejected[i]), shorter)
    if not k or k == shorter:
        where = "from the first message on" if not k else "only in their length"
        raise DataError(f"row {n}: the conversations chosen and rejected differ {where}")
    return chosen[:k], chosen[k:], rejected[k:]


def _ended(n: int, text: str, tokenizer: PreTrainedTokenizerBase | None, end: End) -> str:
    """A completion that ends with the tokenizer's EOS token, if `end` asks for it."""
    if end == "never":
        return text
    if tokenizer is None:
        raise DataError(
            f"row {n}: completions end with the tokenizer's EOS token; pass the tokenizer, or"
            " end='never'"
        )
    eos = tokenizer.eos_token
    return text if not isinstance(eos, str) or text.endswith(eos) else text + eos


def _is_messages(value: object) -> TypeGuard[Messages]:
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(isinstance(message, Mapping) and "role" in message for message in value)
    )


def _question(messages: Messages) -> str:
    """The last message of the user."""
    for message in reversed(messages):
        if message["role"] == "user" and isinstance(message.get("content"), str):
            return cast(str, message["content"])
    return ""


def _unknown(n: int, row: Mapping[str, Any]) -> DataError:
    keys = ", ".join(f"{key} ({type(value).__name__})" for key, value in row.items())
    return DataError(f"row {n}: unknown layout with {keys or 'no keys'}; accepted are {LAYOUTS}")
