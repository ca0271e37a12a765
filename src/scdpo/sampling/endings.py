"""Whether a policy ends its solutions and, if hardly ever, the likely reason in one line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

from scdpo.formats import Format
from scdpo.records import Evaluation, Solution
from scdpo.sampling.rollout import Limits

Row = TypeVar("Row", Solution, Evaluation)

FEW = 0.2
"""A smaller share of ended solutions is reported."""
ENOUGH = 20
"""Number of solutions after which the report need not wait for the last one."""
HALF = 0.5
"""The share of cut solutions that makes something the likely reason."""

_MARKER = re.compile(r"<\|[^<>\s|]+\|>|</s>|<eos>|<end_of_turn>|\[/?INST\]")
_LOOP = re.compile(r"(.{8,200}?)\1\1", re.DOTALL)
"""8 to 200 characters, three times in a row."""
_TAIL = 1200
"""Characters at the end of a solution in which a loop is looked for."""


async def with_endings(
    chunks: AsyncIterator[Sequence[Row]],
    format: Format,
    limits: Limits,
    note: Callable[[str], None],
) -> AsyncIterator[Sequence[Row]]:
    """The same chunks of solutions. After the first chunks, or after the last if there are few,
    `note` receives a line if hardly any solution has ended."""
    seen: list[tuple[str, str]] = []
    decided = False
    async for rows in chunks:
        yield rows
        if not decided:
            seen += [(row.finish, row.text) for row in rows]
            decided = len(seen) >= ENOUGH
            if decided and (line := endings(seen, format, limits)):
                note(line)
    if not decided and (line := endings(seen, format, limits)):
        note(line)


def endings(solutions: Sequence[tuple[str, str]], format: Format, limits: Limits) -> str | None:
    """How many solutions, given as (finish, text), ended, and why the others probably did not.

    None if at least a fifth of them ended, or if there are none.
    """
    cut = [(finish, text) for finish, text in solutions if finish != "finished"]
    ended = len(solutions) - len(cut)
    if not solutions or ended >= FEW * len(solutions):
        return None
    caps = {
        "step_tokens": f"limits.step_tokens {limits.step_tokens}",
        "max_steps": f"limits.max_steps {limits.max_steps}",
        "context": f"limits.context {limits.context}",
        "sandbox": "lost sandbox sessions",
    }
    counts = Counter(finish for finish, _ in cut).most_common()
    where = ", ".join(f"{n} at {caps.get(finish, finish)}" for finish, n in counts)
    reason = _reason([text for _, text in cut], ended, format)
    return f"{ended} of {len(solutions)} solutions ended; cut: {where}; {reason}"


def _reason(texts: Sequence[str], ended: int, format: Format) -> str:
    end = " or ".join(format.end) or "the policy's EOS"
    ours = {*format.special_tokens, *format.end}
    others: Counter[str] = Counter()
    for text in texts:
        others.update({marker for marker in _MARKER.findall(text) if marker not in ours})
    for marker, n in others.most_common(1):
        if n >= HALF * len(texts):
            return f"{n} of the cut contain {marker}: if that ends a solution, set format.end"
    loops = sum(_LOOP.search(text[-_TAIL:]) is not None for text in texts)
    if loops >= HALF * len(texts):
        return f"{loops} of the cut repeat themselves to the end: larger limits would not help"
    if ended:
        return f"the limits may be too small ({end} was written, but seldom in time)"
    return (
        f"{end} was never written: the policy may not have learned it (train it on this format"
        " first), format.end may be another, or the limits are too small"
    )
