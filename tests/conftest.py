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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers, a file's tests share one, as they share what its fixtures make.

    So do all tests of the sandbox that run as this user: the kernel counts processes by user, and
    some of them time what they see.
    """
    for item in items:
        group = "sandbox" if SANDBOX.match(item.path.name) else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data sets beside the checkout; tests skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no public data sets at {SHARED}")
    return SHARED
