"""The sandbox: what a block shows, what state survives, and that no attack outlives its block."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from scdpo.errors import SandboxError
from scdpo.sandbox import Execution, Level, ProcessSandbox, ProcessSession, SandboxConfig
from scdpo.sandbox.processes.process_table import ProcessTable
from sessions import (
    DEADLINE,
    GRACE,
    LEVELS,
    attack,
    below_us,
    last,
    play,
    processes_with,
    run,
    sandbox,
    wait_until_gone,
    wait_until_there,
)

__all__ = ["sandbox"]


def test_sets_and_random_numbers_are_the_same_in_every_session(sandbox: ProcessSandbox) -> None:
    code = """
import random, numpy
print(*set("abcdefgh"), hash("word"))
random.random(), numpy.random.rand()
"""
    first, second = last(sandbox, code).output, last(sandbox, code).output
    with ProcessSandbox() as other:
        assert first == second == last(other, code).output


def test_a_session_begins_as_if_no_cell_had_run_before(sandbox: ProcessSandbox) -> None:
    look = (
        "import linecache, random, sys, numpy\n"
        "mine = {'look', 'linecache', 'random', 'sys', 'numpy', 'get_ipython'}\n"
        "print(sorted(n for n in globals() if n not in mine and not n.startswith('_')))\n"
        "print(In[:-1], Out, repr(_), repr(_i), [n for n in linecache.cache if 'Cell' in n])\n"
        "print(random.random() == random.Random(0).random())\n"
        "print(numpy.random.rand() == numpy.random.RandomState(0).rand())"
    )
    shown = "['In', 'Out', 'exit', 'mine', 'quit']\n[''] {} '' '' ['Cell In[1]']\nTrue\nTrue"
    assert last(sandbox, look).output == shown
    failed = last(sandbox, "1 / 0").output
    assert "Cell In[1], line 1" in failed


def test_a_session_has_its_own_descriptors_only(sandbox: ProcessSandbox) -> None:
    """Standard ones, its socket, and the pipe for its output; the same in copies of copies."""
    look = """
import os, stat
kinds = {}
for fd in range(1024):
    try:
        kinds[fd] = stat.S_IFMT(os.fstat(fd).st_mode)
    except OSError:
        pass
pipe, sock, null = stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR
kinds == {0: null, 1: pipe, 2: pipe, 254: sock, 255: pipe} or kinds
"""

    async def body() -> list[str]:
        session = await sandbox.session()
        copy = await session.clone()
        again = await copy.clone()
        outputs = [(await one.run(look)).output for one in (session, copy, again)]
        for one in (session, copy, again):
            await one.close()
        return outputs

    assert run(body()) == ["True"] * 3


# Limits


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "sum(range(10**11))",
        "while True:\n    try:\n        pass\n    except BaseException:\n        pass",
        "import signal, time\nfor s in range(1, 32):\n    try:\n        signal.signal(s, "
        "signal.SIG_IGN)\n    except (OSError, ValueError):\n        pass\ntime.sleep(60)",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n"
        "while True: time.sleep(1)",
        "import os\nos.kill(os.getpid(), 19)",
        "import os\nos.setpgid(0, 0) if os.getpgid(0) != os.getpid() else 0\n"
        "import numpy\na = numpy.random.rand(3000, 3000)\nfor _ in range(10**6): a = a @ a",
    ],
    ids=["python", "c", "swallowed", "ignored", "thread", "stopped", "matmul"],
)
def test_deadline(sandbox: ProcessSandbox, code: str) -> None:
    execution, took = attack(sandbox, "print('started')\n" + code)
    assert execution.cut == "deadline"
    assert execution.output == "started"
    assert execution.seconds >= DEADLINE
    assert took < DEADLINE + GRACE


def test_run_after_the_deadline_is_refused(sandbox: ProcessSandbox) -> None:
    async def body() -> None:
        session = await sandbox.session()
        assert (await session.run("while True: pass")).cut == "deadline"
        with pytest.raises(SandboxError, match="gone"):
            await session.run("1")
        with pytest.raises(SandboxError, match="gone"):
            await session.clone()
        await session.close()

    run(body())


def test_a_held_up_event_loop_is_not_a_deadline(sandbox: ProcessSandbox) -> None:
    async def body() -> Execution:
        session = await sandbox.session()
        task = asyncio.create_task(session.run("print(1)\n2"))
        await asyncio.sleep(0.05)
        task2 = asyncio.create_task((await sandbox.session()).run("print(1)\n2"))
        await asyncio.sleep(0)
        time.sleep(DEADLINE + 0.2)  # noqa: ASYNC251 - the point of the test
        await task
        return await task2

    assert run(body()).output == "1\n2"


@pytest.mark.parametrize("detach", [False, True], ids=["child", "daemon"])
def test_children_die_with_their_session(sandbox: ProcessSandbox, detach: bool) -> None:
    mark = f"scdpo-test-{os.getpid()}-{int(detach)}"
    code = f"""
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)", "{mark}"],
                 start_new_session={detach})
