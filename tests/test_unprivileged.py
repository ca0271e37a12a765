"""The tests of the sandbox once more, as a user without rights (test_attacks.py does so itself).

With an interpreter that belongs to this user, and the packages of ours.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from attacks.owned import SYSTEM, owned_interpreter

NOBODY = 65534
CHECKOUT = Path(__file__).resolve().parents[1]
FILES = [
    *("test_sandbox.py", "test_sandbox_owner.py", "test_clones.py"),
    *("test_landlock.py", "test_seccomp.py"),
]


@pytest.fixture(scope="module")
def copy() -> Iterator[Path]:
    """A copy of the sources and the tests that everyone may read."""
    folder = Path(tempfile.mkdtemp(prefix="scdpo-tests-"))
    folder.chmod(0o777)
    ignore = shutil.ignore_patterns("__pycache__", "embedded")
    for name in ("src", "tests"):
        shutil.copytree(CHECKOUT / name, folder / name, ignore=ignore)
    shutil.copy(CHECKOUT / "pyproject.toml", folder)
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Path]:
    if not SYSTEM.exists():
        pytest.skip(f"no {SYSTEM}")
    with owned_interpreter(NOBODY) as path:
        yield path


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become someone else")
@pytest.mark.parametrize("file", FILES)
def test_as_an_unprivileged_user(copy: Path, interpreter: Path, file: str) -> None:
    site = next(p for p in sys.path if p.endswith("site-packages"))
    own = copy / f"basetemp-{file}"
    try:
        done = subprocess.run(
            [
                *(interpreter, "-m", "pytest", f"tests/{file}", "-q", "-p", "no:cacheprovider"),
                f"--basetemp={own}",
            ],
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            env={"PYTHONPATH": f"{copy}/src:{site}", "PATH": os.defpath},
            cwd=copy,
            capture_output=True,
            text=True,
        )
    except PermissionError:
        pytest.skip("may not become another user")
    if "No module named pytest" in done.stderr:
        pytest.skip("the packages are in a folder that others may not enter")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
