"""Reasons to keep a graded solution out of pairs, recorded in `Solution.flags`."""

from __future__ import annotations

from collections.abc import Sequence

from scdpo.records import ERROR_WORD, NOISE, Step

ERROR_WORDS = ("error", "apolog")
"""Words that no step of a preferred solution may contain (arXiv 2407.00782)."""
NOISE_MAX_STEPS = 24
NOISE_MAX_CHARACTERS = 3000
HOST_MARKERS = ("<|execution|>", "```output")
"""Text that only the host writes; if the policy wrote it, it made up an execution."""


def solution_flags(
    question: str,
    steps: Sequence[Step],
    stops: tuple[str, ...],
    *,
    error_words_in_question: bool = False,
) -> tuple[str, ...]:
    """All flags of a solution.

    `error_word:WORD` is set for every error word in its steps, ignoring case (the released code
    also looks in the question). `noise:…` marks a garbled solution: too many steps, a very long
    step, or an execution that the policy made up. `stops` are the format's stop strings; a host
    marker among them is a legitimate end of a step.
    """
    lowered = "\n".join(step.text + step.host_text for step in steps).lower()
    if error_words_in_question:
        lowered += f"\n{question.lower()}"
    flags = [f"{ERROR_WORD}:{word}" for word in ERROR_WORDS if word in lowered]
    if len(steps) > NOISE_MAX_STEPS:
        flags.append(f"{NOISE}:steps")
    if max((len(step.text) for step in steps), default=0) > NOISE_MAX_CHARACTERS:
        flags.append(f"{NOISE}:length")
    markers = [marker for marker in HOST_MARKERS if marker not in stops]
    if any(marker in step.text for step in steps for marker in markers):
        flags.append(f"{NOISE}:execution")
    return tuple(flags)
