"""Signs that keep a graded solution out of pairs, recorded in `Solution.flags`."""

from __future__ import annotations

from collections.abc import Iterable

from scdpo.records import Step

ERROR_WORDS = ("error", "apolog")
"""What a step must not contain for its solution to be preferred (arXiv 2407.00782)."""
NOISE_MAX_STEPS = 24
NOISE_MAX_CHARACTERS = 3000
HOST_MARKERS = ("<|execution|>", "```output")
"""Text that only the host writes; a policy that wrote it made up an execution."""


def error_words(texts: Iterable[str]) -> tuple[str, ...]:
    """`error_word:WORD` for every error word in the texts, in any case."""
    lowered = [text.lower() for text in texts]
    return tuple(
        f"error_word:{word}" for word in ERROR_WORDS if any(word in text for text in lowered)
    )


def noise(steps: Iterable[Step], stops: tuple[str, ...]) -> tuple[str, ...]:
    """Flags of garbled solutions: too many steps, a huge step, an invented execution.

    `stops` are the format's stop strings; a host marker that is one ends a step rightly.
    """
    steps = tuple(steps)
    flags = []
    if len(steps) > NOISE_MAX_STEPS:
        flags.append("noise:steps")
    if any(len(step.text) > NOISE_MAX_CHARACTERS for step in steps):
        flags.append("noise:length")
    markers = [marker for marker in HOST_MARKERS if marker not in stops]
    if any(marker in step.text for step in steps for marker in markers):
        flags.append("noise:execution")
    return tuple(flags)


def solution_flags(
    question: str,
    steps: tuple[Step, ...],
    stops: tuple[str, ...],
    *,
    error_words_in_question: bool = False,
) -> tuple[str, ...]:
    """All flags of a solution. The released code looks for error words in the question too."""
    texts = [step.text + step.host_text for step in steps]
    if error_words_in_question:
        texts.append(question)
    return error_words(texts) + noise(steps, stops)
