"""Programs that a sandbox has to outlive.

What they write outside their own folder has a name that begins with `MARK`, and each writes under
one name per place, so that a sandbox which does not stop them leaves little behind.
"""

from __future__ import annotations

from typing import NamedTuple

MARK = "scdpo-soak-"


class Hostile(NamedTuple):
    """A program; `own_pids` for those that must only run in a PID namespace, as they signal every
    process they can see."""

    name: str
    code: str
    own_pids: bool = False


_FILL = f"""
def fill(path):
    try:
        with open(path, "wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
    except OSError:
        pass
MARK = {MARK!r}
"""

HOSTILE = (
    Hostile("loop", "while True: pass"),
    Hostile("loop in C", "sum(range(10**13))"),
    Hostile("one long instruction", "n = 7 ** (10**9)"),
    Hostile("backtracking", "import re\nre.match('(a|a)*b', 'a' * 64)"),
    Hostile("matrix products", "import numpy\na = numpy.ones((999, 999))\nwhile True: a = a @ a"),
    Hostile(
        "swallowed exceptions",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    ),
    Hostile(
        "ignored signals",
        """
import signal, time
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
time.sleep(1000)
""",
    ),
    Hostile("stopped", "import os\nos.kill(os.getpid(), 19)\nwhile True: pass"),
    Hostile(
        "recursion",
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return [f() for _ in 'ab']\nf()",
    ),
    Hostile(
        "fork bomb",
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError: pass",
    ),
    Hostile(
        "fork bomb of daemons",
        """
import os
while True:
    try:
        if os.fork() == 0: os.setsid()
    except OSError: pass
""",
    ),
    Hostile("runaway", "import os\nwhile True:\n    if os.fork(): os._exit(0)"),
    Hostile(
        "daemon",
        """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: time.sleep(1000)
    os._exit(0)
""",
    ),
    Hostile(
        "another program",
        "import subprocess\nsubprocess.Popen(['sleep', '1000'], start_new_session=True)",
    ),
    Hostile("replaced by a program", "import os\nos.execvp('sleep', ['sleep', '1000'])"),
    Hostile(
        "threads",
        """
import threading
def spin():
    while True: pass
for _ in range(500): threading.Thread(target=spin, daemon=True).start()
""",
    ),
    Hostile("memory", "kept = []\nwhile True: kept.append(bytearray(b'x') * (8 << 20))"),
    Hostile(
        "memory of many",
        """
import os
for _ in range(16):
    if os.fork() == 0: break
kept = []
while True: kept.append(bytearray(b'x') * (4 << 20))
""",
    ),
    Hostile(
        "shared memory",
        """
import mmap
kept = []
while True:
    kept.append(mmap.mmap(-1, 16 << 20))
    kept[-1].write(b'x' * (16 << 20))
""",
    ),
    Hostile(
        "memory as a file",
        _FILL + "import os\nfill(f'/proc/self/fd/{os.memfd_create(MARK)}')\n"
        "fd = os.memfd_create(MARK)\nwhile True: os.write(fd, bytes(1 << 20))",
    ),
    Hostile(
        "System V segments",
        """
import ctypes
libc = ctypes.CDLL(None)
for _ in range(100): libc.shmget(0, 1 << 20, 0o1600)
""",
    ),
    Hostile("full disk", _FILL + "while True: fill(MARK)"),
    Hostile(
        "files everywhere",
        _FILL + "for place in ('/tmp', '/var/tmp', '/dev/shm', '/'):\n    fill(f'{place}/{MARK}')",
    ),
    Hostile("many files", "for i in range(10**7): open(str(i), 'w').close()"),
    Hostile(
        "folders without rights",
        """
import os
for _ in range(300):
    os.mkdir('d')
    os.chdir('d')
for _ in range(300):
    os.chdir('..')
    os.chmod('d', 0)
""",
    ),
    Hostile("flood", "import sys\nwhile True: sys.stdout.write('x' * 10**6)"),
    Hostile("flood on descriptor 2", "import os\nwhile True: os.write(2, b'\\xff' * 10**5)"),
    Hostile("flood by a child", "import subprocess\nsubprocess.run(['yes'])"),
    Hostile(
        "flood after the end",
        "import os\nif os.fork() == 0:\n    while True: os.write(1, b'late')",
    ),
    Hostile("long repr", "'x' * 10**8"),
    Hostile("exit", "import os\nos._exit(0)"),
    Hostile("segfault", "import ctypes\nctypes.string_at(0)"),
    Hostile("abort", "import os\nos.abort()"),
    Hostile("closed descriptors", "import os\nos.closerange(0, 1 << 16)"),
    Hostile(
        "all descriptors",
        "import os\nkept = []\nwhile True: kept.append(os.pipe())",
    ),
    Hostile(
        "noise on descriptors",
        """
import os
for fd in range(3, 1024):
    try:
        os.set_blocking(fd, False)
        os.write(fd, b'd\\0\\0\\0\\0' * 64)
    except OSError:
        pass
""",
    ),
    Hostile(
        "kill the parent",
        "import os\nfor pid in (1, 2, os.getppid()):\n    try:\n        os.kill(pid, 9)\n"
        "    except OSError: pass",
        own_pids=True,
    ),
    Hostile(
        # The small process id is one more proof of the namespace.
        "kill everyone",
        "import os\nos.getpid() < 100 and os.kill(-1, 9)",
        own_pids=True,
    ),
)
