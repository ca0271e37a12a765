"""Pairs in TRL's preference format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from scdpo.records import Pair, Step


def trl_rows(pairs: Iterable[Pair]) -> Iterator[dict[str, str]]:
    """Rows of `prompt`, `chosen` and `rejected` as rendered strings, for `write_jsonl`.

    The shared steps belong to the prompt (Eq. 4), markers and execution outputs included. The
    columns are strings rather than messages, because a chat template would insert a second
    assistant header between the shared steps and their continuation.
    """
    for pair in pairs:
        yield {
            "prompt": pair.prompt + _render(pair.shared),
            "chosen": _render(pair.chosen),
            "rejected": _render(pair.rejected),
        }


def _render(steps: Iterable[Step]) -> str:
    return "".join(step.text + step.host_text for step in steps)
