"""Decides whether a block that was executed again printed what was recorded.

Addresses, colours, the frames of a traceback and warnings differ between two executions of the
same code on different versions of Python. What `normalise_output` leaves should not differ.
"""

from __future__ import annotations

import re

_COLOUR = re.compile(r"\x1b\[(?:\d{1,3};)*\d{0,3}m")
# Some recordings have lost the escape byte.
_COLOUR_REST = re.compile(r"\[(?:\d{1,3};)*\d{1,3}m|\x1b")
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")
_TRACEBACK = re.compile(r"^-{20,}\s+[\w.]+\s+Traceback \(most recent call last\)", re.M)
_HEADER = re.compile(r"([\w.]+)\s+Traceback \(most recent call last\)")
_PRINTED_TRACEBACK = re.compile(
    r"^Traceback \(most recent call last\):\n(?:[ \t]+\S.*\n|[ \t]*\n)+(?=\S)", re.M
)
_SYNTAX_ERROR = re.compile(
    r"^ *(?:Cell In\[\d+\]|File .*?)(?:, line \d+|:\d+)\n(?:[ \t].*\n|\n)*"
    r"((?:Syntax|Indentation|Tab)Error): .*",
    re.M,
)
_ONLY_SYNTAX_ERROR = re.compile(r"\A((?:Syntax|Indentation|Tab)Error): .*\Z", re.S)
# The rest of the message depends on which function was called when the limit was reached.
_RECURSION = re.compile(r"\A(RecursionError: maximum recursion depth exceeded) .*\Z")
_WARNING = re.compile(
    r"^(?:<[^>\n]*>:\d+: \w*Warning: .*(?:\n|\Z)"
    r"|(?:/\S.*\.py|Cell In\[\d+\]):\d+: \w*Warning: .*\n?"
    r"(?:\n(?:.*\n)*?will be removed in a future version of SymPy\.\n+)?(?:  \S.*\n?)?)",
    re.M,
)
# Messages of the Jupyter kernel itself among the output of the code.
_KERNEL_NOISE = re.compile(
    r"The history saving thread hit an unexpected error \(.*?\)\."
    r"History will not be written to the database\."
)
_LIBRARY_PATH = re.compile(r"/[^\s'\"()]*/(?:site|dist)-packages/")
# numpy 2 shows the type of a scalar, numpy 1 did not.
_NUMPY_SCALAR = re.compile(r"\bnp\.(?:float|int|uint|bool_?|complex|str_)\d*\(([^()]*)\)")
# Since Python 3.10 messages such as "A.f() takes 2 arguments" name the class.
_CLASS_OF_FUNCTION = re.compile(r"(?<![\w.])(?:\w+\.)+(\w+\(\))")
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d*(?:[eE][-+]?\d+)?|[eE][-+]?\d+)")

FLOAT_TOLERANCE = 1e-12
"""Relative difference allowed between two printed floats: the last digits depend on the library."""
FULL_PRECISION = 14
"""A float with at least this many significant digits counts as printed in full."""


def normalise_output(text: str) -> str:
    """The output without anything that differs between machines, runs and versions of Python.

    Only the last line of a traceback and only the kind of a syntax error remain.
    """
    text = _COLOUR.sub("", text)
    text = _ADDRESS.sub("at 0x…", text)
    text = _KERNEL_NOISE.sub("", text)
    text = _WARNING.sub("", text)
    text = _LIBRARY_PATH.sub("", text)
    text = _NUMPY_SCALAR.sub(r"\1", text)
    text = _without_traceback(text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def same_output(a: str, b: str) -> bool:
    """Whether two outputs are the same apart from noise (see `normalise_output`).

    Floats, i.e. numbers with a point or an exponent, may differ in their last digits if at least
    one of the two was printed in full.
    """
    a, b = normalise_output(a), normalise_output(b)
    if a == b:
        return True
    if _NUMBER.sub("#", a) != _NUMBER.sub("#", b):
        return False
    numbers = zip(_NUMBER.findall(a), _NUMBER.findall(b), strict=True)
    return all(_close(x, y) for x, y in numbers)


def _close(a: str, b: str) -> bool:
    if a == b:
        return True
    if max(_digits(a), _digits(b)) < FULL_PRECISION:
        return False
    x, y = float(a), float(b)
    return abs(x - y) <= FLOAT_TOLERANCE * max(abs(x), abs(y))


def _digits(number: str) -> int:
    """The number of significant digits that are printed."""
    mantissa = re.split("[eE]", number)[0].lstrip("+-")
    return len(mantissa.replace(".", "").lstrip("0"))


def _without_traceback(text: str) -> str:
    """The text with its traceback reduced to the last line, in the same form in every layout."""
    for shown in (text, _COLOUR_REST.sub("", text)):
        start = _TRACEBACK.search(shown)
        if start is not None:
            final = _final_line(_COLOUR_REST.sub("", shown[start.start() :]))
            if final is not None:
                return shown[: start.start()] + final
    text = _PRINTED_TRACEBACK.sub("", text)
    text = _SYNTAX_ERROR.sub(r"\1", text)
    return _ONLY_SYNTAX_ERROR.sub(r"\1", text)


def _final_line(frames: str) -> str | None:
    """The exception's name and message below its frames, up to the end of the output."""
    *_, header = _HEADER.finditer(frames)
    name = re.escape(header[1])
    line = re.compile(rf"^ ?(?:[A-Za-z_][\w.]*\.)?({name}(?:: .*|\s*$))", re.M)
    found = line.search(frames, header.end())
    if found is None:
        return None
    message = frames[found.start(1) :]
    message = _ONLY_SYNTAX_ERROR.sub(r"\1", message)
    message = _RECURSION.sub(r"\1", message)
    return _CLASS_OF_FUNCTION.sub(r"\1", message)
