"""The sandbox: what a block shows, what state survives, and that no attack outlives its block."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from scdpo.errors import SandboxError
from scdpo.sandbox import (
    Execution,
    ProcessSandbox,
    ProcessSession,
    SandboxConfig,
    normalise_output,
    same_output,
)

T = TypeVar("T")
DEADLINE = 1.0
GRACE = 1.5
"""Seconds past the deadline that a busy machine may take to have a session killed."""
CASES = json.loads((Path(__file__).parent / "cases" / "outputs.json").read_text())


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ProcessSandbox]:
    with ProcessSandbox(SandboxConfig(deadline=DEADLINE, memory_mb=256)) as sandbox:
        yield sandbox


async def play(sandbox: ProcessSandbox, *blocks: str) -> list[Execution]:
    """The executions of blocks in one session."""
    session = await sandbox.session()
    try:
        return [await session.run(code) for code in blocks]
    finally:
        await session.close()


def last(sandbox: ProcessSandbox, *blocks: str) -> Execution:
    return run(play(sandbox, *blocks))[-1]


def attack(sandbox: ProcessSandbox, code: str) -> tuple[Execution, float]:
    """Run hostile code, then see that a new session works; also the seconds the attack took."""
    started = time.monotonic()
    execution = last(sandbox, code)
    took = time.monotonic() - started
    assert last(sandbox, "1 + 1").output == "2"
    return execution, took


def processes_with(mark: str) -> list[int]:
    """Processes that have `mark` in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in line:
                found.append(int(entry.name))
    return found


def wait_until_gone(mark: str, seconds: float = 5) -> list[int]:
    until = time.monotonic() + seconds
    while (left := processes_with(mark)) and time.monotonic() < until:
        time.sleep(0.05)
    return left


def wait_until_there(mark: str, seconds: float = 5) -> list[int]:
    until = time.monotonic() + seconds
    while not (there := processes_with(mark)) and time.monotonic() < until:
        time.sleep(0.02)
    return there


# What a block shows


@pytest.mark.parametrize("case", CASES["cells"], ids=lambda c: str(c["name"]))
def test_cell_output(sandbox: ProcessSandbox, case: dict[str, Any]) -> None:
    execution = last(sandbox, *case["blocks"])
    assert execution.output == case["output"]
    assert execution.cut == ""


@pytest.mark.parametrize("case", CASES["compare"], ids=lambda c: str(c["name"]))
def test_same_output(case: dict[str, Any]) -> None:
    assert same_output(case["a"], case["b"]) is case["same"]
    assert same_output(case["b"], case["a"]) is case["same"]


def test_normalise_output_is_idempotent() -> None:
    for case in CASES["compare"]:
        once = normalise_output(case["a"])
        assert normalise_output(once) == once


def test_state_survives_blocks_and_errors(sandbox: ProcessSandbox) -> None:
    outputs = [e.output for e in run(play(sandbox, "x = 3", "x / 0", "x += 1\nx"))]
    assert outputs[0] == ""
    assert outputs[1].endswith("ZeroDivisionError: division by zero")
    assert outputs[2] == "4"


def test_streams_results_and_subprocesses_keep_their_order(sandbox: ProcessSandbox) -> None:
    code = """
import os, subprocess, sys
print("one")
print("two", file=sys.stderr)
os.write(1, b"three\\n")
subprocess.run(["echo", "four"])
print("five", end="")
print("six", end="", file=sys.stderr)
"seven"
"""
    want = "one\ntwo\nthree\nfour\nfivesix\n'seven'"
    assert last(sandbox, code).output == want


def test_output_before_a_traceback_is_kept(sandbox: ProcessSandbox) -> None:
    output = last(sandbox, "print('before')\n{}['key']").output
    assert output.startswith("before\n-----")
    assert output.endswith("KeyError: 'key'")


def test_traceback_names_no_folder_of_the_machine(sandbox: ProcessSandbox) -> None:
    output = last(sandbox, "import sympy\nsympy.Rational('a', 3)").output
    assert "File sympy/core/numbers.py:" in output
    assert sys.prefix not in output


