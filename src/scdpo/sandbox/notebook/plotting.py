"""Plotting without a screen: figures are drawn in memory and closed at the end of their block."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from importlib.abc import MetaPathFinder
from pathlib import Path


class PlottingWithoutScreen(MetaPathFinder):
    """Gives matplotlib, when it is imported, a backend without a screen and a private cache."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == "matplotlib":
            cache = str(Path(tempfile.gettempdir()) / ".cache")
            os.environ["MPLBACKEND"] = "agg"
            os.environ["MPLCONFIGDIR"] = cache
            # For fontconfig, which matplotlib asks for the list of fonts.
            os.environ["XDG_CACHE_HOME"] = cache


def close_figures() -> None:
    """Close the figures of a block, as a notebook does after showing them."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        with contextlib.suppress(BaseException):
            pyplot.close("all")
