"""Starts the process that becomes the supervisor of a sandbox, and waits until it is ready."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from scdpo.errors import SandboxError
from scdpo.sandbox.host.config import SandboxConfig
from scdpo.sandbox.processes import wire

_START_SECONDS = 120.0
_PACKAGE_FOLDERS = ("site-packages", "dist-packages")


def launch(config: SandboxConfig, control: int, notes: int) -> subprocess.Popen[bytes]:
    """Start a fresh interpreter that runs `processes.boot`.

    `control`: the descriptor of the socket on which the supervisor will serve the owner. `notes`:
    that of `Deadlines`.
    """
    package = str(Path(__file__).resolve().parents[3])
    settings = {
        "owner": os.getpid(),
        "level": config.level,
        "folder": tempfile.gettempdir() if config.level == "process" else "",
        "notes": notes,
        "package": package,
        # The owner's packages, even those found through PYTHONPATH; not the owner's other folders.
        "packages": [p for p in sys.path if Path(p).name in _PACKAGE_FOLDERS],
        "network": config.network == "allow",
        "preload": config.preload,
        "memory": config.memory_mb << 20,
        "tmp": config.tmp_mb << 20,
        "processes": config.processes,
    }
    boot = (
        f"import json, sys; settings = json.loads({json.dumps(settings)!r})\n"
        "sys.path += [path for path in settings['packages'] if path not in sys.path]\n"
        f"sys.path.insert(0, {package!r})\n"
        "from scdpo.sandbox.processes.boot import main\n"
        f"sys.path.pop(0); main({control}, settings)"
    )
    # Not with -I, which would ignore the hash seed that fixes the order of sets.
    return subprocess.Popen(
        [sys.executable, "-s", "-P", "-B", "-c", boot],
        env=_bare_environment(),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=(control, notes),
        start_new_session=True,
    )


def await_start(
    process: subprocess.Popen[bytes], control: socket.socket, config: SandboxConfig
) -> dict[str, Any]:
    """Wait for the supervisor's first message, and return it.

    It has the `parts` that its isolation consists of and, at level `process`, the `folder` of its
    sessions.

    Raises SandboxError if the process ends, does not answer, or cannot isolate sessions.
    """
    ready = wait_until_ready(control, select.POLLIN, _START_SECONDS)
    packet = control.recv(wire.MAX_PACKET) if ready else b""
    stderr = process.stderr
    assert stderr is not None
    if not packet:
        process.kill()
        lines = stderr.read().decode(errors="replace").strip().splitlines()
        raise SandboxError(f"the sandbox did not start: {lines[-1] if lines else 'no answer'}")
    stderr.close()
    message = json.loads(packet)
    if "error" in message:
        raise SandboxError(f"no sandbox of level {config.level} here: {message['error']}")
    return dict(message)


def wait_until_ready(sock: socket.socket, event: int, seconds: float) -> bool:
    """Wait until a socket can be read (`select.POLLIN`) or written (`POLLOUT`); False if it cannot.

    `select.select` does not accept descriptors above 1,023.
    """
    poll = select.poll()
    poll.register(sock, event)
    return bool(poll.poll(1000 * seconds))


def _bare_environment() -> dict[str, str]:
    """What Python itself needs, and a single thread for numpy, so that it is safe to fork."""
    threads = ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR")
    env = {f"{library}_NUM_THREADS": "1" for library in threads}
    env |= {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "LC_ALL": "C.UTF-8"}
    if "LD_LIBRARY_PATH" in os.environ:
        env["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return env
