"""Plots without a screen: they are drawn into nothing, and end with their block."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from importlib.abc import MetaPathFinder
from pathlib import Path


class PlottingWithoutScreen(MetaPathFinder):
    """Points matplotlib, when it is imported, to a backend without a screen and private caches."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == "matplotlib":
            cache = str(Path(tempfile.gettempdir()) / ".cache")
            os.environ["MPLBACKEND"] = "agg"
            os.environ["MPLCONFIGDIR"] = cache
            # For the list of fonts that matplotlib asks another program for.
            os.environ["XDG_CACHE_HOME"] = cache


def close_figures() -> None:
    """Close what a block has drawn, as a notebook does when it has shown it."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        with contextlib.suppress(BaseException):
            pyplot.close("all")