def test_traceback_of_a_deep_recursion_is_short(sandbox: ProcessSandbox) -> None:
    output = last(sandbox, "def f(n):\n    return f(n + 1)\n\nf(0)").output
    assert "RecursionError: maximum recursion depth exceeded" in output
    assert "[... skipping similar frames: f at line 2 (" in output
    assert len(output.splitlines()) < 30
    mutual = "def f(n): return g(n)\ndef g(n): return f(n)\nf(0)"
    assert "skipping" in (output := last(sandbox, mutual).output)
    assert len(output.splitlines()) < 200


def test_output_that_is_not_utf8(sandbox: ProcessSandbox) -> None:
    assert last(sandbox, "import os\nn = os.write(1, b'\\xff\\xfea\\n')").output == "��a"
    assert last(sandbox, "print('\\ud800')").output == "\\ud800"


def test_code_with_a_lone_surrogate_or_nul_is_an_error_of_the_block(
    sandbox: ProcessSandbox,
) -> None:
    for code in ("x = '\ud800'", "x = 1\0"):
        execution = last(sandbox, code)
        assert "Error" in execution.output
        assert execution.cut == ""


def test_sets_and_random_numbers_are_the_same_in_every_session(sandbox: ProcessSandbox) -> None:
    code = """
import random, numpy
print(*set("abcdefgh"), hash("word"))
random.random(), numpy.random.rand()
"""
    first, second = last(sandbox, code).output, last(sandbox, code).output
    with ProcessSandbox() as other:
        assert first == second == last(other, code).output


def test_plotting_is_silent(sandbox: ProcessSandbox) -> None:
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    with ProcessSandbox(SandboxConfig(deadline=60, preload=("numpy",))) as patient:
        execution = last(patient, code)
    assert (execution.output, execution.cut) == ("", "")


def test_system_exit_ends_the_block_only(sandbox: ProcessSandbox) -> None:
    executions = run(play(sandbox, "import sys\nx = 5", "sys.exit(3)", "exit()", "x"))
    assert executions[1].output.endswith("SystemExit: 3")
    assert executions[3].output == "5"


def test_replaced_and_closed_streams_heal(sandbox: ProcessSandbox) -> None:
    executions = run(
        play(sandbox, "import os, sys\nos.close(1); os.close(2)", "print(1)",
             "sys.stdout.close()", "print(2)")
    )  # fmt: skip
    assert [e.output for e in executions[1::2]] == ["1", "2"]


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
    before = len(processes_with("scdpo-sandbox-"))
    detach = "import os, time\nfor _ in range(6):\n    if os.fork() == 0: os.setsid()\n"
    execution, took = attack(sandbox, detach + "while True: time.sleep(1)")
    assert execution.cut == "deadline"
    assert took < DEADLINE + 2 * GRACE
    assert len(processes_with("scdpo-sandbox-")) == before


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
        "import subprocess\np = subprocess.run(['head', '-c', '1000000000', '/dev/zero'])",
        "'x' * 10**8",
    ],
    ids=["stdout", "fd", "subprocess", "repr"],
)
def test_output_flood(code: str) -> None:
    with ProcessSandbox(SandboxConfig(deadline=60, output_chars=1000, preload=())) as sandbox:
        before = peak_memory()
        session_outputs = run(play(sandbox, code, "'alive'"))
        assert session_outputs[0].cut == "output"
        assert len(session_outputs[0].output) == 1000
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
    if "pid" not in sandbox.isolation:
        pytest.skip("needs a PID namespace")
    execution, _ = attack(sandbox, "import os\nos.kill(os.getppid(), 9)\nos.getppid()")
    assert execution.output == "1"


# What a session sees