"""
    if detach:
        fork = "import os\nif os.fork() == 0:\n    os.setsid()\n"
        code = f"{fork}    exec({code!r})\n    os._exit(0)"

    async def body() -> None:
        session = await sandbox.session()
        execution = await session.run(code)
        assert execution.cut == "", execution.output
        assert wait_until_there(mark)
        await session.close()
        assert processes_with(mark) == []

    run(body())


def test_fork_bomb(sandbox: ProcessSandbox) -> None:
    before = len(below_us())
    detach = "import os, time\nfor _ in range(6):\n    if os.fork() == 0: os.setsid()\n"
    execution, took = attack(sandbox, detach + "while True: time.sleep(1)")
    assert execution.cut == "deadline"
    assert took < DEADLINE + 2 * GRACE
    assert len(below_us()) == before


def test_memory_bomb(sandbox: ProcessSandbox) -> None:
    for code in ("x = bytearray(10**10)", "x = []\nwhile True: x.append('a' * 10**6)"):
        execution, _ = attack(sandbox, code)
        assert execution.cut == "memory"
        assert execution.output.splitlines()[-1] == "MemoryError:"
    assert last(sandbox, "x = bytearray(10**8)\nlen(x)").output == "100000000"


@pytest.mark.parametrize(
    "code",
    [
        "import sys\nfor _ in range(1000): n = sys.stdout.write('x' * 10**6)",
        "import os\nfor _ in range(10**4): n = os.write(2, b'x' * 10**5)",
        "import subprocess\np = subprocess.run('yes x | head -c 1000000000', shell=True)",
        "'x' * 10**8",
    ],
    ids=["stdout", "fd", "subprocess", "repr"],
)
def test_output_flood(code: str) -> None:
    with ProcessSandbox(SandboxConfig(deadline=60, output_chars=1000, preload=())) as sandbox:
        before = peak_memory()
        session_outputs = run(play(sandbox, code, "'alive'"))
        assert session_outputs[0].cut == "output"
        assert 999 <= len(session_outputs[0].output) <= 1000
        assert session_outputs[1].output == "'alive'"
        assert peak_memory() - before < 50 << 20


def peak_memory() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def test_large_file_is_refused(sandbox: ProcessSandbox) -> None:
    execution = last(sandbox, "f = open('big', 'wb')\nwhile True: n = f.write(b'x' * 10**6)")
    assert "File too large" in execution.output


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos._exit(0)",
        "import ctypes\nctypes.string_at(0)",
        "import os\nos.closerange(0, 1024)",
        "import os\nos.kill(os.getpid(), 9)",
        "import os\nos.abort()",
        "import sys\nsys.setrecursionlimit(10**9)\n"
        "class A:\n    def __repr__(self): return repr(self)\nrepr(A())",
    ],
    ids=["exit", "segfault", "close", "kill", "abort", "recursion"],
)
def test_a_session_that_dies(sandbox: ProcessSandbox, code: str) -> None:
    execution, _ = attack(sandbox, "print('started')\n" + code)
    # Later versions of Python have a limit of their own on recursion in C.
    assert execution.cut == "died" or "RecursionError" in execution.output
    assert execution.output.startswith("started")


def test_noise_on_the_protocol_descriptor(sandbox: ProcessSandbox) -> None:
    code = """
