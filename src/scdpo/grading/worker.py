"""The process that runs symbolic comparisons; started by the pool, never imported by it.

One JSON object a line on standard input (`gold`, `answer`), one verdict a line on the original
standard output. The kernel kills the process when a comparison used up its seconds of CPU time,
so that no loop, in Python or in C, can outlast the deadline, and so that the verdict does not
depend on how busy the machine is.
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
"""Seconds between looks at whether the owner still lives while no request comes."""


def main() -> None:
    """Serve requests until standard input ends or the owner is gone.

    Arguments: the owner's process id and the CPU seconds a comparison may use.
    """
    owner, deadline = int(sys.argv[1]), float(sys.argv[2])
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the libraries print must not end up among the replies
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
    """Wait for input; False when the owner died while a process it forked keeps the pipe open.

    The pool asks one thing at a time, so nothing of a next line is ever buffered here.
    """
    while not select.select([sys.stdin], [], [], ORPHAN_CHECK)[0]:
        if os.getppid() != owner:
            return False
    return True
