"""Worker processes for symbolic comparisons, which are killed at their deadline and replaced."""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from scdpo.errors import GradingError
from scdpo.records import Verdict, undecided

CRASHED = "the comparison crashed"
ATTEMPTS = 2
"""Tries per pair: a worker may have been killed for another reason, such as scarce memory."""
STARTUP_SECONDS = 180.0
BACKSTOP = 10.0
"""A worker that got no CPU time is killed after this many deadlines of wall-clock time."""


class _Worker:
    """A process and its pipes; it serves one request at a time."""

    def __init__(self, deadline: float):
        self.wall_limit = BACKSTOP * deadline
        # A fixed hash seed, as sympy would otherwise walk sets in a different order in each worker.
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONHASHSEED": "0",
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        }
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-c"),
                    "from scdpo.grading.worker import main; main()",
                    *(str(os.getpid()), str(deadline)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                env=environment,
            )
        except OSError as error:
            raise GradingError(f"a grading worker could not start: {error}") from error
        self.buffer = b""
        if self._line(STARTUP_SECONDS) != b"ready":
            reason = self._last_error_line()
            self.kill()
            raise GradingError(f"a grading worker could not start: {reason}")

    def alive(self) -> bool:
        return self.process.poll() is None

    def compare(self, gold: str, answer: str) -> Verdict:
        """The verdict on one pair; afterwards the worker may be dead."""
        assert self.process.stdin is not None
        try:
            line = json.dumps({"gold": gold, "answer": answer}) + "\n"
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()
        except OSError:
            return self._failure()
        reply = self._line(self.wall_limit)
        try:
            return Verdict.model_validate_json(reply)
        except ValidationError:
            return self._failure()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    continue

    def _line(self, seconds: float) -> bytes:
        """The next line without its line break; empty when the worker died or took too long."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        end = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                return b""
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                return b""
            self.buffer += chunk
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line

    def _failure(self) -> Verdict:
        """The reason for a missing reply, as a verdict. Kills the process if it is still alive."""
        try:
            code = self.process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = -signal.SIGPROF
        reason = "deadline" if code == -signal.SIGPROF else f"{CRASHED} ({code})"
        return undecided(reason)

    def _last_error_line(self) -> str:
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self.process.poll()}"


class WorkerPool:
    """Up to `workers` processes, started when they are first needed; safe to use from threads."""

    def __init__(self, workers: int, deadline: float):
        self.workers = workers
        self.deadline = deadline
        self.owner = os.getpid()
        self.slots: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
        for _ in range(workers):
            self.slots.put(None)
        self.closed = False

    def compare(self, gold: str, answer: str) -> Verdict:
        """The verdict of one symbolic comparison. Raises GradingError when no worker can start."""
        worker = self.slots.get()
        try:
            if self.closed or os.getpid() != self.owner:
                raise GradingError("the grader is closed, or belongs to the parent process")
            verdict: Verdict | None = None
            for _ in range(ATTEMPTS):
                if worker is not None and not worker.alive():
                    worker.kill()
                    worker = None
                if worker is None:
                    worker = _Worker(self.deadline)
                verdict = worker.compare(gold, answer)
                if not verdict.reason.startswith(CRASHED):
                    break
            assert verdict is not None
            return verdict
        finally:
            self.slots.put(worker)

    def compare_many(self, pairs: list[tuple[str, str]]) -> list[Verdict]:
        """The verdicts in the order of `pairs`, computed by all workers."""
        if len(pairs) <= 1 or self.workers == 1:
            return [self.compare(gold, answer) for gold, answer in pairs]
        with ThreadPoolExecutor(self.workers) as threads:
            return list(threads.map(lambda pair: self.compare(*pair), pairs))

    def close(self) -> None:
        """Kill all workers once the comparisons under way are done; closing twice does nothing."""
        if self.closed:
            return
        held = [self.slots.get() for _ in range(self.workers)]
        self.closed = True
        for worker in held:
            if worker is not None and os.getpid() == self.owner:
                worker.kill()
            self.slots.put(None)