import os
for fd in range(3, 1024):
    try:
        os.write(fd, b"zzzzzzzzzzzzz")
    except OSError:
        pass
"""
    attack(sandbox, code)


def test_the_warm_process_cannot_be_killed(sandbox: ProcessSandbox) -> None:
    code = "import os\nfor pid in (os.getppid(), 1):\n    os.kill(pid, 9)"
    execution, _ = attack(sandbox, code)
    assert execution.cut == ("" if sandbox.level == "process" else "died")


# What a session sees


def test_nothing_is_inherited(sandbox: ProcessSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCDPO_SECRET", "token")
    with ProcessSandbox(SandboxConfig(preload=())) as fresh:
        assert last(fresh, "import os\ndict(os.environ)").output == "{}"
        fds = """
import os
for fd in range(256):
    try:
        print(fd, oct(os.fstat(fd).st_mode >> 12))
    except OSError:
        pass
"""
        # Null device, pipe, pipe; the socket and the pipe of the runner.
        want = ["0 0o2", "1 0o1", "2 0o1", "254 0o14", "255 0o1"]
        assert last(fresh, fds).output.splitlines() == want


@pytest.mark.parametrize("path", ["/proc", "/sys", "/etc/shadow", "/root", "/home", "/var/log"])
def test_files_of_the_machine_are_out_of_sight(sandbox: ProcessSandbox, path: str) -> None:
    code = f"""
import os
def look(path):
    try:
        return os.listdir(path) if os.path.isdir(path) else open(path).read()
    except OSError as error:
        return type(error).__name__
look({path!r})
"""
    hidden = ("'FileNotFoundError'", "'PermissionError'", "['.pyenv']")
    assert last(sandbox, code).output in hidden


def test_only_the_own_folder_is_writable(sandbox: ProcessSandbox) -> None:
    code = """
import os, sys, sympy
for folder in ("/", "/usr", "/etc", os.path.dirname(sympy.__file__), sys.prefix, "/dev", "/var"):
    try:
        open(folder + "/planted.py", "w")
        print(folder, "written")
    except OSError as error:
        print(type(error).__name__)
"""
    words = last(sandbox, code).output.split()
    assert set(words) <= {"OSError", "PermissionError", "FileNotFoundError"}
    assert len(words) == 7


def test_sessions_have_folders_of_their_own(sandbox: ProcessSandbox) -> None:
    write = "open('note', 'w').write('mine')\nimport os, tempfile\nos.listdir()"
    assert last(sandbox, write).output == "['note']"
    assert last(sandbox, write).output == "['note']"
    assert last(sandbox, write, "tempfile.gettempdir() == os.getcwd()").output == "True"


NETWORK = """
import socket
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
    try:
        socket.socket(family, socket.SOCK_DGRAM).connect(("127.0.0.1", 9))
        print("reached")
    except OSError as error:
        print(type(error).__name__)
"""


def test_no_network(sandbox: ProcessSandbox) -> None:
    assert "seccomp" in sandbox.isolation
    assert last(sandbox, NETWORK).output.split() == ["PermissionError"] * 3


def test_detached_processes_end_at_the_deadline(sandbox: ProcessSandbox) -> None:
    mark = f"scdpo-test-{os.getpid()}-detached-{sandbox.level}"
    daemon = f"""
import os, subprocess, sys
if os.fork() == 0:
    os.setsid()
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)", "{mark}"])
    os._exit(0)
