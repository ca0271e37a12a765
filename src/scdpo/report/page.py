"""A report as one HTML file that needs no network and no script.

What a model wrote gets into the page as text only: templates escape everything, control characters
and what changes the direction of writing are shown as escapes, and the content security policy
allows nothing but the page's own style sheet, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scdpo.palette import PALETTE
from scdpo.report import notation
from scdpo.report.blocks import Page
from scdpo.report.charts import Chart, Drawing, Intervals, draw_intervals, draw_lines
from scdpo.store import write_atomic
from scdpo.terminal import pieces

if TYPE_CHECKING:
    from jinja2 import Environment

LONGEST = 4000
"""Characters of a text that are put on the page, at most."""
_POLICY = "default-src 'none'; style-src '{style}'; base-uri 'none'; form-action 'none'"


class Piece(NamedTuple):
    """A piece of a text of unknown origin, safe to show; `escape` stands for what is not seen."""

    text: str
    escape: bool


def write_report(page: Page, out: Path) -> int:
    """Write a page, whole or not at all; returns its size in bytes.

    Raises StorageFull and StoreError.
    """
    text = render(page).encode()
    write_atomic(out, text)
    return len(text)


def render(page: Page) -> str:
    """A page as HTML."""
    style = _style(page)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = _POLICY.format(style=f"sha256-{digest}")
    return _templates().get_template("report.html").render(page=page, style=style, policy=policy)


@lru_cache(maxsize=1)
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("scdpo.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["kind"] = lambda block: type(block).__name__
    made.filters["shown"] = shown
    made.filters["drawn"] = drawn
    made.filters["count"] = notation.count
    return made


def shown(text: str, most: int = LONGEST) -> list[Piece]:
    """A text of unknown origin in pieces; what is beyond `most` characters is only counted."""
    left = len(text) - most
    found = [Piece(*piece) for piece in pieces(text[:most])]
    if left > 0:
        found.append(Piece(f" … and {notation.count(left)} more characters", True))
    return found


def drawn(chart: Chart | Intervals) -> Drawing:
    """The geometry of a chart."""
    return draw_lines(chart) if isinstance(chart, Chart) else draw_intervals(chart)


def _style(page: Page) -> str:
    sheet = (files("scdpo.report") / "assets" / "report.css").read_text(encoding="utf-8")
    return "\n".join([PALETTE, sheet, *_shade_rules(page)])


def _shade_rules(page: Page) -> Iterator[str]:
    """A rule for each shade of tokens: a style attribute would need a weaker policy."""
    for n, (ground, text) in enumerate(page.shades):
        yield f".s{n} {{ background: {ground}; color: {text}; }}"
