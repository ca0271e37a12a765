"""Server processes: started, kept running, and stopped whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from scdpo.errors import EngineError, short

STOP_SECONDS = 30.0
"""How long a server may take to end before it is killed."""
LONGEST_PAUSE = 30.0
"""Seconds; the pause before a server is started again is doubled up to this."""
_TAIL_BYTES = 4096

# The server gets SIGTERM when the thread that has started it ends, also if this process is killed:
# it would go on to hold its GPUs.
_ORPHANS_END = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execvp(sys.argv[1], sys.argv[1:])"
)


class ServerProcess:
    """A command that is started again when it ends, at most `restarts` times.

    Its output is appended to the file `log`. `lost` says why it is not started any more, once that
    is so, and `on_lost` is then called, in another thread.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str],
        restarts: int,
        on_lost: Callable[[], None],
    ):
        self.lost = ""
        self.log = log
        self._command = list(command)
        self._environment = dict(environment)
        self._restarts = restarts
        self._on_lost = on_lost
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name="scdpo-server", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the process, with all that it has started; stopping again does nothing."""
        self._stopping.set()
        with self._lock:
            process = self._process
        if process is not None:
            _signal(process, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            _signal(process, signal.SIGKILL)
        self._thread.join()

    def _keep(self) -> None:
        for n in range(self._restarts + 1):
            if n:
                self._stopping.wait(min(2.0 ** (n - 1), LONGEST_PAUSE))
            try:
                ended = self._run()
            except OSError as error:
                ended = f"cannot be started: {error}"
            if self._stopping.is_set():
                return
        again = f" {self._restarts + 1} times" if self._restarts else ""
        last = short(last_line(self.log), 200, quote=False)
        self.lost = f"{self._command[0]} {ended}{again}; {self.log} ends with: {last}"
        self._on_lost()

    def _run(self) -> str:
        """Run the command once; returns how it ended. Raises OSError."""
        with self.log.open("ab") as log:
            with self._lock:
                if self._stopping.is_set():
                    return "is stopped"
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _ORPHANS_END, *self._command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    start_new_session=True,  # a Ctrl-C is not for the servers
                )
            code = self._process.wait()
        _signal(self._process, signal.SIGKILL)  # what it has left behind
        return f"ended with status {code}"


def free_port() -> int:
    """A TCP port of this machine that nobody listens to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def last_line(log: Path) -> str:
    """The last line of a log that is not blank, or nothing."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def gpus_of_servers(replicas: int | None, each: int) -> list[tuple[str, ...]]:
    """The GPUs of each server, by the names that CUDA_VISIBLE_DEVICES takes; none without GPUs.

    Raises EngineError if there are fewer GPUs than wanted.
    """
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    names = visible.split(",")[:count] if visible else [str(n) for n in range(count)]
    if not names:
        return [()] * (replicas or 1)
    wanted = replicas or max(1, len(names) // each)
    if wanted * each > len(names):
        raise EngineError(
            f"{wanted} servers of {each} GPUs (engine.replicas, engine.tensor_parallel) need "
            f"{wanted * each} GPUs, but there are {len(names)}"
        )
    return [tuple(names[n * each : (n + 1) * each]) for n in range(wanted)]


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a process and all of its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
