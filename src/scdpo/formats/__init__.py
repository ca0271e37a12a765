"""Solution formats: prompt, step boundary, stop strings, parse and render."""

from scdpo.formats.base import Format
from scdpo.formats.layouts import LAYOUTS, RecordedSolution, read_recorded
from scdpo.formats.registry import FORMATS, get_format
from scdpo.formats.rewriting import neutral, rewrite, worked_steps, write_text, write_worked

__all__ = [
    "FORMATS",
    "LAYOUTS",
    "Format",
    "RecordedSolution",
    "get_format",
    "neutral",
    "read_recorded",
    "rewrite",
    "worked_steps",
    "write_text",
    "write_worked",
]