while True: pass
"""
    assert attack(sandbox, daemon)[0].cut == "deadline"
    assert wait_until_gone(mark, 1) == []


def test_allowed_network_leaves_sockets_alone() -> None:
    with ProcessSandbox(SandboxConfig(network="allow", preload=())) as sandbox:
        assert "net" not in sandbox.isolation
        code = "import socket\ns = socket.socket()\ns.bind(('127.0.0.1', 0))\nprint('bound')"
        assert last(sandbox, code).output == "bound"


def test_very_deep_folders_hold_no_one_up(sandbox: ProcessSandbox) -> None:
    code = "import os\nfor n in range(1500):\n    os.mkdir('d'); os.chdir('d')"

    async def body() -> str:
        beside = await sandbox.session()
        session = await sandbox.session()
        await session.run(code)
        await session.close()
        output = (await beside.run("'alive'")).output
        await beside.close()
        return output

    assert run(body()) == "'alive'"


@pytest.mark.parametrize("level", LEVELS)
def test_what_hides_from_the_watch_is_counted(level: Level) -> None:
    code = """
import ctypes, os, time
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
for _ in range(4):
    if os.fork() == 0:
        block = bytearray(150_000_000)
        block[::4096] = bytes(len(block[::4096]))
        time.sleep(60)
time.sleep(60)
"""
    with ProcessSandbox(SandboxConfig(level=level, deadline=30, memory_mb=256)) as sandbox:
        assert attack(sandbox, code)[0].cut == "memory"


# Many sessions, and the end


def test_requests_of_one_turn_of_the_loop_are_all_answered(sandbox: ProcessSandbox) -> None:
    """More than fit into the socket between owner and supervisor, either way."""

    async def body() -> int:
        await (await sandbox.session()).close()
        asked = [sandbox._ask("end", 10**6 + n) for n in range(2000)]
        return len([await sandbox._answer(one, "end") for one in asked])

    assert run(body()) == 2000


def test_an_answer_that_came_while_the_loop_stood_still_is_heard(
    sandbox: ProcessSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scdpo.sandbox.host.client._REPLY_SECONDS", 0.2)

    async def body() -> str:
        session, beside = await sandbox.session(), await sandbox.session()
        closing = asyncio.create_task(session.close())
        await asyncio.sleep(0)
        time.sleep(0.5)  # noqa: ASYNC251 - that is the point
        await closing
        output = (await beside.run("1 + 1")).output
        await beside.close()
        return output

    assert run(body()) == "2"


def test_parallel_sessions(sandbox: ProcessSandbox) -> None:
    async def one(n: int) -> str:
        session = await sandbox.session()
        await session.run(f"x = {n}")
        output = (await session.run("x * 10")).output
        await session.close()
        return output

    async def body() -> list[str]:
        return await asyncio.gather(*(one(n) for n in range(30)))

    assert run(body()) == [str(10 * n) for n in range(30)]


def test_too_many_sessions_is_an_error() -> None:
    async def body() -> None:
        with ProcessSandbox(SandboxConfig(max_sessions=2, preload=())) as sandbox:
            session = await sandbox.session()
            await session.clone()
            for open_one in (sandbox.session, session.clone):
                with pytest.raises(SandboxError, match="2 sandbox sessions are live"):
                    await open_one()
            await session.close()
            await sandbox.session()

    run(body())


def test_a_second_block_at_once_is_refused(sandbox: ProcessSandbox) -> None:
    async def body() -> None:
        session = await sandbox.session()
        first = asyncio.create_task(session.run("import time; time.sleep(0.3); 7"))
        await asyncio.sleep(0.05)
        with pytest.raises(SandboxError, match="still running"):
            await session.run("1")
        assert (await first).output == "7"
        await session.close()

    run(body())


def test_a_cancelled_block_kills_its_session(sandbox: ProcessSandbox) -> None:
    async def body() -> None:
        session = await sandbox.session()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await session.run("while True: pass")
        with pytest.raises(SandboxError, match="gone"):
            await session.run("1")

    run(body())
    assert last(sandbox, "1 + 1").output == "2"


@pytest.mark.parametrize("level", LEVELS)
def test_close_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: Level
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def body() -> None:
        sandbox = ProcessSandbox(SandboxConfig(level=level, deadline=DEADLINE, preload=()))
        idle, busy = await sandbox.session(), await sandbox.session()
        await idle.clone()
        locked = "import os\nos.makedirs('a/b')\nopen('a/b/c', 'w').close()\nos.chmod('a/b', 0)"
        await idle.run(locked)
        running = asyncio.create_task(busy.run("while True: pass"))
        await asyncio.sleep(0.1)
        assert len(below_us()) - len(before) >= 4
        sandbox.close()
        sandbox.close()
        with pytest.raises(SandboxError, match="closed"):
            await running
        with pytest.raises(SandboxError, match="closed"):
            await sandbox.session()

    before = below_us()
    run(body())
    assert below_us() == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "code",
    [
        "x = []\nwhile True:\n    if os.fork() == 0: x = bytearray(10**8); time.sleep(60)",
        "import tempfile\nn = 0\nwhile True:\n    open(f'f{n}', 'wb').write(bytes(10**7)); n += 1",
    ],
    ids=["children", "files"],
)
def test_memory_of_a_session_in_total(sandbox: ProcessSandbox, code: str) -> None:
    execution, _ = attack(sandbox, "import os, time\n" + code)
    full = "No space left" in execution.output
    assert full or execution.cut in ("memory", "deadline"), execution


OWNER = """
import asyncio, os, sys, tempfile
tempfile.tempdir = sys.argv[1]
from scdpo.sandbox import ProcessSandbox, SandboxConfig
async def main():
    config = SandboxConfig(deadline=60, preload=(), level=sys.argv[2])
    sandbox = ProcessSandbox(config)
    session = await sandbox.session()
    copy = await session.clone()
    if os.fork() == 0:
        import time
        time.sleep(3)
        os._exit(0)
    print("ready", flush=True)
    await asyncio.gather(session.run("while True: pass"), copy.run("while True: pass"))
