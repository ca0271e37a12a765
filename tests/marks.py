"""Marks that several test files use."""

from __future__ import annotations

import os

import pytest

thorough = pytest.mark.skipif(
    not os.environ.get("THOROUGH"), reason="another case covers most of it; THOROUGH=1 runs it too"
)
"""For slow cases, each a combination of what others test one by one."""
