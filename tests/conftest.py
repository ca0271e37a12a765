"""Fixtures that several test files use."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts in the background with Ctrl-C ignored, and children inherit that;
    # the tests of commands that are stopped by it need it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data sets beside the checkout; tests skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no public data sets at {SHARED}")
    return SHARED
