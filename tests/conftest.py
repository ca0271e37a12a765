"""Fixtures that several test files use."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data sets beside the checkout; tests skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no public data sets at {SHARED}")
    return SHARED
