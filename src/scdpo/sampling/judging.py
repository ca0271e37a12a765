"""What finished solutions state in the end, as claims that the grader judges."""

from __future__ import annotations

from scdpo.formats.base import Format
from scdpo.grading import Claim
from scdpo.records import Step


def claim_of(
    steps: tuple[Step, ...],
    format: Format,  # noqa: A002
    golds: tuple[str, ...],
    *,
    several: bool = False,
) -> Claim:
    """What a whole solution claims."""
    text = format.plain(format.render(steps))
    plain = (format.plain(format.render((step,))) for step in reversed(steps))
    return Claim(text, golds, several, next((step for step in plain if step.strip()), ""))
