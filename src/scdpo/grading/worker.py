"""The process that runs symbolic comparisons; started by the pool, never imported by it.

It reads a JSON object with `gold` and `answer` per line of standard input, and writes a verdict
per line to the original standard output. The kernel kills the process when a comparison has used
up its seconds of CPU time, so that no loop, in Python or in C, can outlast the deadline, and the
verdict does not depend on how busy the machine is.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys

MEMORY = 2 << 30
"""Address space of a worker in bytes."""
READY = "ready"
ORPHAN_CHECK = 5.0
"""Seconds between checks whether the owner is still alive while no request arrives."""


def main() -> None:
    """Serve requests until standard input ends or the owner is gone.

    The command line gives the owner's process id and the CPU seconds that a comparison may use.
    """
    owner, deadline = int(sys.argv[1]), float(sys.argv[2])
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # keeps what the libraries print out of the replies
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    from scdpo.grading.symbolic import compare

    compare("\\frac{x}{2}", "0.5x")  # loads and warms the parser before any deadline counts
    print(READY, file=replies, flush=True)
    while _request_or_end(owner):
        line = sys.stdin.buffer.readline()
        if not line:
            return
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, deadline)
        verdict = compare(request["gold"], request["answer"])
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(verdict.model_dump_json(), file=replies, flush=True)


def _request_or_end(owner: int) -> bool:
    """Wait for input; False when the owner has died and a process that it forked holds the pipe.

    The pool sends one request at a time, so no part of a next line is ever buffered here.
    """
    while not select.select([sys.stdin], [], [], ORPHAN_CHECK)[0]:
        if os.getppid() != owner:
            return False
    return True
