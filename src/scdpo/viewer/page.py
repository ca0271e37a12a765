"""A run as one file that needs no server and no network."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from scdpo.errors import InputError
from scdpo.palette import PALETTE
from scdpo.store import write_atomic
from scdpo.viewer.details import problem_details
from scdpo.viewer.guard import POLICY
from scdpo.viewer.index import Index, encoded

MAX_BYTES = 50 * 10**6
_CHUNK_BYTES = 2**19
_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([a-z]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async function|function|const|class) (\w+))", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Written:
    """What a file holds: its size, and how many of the run's problems are in it whole."""

    bytes: int
    problems: int
    whole: int


def assets() -> dict[str, bytes]:
    """The files of the page by name; its style sheet begins with the colours."""
    folder = files("scdpo.viewer") / "assets"
    found = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    return found | {"style.css": PALETTE.encode() + found["style.css"]}


def write_page(index: Index, out: Path, max_bytes: int = MAX_BYTES) -> Written:
    """Write a run's page into one file of at most `max_bytes`.

    All problems are listed; texts of solutions are in the file for as many problems, in their
    order, as there is room for, and the page says where they are not. Raises InputError if not even
    the list fits, StorageFull or StoreError if the file cannot be written.
    """
    index.refresh()
    tables = index.tables()
    count = len(index.content.problems.id)
    shell, room = _shell(), 1000
    data = [_data("tables", encoded(tables | {"writing": False}))]
    total = len(shell[0]) + len(shell[1]) + len(data[0]) + room
    if total > max_bytes:
        raise InputError(f"{out}: the list of {count} problems alone takes {total:,} bytes")
    firsts: list[int] = []
    whole = 0
    for first, after, chunk in _chunks(index, count):
        part = _data(f"chunk-{len(firsts)}", chunk)
        # An entry of the directory is a number.
        if total + len(part) + 12 * (len(firsts) + 1) > max_bytes:
            break
        data.append(part)
        total += len(part)
        firsts.append(first)
        whole = after
    directory = encoded({"firsts": firsts, "whole": whole})
    data.append(b'<script type="application/json" id="directory">%s</script>\n' % directory)
    text = b"".join([shell[0], *data, shell[1]])
    write_atomic(out, text)
    return Written(len(text), count, whole)


def _chunks(index: Index, count: int) -> Iterator[tuple[int, int, bytes]]:
    """First problem, problem after the last, and JSON of the problems between, in about 512 KB."""
    first, parts, size = 0, list[bytes](), 0
    for number in range(count):
        parts.append(encoded(problem_details(index, number)))
        size += len(parts[-1])
        if size > _CHUNK_BYTES or number == count - 1:
            yield first, number + 1, b"[%s]" % b",".join(parts)
            first, parts, size = number + 1, [], 0


def _data(name: str, value: bytes) -> bytes:
    """A data block: compressed, and in letters that mean nothing in HTML."""
    packed = base64.b64encode(gzip.compress(value, 6, mtime=0))
    return b'<script type="text/plain" id="%s">%s</script>\n' % (name.encode(), packed)


def _shell() -> tuple[bytes, bytes]:
    """The page before and after the data. Script and style are allowed by their hashes."""
    found = {name: text.decode() for name, text in assets().items()}
    script, style = linked(found), found["style.css"]
    policy = POLICY.format(
        script=_hash(script), style=_hash(style), image="'none'", connect="'none'"
    )
    html = found["index.html"]
    head = re.sub(r"(?s)<!-- served -->.*?<!-- /served -->\n", "", html)
    head = head.replace(
        "<!-- head -->",
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>',
    )
    body, end = head.split("<!-- data -->")
    return body.encode(), f'<script type="module">{script}</script>{end}'.encode()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def linked(found: dict[str, str], entry: str = "main.js") -> str:
    """The page's modules as one script: each a function that gives what it exports, after those
    that it imports from."""
    order: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise AssertionError(f"modules import each other: {' → '.join((*above, name))}")
        for _, other in _IMPORT.findall(found[name]):
            visit(other, (*above, name))
        if name not in order:
            order.append(name)

    visit(entry, ())
    text = "\n".join(_as_function(name, found[name]) for name in order)
    if "</script" in text.lower() or "<!--" in text:
        raise AssertionError("a module has an end of script in it")
    return text


def _as_function(name: str, text: str) -> str:
    exported = ", ".join(found for _, found in _EXPORT.findall(text))
    text = _IMPORT.sub(lambda match: f"const {{{match[1]}}} = {_variable(match[2])};\n", text)
    text = _EXPORT.sub(r"\1", text)
    return f"const {_variable(name)} = (() => {{\n{text}return {{ {exported} }};\n}})();"


def _variable(name: str) -> str:
    return f"module_{name.removesuffix('.js')}"
