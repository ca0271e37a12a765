"""Solution formats: prompt, step boundary, stop strings, parse and render."""

from scdpo.formats.base import Format
from scdpo.formats.layouts import LAYOUTS, RecordedSolution, read_recorded
from scdpo.formats.registry import FORMATS, get_format

__all__ = ["FORMATS", "LAYOUTS", "Format", "RecordedSolution", "get_format", "read_recorded"]
