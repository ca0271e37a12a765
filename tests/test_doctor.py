"""What a machine offers, and the one-line error for a level that it does not offer."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from scdpo.doctor import Diagnosis, forbidding, forbidding_filters
from scdpo.sandbox import Level, SandboxConfig
from small_runs import write_recipe, write_recorded

SCDPO = (sys.executable, "-c", "from scdpo.cli import main; main()")
# A user namespace of our own, in which no further one may be made: the host is not touched.
FORBIDDEN = (
    *("unshare", "--user", "--map-root-user", "sh", "-c"),
    'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"',
    "sh",
)


def scdpo(*arguments: object, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run the console script in its own process, launched by the command `before`."""
    line = (*before, *SCDPO, *map(str, arguments))
    return subprocess.run(line, capture_output=True, text=True, timeout=200)


@pytest.fixture
def forbidden() -> tuple[str, ...]:
    """A command prefix that forbids user namespaces."""
    found = shutil.which("unshare")
    if not found or subprocess.run([*FORBIDDEN, "true"], capture_output=True).returncode:
        pytest.skip("no user namespace to forbid others in")
    return FORBIDDEN


def test_doctor_as_json() -> None:
    done = scdpo("doctor", "--json")
    found = Diagnosis.model_validate_json(done.stdout)
    assert done.stderr == ""
    assert found.versions["python"] == platform.python_version()
    assert {"scdpo", "torch", "transformers", "kernel", "libc"} <= found.versions.keys()
    assert found.devices[0].name == "cpu"
    assert found.torch == ""
    assert tuple(level.level for level in found.levels) == get_args(Level)
    [default] = [level for level in found.levels if level.default]
    assert default.level == SandboxConfig().level
    assert done.returncode == (0 if default.obtained else 1)
    for level in found.levels:
        if level.obtained:
            assert level.isolation
            assert level.first_result_ms is not None
            assert 0 < level.first_result_ms < 10_000
            assert not level.missing
        else:
            assert level.missing


def test_doctor_for_people() -> None:
    done = scdpo("doctor")
    assert done.stderr == ""
    lines = {line[:13].strip(): line[14:] for line in done.stdout.splitlines()}
    assert lines["python"] == platform.python_version()
    assert lines["kernel"].startswith("Linux ")
    assert " threads, " in lines["cpu"]
    assert {"namespace *", "process"} <= lines.keys()
    assert lines[""] == "* what runs use unless a recipe says otherwise"
    if done.returncode == 0:
        assert "ms to a session's first result" in lines["namespace *"]


def test_doctor_where_user_namespaces_are_forbidden(forbidden: tuple[str, ...]) -> None:
    done = scdpo("doctor", "--json", before=forbidden)
    found = Diagnosis.model_validate_json(done.stdout)
    by_level = {level.level: level for level in found.levels}
    assert done.returncode == 1
    assert not by_level["namespace"].obtained
    assert "\n" not in by_level["namespace"].missing
    assert by_level["namespace"].hints[0] == (
        "user.max_user_namespaces is 0, which forbids user namespaces: "
        "`sysctl user.max_user_namespaces=10000`"
    )
    if by_level["process"].obtained:
        assert by_level["namespace"].hints[-1] == (
            "level process is available: put `sandbox: {level: process}` in the recipe"
        )
    text = scdpo("doctor", before=forbidden).stdout
    assert "namespace *   not available: " in text
    assert "              hint: user.max_user_namespaces is 0, which " in text


@pytest.mark.parametrize("command", ["import", "exec"])
def test_an_unavailable_level_ends_a_command_in_one_line(
    command: str, forbidden: tuple[str, ...], tmp_path: Path
) -> None:
    recorded = write_recorded(tmp_path / "apples.jsonl", 1)
    recipe = write_recipe(tmp_path / "my.yaml", sandbox={"level": "namespace"})
    sessions = tmp_path / "sessions.jsonl"
    sessions.write_text('{"blocks": ["1 + 1"]}\n')
    out = tmp_path / "out"
    arguments = {
        "import": (recorded, "--layout", "tora", "--out", out, "--recipe", recipe),
        "exec": (sessions, "--level", "namespace", "--out", out),
    }
    done = scdpo(command, *arguments[command], before=forbidden)
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if line.startswith("scdpo: ")]
    assert said == done.stderr.splitlines()[-1:]
    assert "namespace" in said[0]
    assert "Traceback" not in done.stderr
    assert not list(out.rglob("rows-*.jsonl")) or not any(
        path.stat().st_size for path in out.rglob("rows-*.jsonl")
    )
    assert command == "import" or not list(tmp_path.glob("out*"))


def kernel(root: Path, files: dict[str, str]) -> Path:
    """A folder that holds some files of /proc."""
    plain = {"sys/kernel/seccomp/actions_avail": "kill_process errno allow\n"}
    for name, text in (plain | files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


ROOT = {"self/status": "Name:\tx\nCapEff:\t000001ffffffffff\nSeccomp:\t0\n"}
USER = {"self/status": "Name:\tx\nCapEff:\t0000000000000000\nSeccomp:\t0\n"}


@pytest.mark.parametrize(
    ("files", "beginnings"),
    [
        ({}, []),
        (USER, []),
        (USER | {"sys/user/max_user_namespaces": "96365\n"}, []),
        (ROOT | {"sys/user/max_pid_namespaces": "0\n"}, ["user.max_pid_namespaces is 0, which "]),
        (
            USER | {"sys/kernel/unprivileged_userns_clone": "0\n"},
            ["kernel.unprivileged_userns_clone is 0, which forbids user namespaces to all but"],
        ),
        (ROOT | {"sys/kernel/unprivileged_userns_clone": "0\n"}, []),
        (USER | {"sys/kernel/unprivileged_userns_clone": "1\n"}, []),
        (
            USER | {"sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"},
            ["kernel.apparmor_restrict_unprivileged_userns is 1, which forbids user namespaces"],
        ),
        (USER | {"sys/kernel/apparmor_restrict_unprivileged_userns": "0\n"}, []),
        (
            {"self/status": "CapEff:\t0\nSeccomp:\t2\n"},
            ["a seccomp filter applies to this process, as under container runtimes, and may"],
        ),
        (
            {"self/status": "CapEff:\t0\nSeccomp:\t2\n", "sys/user/max_user_namespaces": "0"},
            ["user.max_user_namespaces is 0, which forbids user namespaces: `sysctl user.max_u"],
        ),
        (
            {"sys/kernel/seccomp/actions_avail": "kill_process allow\n"},
            ["kernel.seccomp.actions_avail lacks errno"],
        ),
    ],
)
def test_settings_that_forbid(files: dict[str, str], beginnings: list[str], tmp_path: Path) -> None:
    found = forbidding(kernel(tmp_path, files))
    assert len(found) == len(beginnings)
    for hint, beginning in zip(found, beginnings, strict=True):
        assert hint.startswith(beginning)


def test_a_kernel_without_seccomp(tmp_path: Path) -> None:
    assert forbidding_filters(tmp_path) == [
        "this kernel has no seccomp filters (no kernel.seccomp.actions_avail)"
    ]
    assert forbidding_filters() == []


def test_a_torch_that_cannot_be_imported_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libtorch.so: cannot open')\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from scdpo.cli import main; main()"
    line = [sys.executable, "-c", code, "doctor", "--json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=200)
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["torch"] == "OSError: libtorch.so: cannot open"
    assert [device["name"] for device in found["devices"]] == ["cpu"]