def test_nothing_is_inherited(sandbox: ProcessSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCDPO_SECRET", "token")
    with ProcessSandbox(SandboxConfig(preload=())) as fresh:
        assert last(fresh, "import os\ndict(os.environ)").output == "{}"
        own = last(fresh, "open('/proc/self/environ').read()").output
        assert "SECRET" not in own and "HOME" not in own
        fds = "[os.readlink(f'/proc/self/fd/{fd}').split(':')[0] for fd in range(3)]"
        assert last(fresh, f"import os\n{fds}").output == "['/dev/null', 'pipe', 'pipe']"


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
    if "net" in sandbox.isolation:
        interfaces = "import os\nsorted(os.listdir('/sys/class/net')), open('/proc/net/dev').read()"
        assert "eth" not in last(sandbox, interfaces).output.partition(", '")[2]


def test_without_namespaces() -> None:
    config = SandboxConfig(deadline=DEADLINE, namespaces=False)
    with ProcessSandbox(config) as sandbox:
        assert sandbox.isolation == "seccomp"
        assert last(sandbox, NETWORK).output.split() == ["PermissionError"] * 3
        mark = f"scdpo-test-{os.getpid()}-plain"
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
        assert clone_outputs(sandbox) == CLONE_WANT
    assert wait_until_gone(mark, 0) == []


def test_allowed_network_leaves_sockets_alone() -> None:
    with ProcessSandbox(SandboxConfig(network="allow", preload=())) as sandbox:
        assert "net" not in sandbox.isolation
        code = "import socket\ns = socket.socket()\ns.bind(('127.0.0.1', 0))\nprint('bound')"
        assert last(sandbox, code).output == "bound"


# Clones

CLONE_SETUP = """
import random, numpy, os, sympy
random.random(); numpy.random.rand()
names = [1]; x = sympy.Symbol("x")
n = open("kept", "w").write("text"); os.mkdir("below"); os.chdir("below")
"""
CLONE_LOOK = """
names.append(2); n = open("../kept", "a").write("+")
random.random(), numpy.random.rand(), names, open("../kept").read(), x**2
"""
CLONE_WANT = {"same": True, "separate": True, "alive": "[1, 2]"}


def clone_outputs(sandbox: ProcessSandbox) -> dict[str, object]:
    async def body() -> dict[str, object]:
        session = await sandbox.session()
        await session.run(CLONE_SETUP)
        copies = [await session.clone() for _ in range(2)]
        grandchild = await copies[0].clone()
        looks = [(await s.run(CLONE_LOOK)).output for s in (session, *copies, grandchild)]
        folders = {(await s.run("os.getcwd()")).output for s in (session, *copies, grandchild)}
        await session.close()
        await copies[0].close()
        alive = (await grandchild.run("names")).output
        await grandchild.close()
        await copies[1].close()
        same = len(set(looks)) == 1 and "'text+'" in looks[0] and "[1, 2]" in looks[0]
        return {"same": same, "separate": len(folders) == 4, "alive": alive}

    return run(body())


def test_clone_has_the_same_state_and_is_independent(sandbox: ProcessSandbox) -> None:
    assert clone_outputs(sandbox) == CLONE_WANT


def test_clone_of_a_session_with_threads(sandbox: ProcessSandbox) -> None:
    async def body() -> str:
        session = await sandbox.session()
        await session.run("import threading, time")
        await session.run("threading.Thread(target=time.sleep, args=(9,)).start()")
        copy = await session.clone()
        await session.close()
        output = (await copy.run("threading.active_count()")).output
        await copy.close()
        return output

    assert run(body()) == "1"


def test_clone_that_fails_leaves_the_sandbox_usable(sandbox: ProcessSandbox) -> None:
    async def body() -> None:
        session = await sandbox.session()
        code = "import os\ndef no(): raise OSError('no')\nos.fork = no\n1"
        assert (await session.run(code)).output == "1"
        with pytest.raises(SandboxError, match="could not be cloned"):
            await session.clone()
        assert (await session.run("2")).output == "2"
        await session.close()

    run(body())
    assert last(sandbox, "1 + 1").output == "2"


# Many sessions, and the end


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
        with pytest.raises(SandboxError, match="still at work"):
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


def test_close_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def body() -> None:
        sandbox = ProcessSandbox(SandboxConfig(deadline=DEADLINE, preload=()))
        idle, busy = await sandbox.session(), await sandbox.session()
        await idle.clone()
        locked = "import os\nos.makedirs('a/b')\nopen('a/b/c', 'w').close()\nos.chmod('a/b', 0)"
        await idle.run(locked)
        running = asyncio.create_task(busy.run("while True: pass"))
        await asyncio.sleep(0.1)
        assert processes_with(str(tmp_path))
        sandbox.close()
        sandbox.close()
        with pytest.raises(SandboxError):
            await running
        with pytest.raises(SandboxError, match="closed"):
            await sandbox.session()

    run(body())
    assert processes_with(str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_closed_session_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def body() -> None:
        with ProcessSandbox(SandboxConfig(preload=())) as sandbox:
            session = await sandbox.session()
            await session.run("open('x', 'w').write('y')")
            copy = await session.clone()
            assert len(found("*/*/x")) == 2
            await session.close()
            await session.close()
            await copy.close()
            assert found("*/*") == []

    def found(pattern: str) -> list[Path]:
        return list(tmp_path.glob(pattern))

    run(body())


OWNER = """
import asyncio, os, sys, tempfile
tempfile.tempdir = sys.argv[1]
from scdpo.sandbox import ProcessSandbox, SandboxConfig
async def main():
    config = SandboxConfig(deadline=60, preload=(), namespaces=sys.argv[2] == "yes")
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


@pytest.mark.parametrize("namespaces", ["yes", "no"])
def test_killed_owner_leaves_nothing(tmp_path: Path, namespaces: str) -> None:
    """Even while a process that the owner forked still holds the sandbox's socket."""
    command = [sys.executable, "-c", OWNER, str(tmp_path), namespaces]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "ready\n"
        time.sleep(0.2)
        folder = next(tmp_path.iterdir()).name
        assert len(processes_with(folder)) >= 3
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        assert wait_until_gone(folder, 2.5) == []
        assert list(tmp_path.iterdir()) == []


def test_sandbox_that_cannot_start() -> None:
    with pytest.raises(SandboxError, match="did not start: No module named 'no_such_module'"):
        ProcessSandbox(SandboxConfig(preload=("no_such_module",)))


def test_lost_zygote_is_an_error() -> None:
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


STRANGER = """
import asyncio, os, sys
sys.path[:0] = sys.argv[1:]
from scdpo.sandbox import ProcessSandbox, SandboxConfig
async def main(namespaces):
    config = SandboxConfig(preload=(), deadline=1, max_sessions=8, namespaces=namespaces)
    with ProcessSandbox(config) as sandbox:
        session = await sandbox.session()
        await session.run("import math; x = 6")
        copy = await session.clone()
        await session.close()
        fork = "try: os.fork()\\n    except OSError: time.sleep(0.1)"
        bomb = f"import os, time\\nwhile True:\\n    {fork}"
        print((await copy.run("x * 7")).output, (await (await sandbox.session()).run("os")).cut)
        if namespaces:
            # Outside a user namespace the number of processes is not limited.
            hostile = bomb if "user" in sandbox.isolation else "while True: pass"
            print((await (await sandbox.session()).run(hostile)).cut)
            print((await copy.run("x")).output)
print(os.getuid())
asyncio.run(main(True))
asyncio.run(main(False))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become someone else")
def test_as_an_unprivileged_user() -> None:
    """With the system's interpreter, which such a user may enter, and our packages."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    interpreter = Path("/usr/bin") / version
    if not interpreter.exists():
        pytest.skip(f"no {interpreter}")
    site = next(p for p in sys.path if p.endswith("site-packages"))
    source = str(Path(__file__).parents[1] / "src")
    try:
        done = subprocess.run(
            [interpreter, "-c", STRANGER, source, site],
            user=65534,
            group=65534,
            extra_groups=[],
            env={},
            cwd="/",
            capture_output=True,
            text=True,
        )
    except PermissionError:
        pytest.skip("may not become another user")
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip("the packages are in a folder that others may not enter")
    assert done.stdout.split() == ["65534", "42", "deadline", "6", "42"], done.stderr
