"""Solution formats: prompt, step boundary, stop strings, parse and render."""

from scdpo.formats.base import Format
from scdpo.formats.chat import ChatPrompt
from scdpo.formats.layouts import LAYOUTS, RecordedSolution, read_recorded
from scdpo.formats.policy import ChatTemplate, format_notes, policy_format
from scdpo.formats.registry import FORMATS, checked_options, get_format

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
    "policy_format",
    "read_recorded",
]
