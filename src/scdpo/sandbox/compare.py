"""Whether a block that was executed again printed what was recorded.

Addresses, colours, the frames of a traceback and warnings differ between two executions of the
same code on different versions of Python; what is left after `normalise_output` should not.
"""

from __future__ import annotations

import re

# The escape byte is lost in some recordings, the rest of the colour code is not.
_COLOUR = re.compile(r"\x1b?\[(?:\d{1,3};)*\d{1,3}m|\x1b")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")
_TRACEBACK = re.compile(r"^-{20,}\s.*?Traceback \(most recent call last\)", re.S | re.M)
_SYNTAX_ERROR = re.compile(r"^ *(?:Cell In\[\d+\]|File .*?), line \d+\n", re.M)
_FINAL = re.compile(r"^ ?((?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:: .*|\s*$))", re.M)
_SYNTAX_KIND = re.compile(r"^((?:Syntax|Indentation|Tab)Error): .*", re.S)
_WARNING = re.compile(r"^\S.*:\d+: \w*Warning: .*\n?(?:  \S.*\n?)?", re.M)
# What a Jupyter kernel says of itself among the output of the code.
_KERNEL_NOISE = re.compile(
    r"The history saving thread hit an unexpected error \(.*?\)\."
    r"History will not be written to the database\."
)
_LIBRARY_PATH = re.compile(r"/[^\s'\"()]*/(?:site|dist)-packages/")
# numpy 2 names the type of a scalar, numpy 1 did not.
_NUMPY_SCALAR = re.compile(r"\bnp\.(?:float|int|uint|bool_?|complex)\d*\(([^()]*)\)")
# Python 3.10 began to name the class in messages such as "A.f() takes 2 arguments".
_CLASS_OF_FUNCTION = re.compile(r"(?<![\w.])(?:\w+\.)+(\w+\(\))")
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d*(?:[eE][-+]?\d+)?|[eE][-+]?\d+)")

FLOAT_TOLERANCE = 1e-12
"""Relative difference that two printed floats may have: last digits depend on the library."""


def normalise_output(text: str) -> str:
    """The output without what differs between machines, runs and versions of Python.

    Of a traceback its last line remains, of a syntax error its kind.
    """
    text = _COLOUR.sub("", text)
    text = _ADDRESS.sub("0x…", text)
    text = _LIBRARY_PATH.sub("", text)
    text = _NUMPY_SCALAR.sub(r"\1", text)
    text = _KERNEL_NOISE.sub("", text)
    text = _WARNING.sub("", text)
    text = _reduce_error(text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def same_output(a: str, b: str) -> bool:
    """Whether two outputs are the same but for noise (see `normalise_output`).

    Floats, which have a point or an exponent, may differ in their last digits.
    """
    a, b = normalise_output(a), normalise_output(b)
    if a == b:
        return True
    if _NUMBER.sub("#", a) != _NUMBER.sub("#", b):
        return False
    pairs = zip(_NUMBER.findall(a), _NUMBER.findall(b), strict=True)
    return all(_close(float(x), float(y)) for x, y in pairs)


def _close(x: float, y: float) -> bool:
    return x == y or abs(x - y) <= FLOAT_TOLERANCE * max(abs(x), abs(y))


def _reduce_error(text: str) -> str:
    """Of a traceback, the last line; of one that is only that line, the same."""
    start = _TRACEBACK.search(text) or _SYNTAX_ERROR.search(text)
    if start is None:
        return _SYNTAX_KIND.sub(r"\1", text)
    finals = list(_FINAL.finditer(text, start.end()))
    if not finals:
        return text
    message = _SYNTAX_KIND.sub(r"\1", text[finals[-1].start(1) :])
    return text[: start.start()] + _CLASS_OF_FUNCTION.sub(r"\1", message)
