"""Solution formats: prompt, step boundary, stop strings, parse and render."""

from scdpo.formats.base import Format
from scdpo.formats.chat import ChatPrompt
from scdpo.formats.layouts import LAYOUTS, RecordedSolution, read_recorded
from scdpo.formats.policy import ChatTemplate, format_notes, policy_format
from scdpo.formats.registry import FORMATS, checked_options, get_format
from scdpo.formats.rewriting import (
    neutral,
    rewrite,
    unwritten_reason,
    worked_steps,
    write_text,
    write_worked,
)

__all__ = [
    "FORMATS",
    "LAYOUTS",
    "ChatPrompt",
    "ChatTemplate",
    "Format",
    "RecordedSolution",
    "checked_options",
    "format_notes",
    "get_format",
    "neutral",
    "policy_format",
    "read_recorded",
    "rewrite",
    "unwritten_reason",
    "worked_steps",
    "write_text",
    "write_worked",
]