asyncio.run(main())
"""


@pytest.mark.parametrize("level", LEVELS)
def test_killed_owner_leaves_nothing(tmp_path: Path, level: Level) -> None:
    """Even while a process that the owner forked still holds the sandbox's socket."""
    command = [sys.executable, "-c", OWNER, str(tmp_path), level]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "ready\n"
        time.sleep(0.2)
        table = ProcessTable()
        there = table.descendants([owner.pid])
        assert len(there) >= 5
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        until = time.monotonic() + 2.5
        while time.monotonic() < until and sum(map(table.lives, there)) > 1:
            time.sleep(0.05)
        # The one that the owner forked lives on.
        assert sum(map(table.lives, there)) == 1
        assert list(tmp_path.iterdir()) == []


def test_sandbox_that_cannot_start() -> None:
    with pytest.raises(SandboxError, match="no sandbox of level namespace here: No module"):
        ProcessSandbox(SandboxConfig(preload=("no_such_module",)))


def test_a_lost_supervisor_is_an_error() -> None:
    async def body() -> None:
        sandbox = ProcessSandbox(SandboxConfig(preload=()))
        session: ProcessSession = await sandbox.session()
        sandbox._process.kill()
        with pytest.raises(SandboxError, match="lost"):
            await session.run("import time; time.sleep(60)")
        with pytest.raises(SandboxError):
            await sandbox.session()
        sandbox.close()

    run(body())


def test_a_sandbox_that_ends_while_a_block_waits_for_its_turn() -> None:
    # The block that waits must not go on to descriptors that are closed, or another's by then.
    async def one_at_a_time() -> list[object]:
        with ProcessSandbox(SandboxConfig(parallel=1)) as sandbox:
            first, second = await sandbox.session(), await sandbox.session()
            blocks = [first.run("import time; time.sleep(5)"), second.run("1")]
            tasks = [asyncio.create_task(block) for block in blocks]
            await asyncio.sleep(0.3)
            sandbox.close()
            return list(await asyncio.gather(*tasks, return_exceptions=True))

    ended = asyncio.run(one_at_a_time())
    assert [type(one) for one in ended] == [SandboxError, SandboxError]
