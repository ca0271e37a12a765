"""Fixtures that several test files use."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts in the background with Ctrl-C ignored, and children inherit that;
    # the tests of commands that are stopped by it need it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

SANDBOX = re.compile("test_(sandbox|clones|supervisor|notebook|landlock|seccomp)")
LONGEST = (
    "test_dpo",
    "test_distributed",
    "test_unprivileged",
    "test_run",
    "test_whole_recipes",
    "test_docs",
    "test_gpu",
)
"""The files that take longest; they begin first, so that no worker has them left at the end."""
APART = ("test_distributed", "test_whole_recipes")
"""Files whose tests share nothing that is slow to make; any worker may take any of them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers, a file's tests share one, as they share what its fixtures make.

    So do all tests of the sandbox that run as this user: the kernel counts processes by user, and
    some of them time what they see.
    """
    for item in items:
        file = item.path.stem
        group = "sandbox" if SANDBOX.match(file) else file
        item.add_marker(pytest.mark.xdist_group(item.nodeid if file in APART else group))
    rank = {file: i for i, file in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data sets beside the checkout; tests skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no public data sets at {SHARED}")
    return SHARED
