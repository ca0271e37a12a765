"""What holds whatever becomes of the owner: a blocked loop, a stop, a kill, little to work with."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scdpo.errors import InputError, SandboxError
from scdpo.sandbox import Execution, Level, ProcessSandbox, SandboxConfig
from scdpo.sandbox.host.deadlines import Deadlines
from scdpo.sandbox.processes import wire
from scdpo.sandbox.processes.deadlines import OverdueBlocks
from scdpo.sandbox.processes.process_table import ProcessTable
from sessions import DEADLINE, GRACE, LEVELS, below_us, last, play, run, sandbox

__all__ = ["sandbox"]

FOREVER = "while True: pass"


def block_until_fewer(than: int, seconds: float) -> float:
    """Hold up this thread until fewer processes are below us; the seconds that took."""
    started = time.monotonic()
    while len(below_us()) >= than and time.monotonic() < started + seconds:
        time.sleep(0.02)
    return time.monotonic() - started


def test_an_owner_who_is_held_up_delays_no_deadline(sandbox: ProcessSandbox) -> None:
    async def body() -> tuple[Execution, Execution, float]:
        session = await sandbox.session()
        copy = await session.clone()
        blocks = [asyncio.create_task(one.run(FOREVER)) for one in (session, copy)]
        await asyncio.sleep(0.05)
        took = block_until_fewer(len(below_us()) - 1, 4 * DEADLINE)
        first, second = await asyncio.gather(*blocks)
        return first, second, took

    first, second, took = run(body())
    assert (first.cut, second.cut) == ("deadline", "deadline")
    assert DEADLINE - 0.1 < took < DEADLINE + GRACE
    assert last(sandbox, "1 + 1").output == "2"


def test_what_ended_in_time_lives_on_though_its_owner_looks_late(sandbox: ProcessSandbox) -> None:
    async def body() -> list[str]:
        session = await sandbox.session()
        copy = await session.clone()
        blocks = [asyncio.create_task(one.run("print(1)\nx = 2")) for one in (session, copy)]
        await asyncio.sleep(0)
        time.sleep(DEADLINE + 0.5)  # noqa: ASYNC251 - the point of the test
        outputs = [execution.output for execution in await asyncio.gather(*blocks)]
        for one in (session, copy):
            # For a while, as the supervisor must not come late either.
            for _ in range(3):
                outputs.append((await one.run("import time; time.sleep(0.1); x")).output)
            await one.close()
        return outputs

    assert run(body()) == ["1"] * 2 + ["2"] * 6


def test_a_forged_answer_does_not_put_off_the_deadline(sandbox: ProcessSandbox) -> None:
    async def body() -> tuple[Execution, float]:
        session = await sandbox.session()
        code = "import os\nfor fd in (254,): n = os.write(fd, b'd' + bytes(16))\n" + FOREVER
        block = asyncio.create_task(session.run(code))
        await asyncio.sleep(0)
        took = block_until_fewer(len(below_us()), 4 * DEADLINE)
        return await block, took

    execution, took = run(body())
    assert execution.cut in ("deadline", "died")
    assert took < DEADLINE + GRACE


def test_a_block_that_waits_for_its_turn_has_no_deadline_yet() -> None:
    async def body() -> list[str]:
        with ProcessSandbox(SandboxConfig(parallel=1, deadline=1, preload=())) as sandbox:
            sessions = [await sandbox.session() for _ in range(3)]
            code = "import time; time.sleep(0.6); print('done')"
            found = await asyncio.gather(*(session.run(code) for session in sessions))
            return [execution.output for execution in found]

    assert run(body()) == ["done"] * 3


def test_too_much_memory_while_the_owner_is_held_up(sandbox: ProcessSandbox) -> None:
    code = """
import os, time
for _ in range(4):
    if os.fork() == 0:
        block = bytearray(200_000_000)
        block[::4096] = bytes(len(block[::4096]))
        time.sleep(60)
time.sleep(60)
"""

    async def body() -> Execution:
        session = await sandbox.session()
        block = asyncio.create_task(session.run(code))
        await asyncio.sleep(0)
        time.sleep(DEADLINE + 0.5)  # noqa: ASYNC251 - the point of the test
        return await block

    assert run(body()).cut in ("memory", "deadline")


STOPPED = """
import sys
from scdpo.sandbox import ProcessSandbox, SandboxConfig
with ProcessSandbox(SandboxConfig(level=sys.argv[1], deadline=1, preload=())) as sandbox:
    print("ready", flush=True)
    print(sandbox.run(["import time\\nfor _ in range(25): time.sleep(0.1)"])[0].cut)
"""


@pytest.mark.parametrize("level", LEVELS)
def test_a_stopped_owner_delays_no_deadline(level: Level) -> None:
    command = [sys.executable, "-c", STOPPED, level]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "ready\n"
        time.sleep(0.4)
        owner.send_signal(signal.SIGSTOP)
        time.sleep(3)
        owner.send_signal(signal.SIGCONT)
        assert owner.stdout.readline() == "deadline\n"


def test_a_closed_output_pipe_does_not_keep_the_owner_busy(sandbox: ProcessSandbox) -> None:
    code = """
import os, stat, time
for fd in range(256):
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode): os.close(fd)
    except OSError: pass
time.sleep(0.7)
"""
    started = time.process_time()
    assert last(sandbox, code).cut == ""
    assert time.process_time() - started < 0.2


START = """
import signal, sys, tempfile
for number in (signal.SIGHUP, signal.SIGQUIT):  # as under nohup they would be ignored
    signal.signal(number, signal.SIG_DFL)
tempfile.tempdir = sys.argv[1]
from scdpo.sandbox import ProcessSandbox
print("starting", flush=True)
with ProcessSandbox(level="process", preload=()):
    print("ready", flush=True)
    input()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGQUIT])
def test_an_owner_killed_during_the_start_leaves_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    for delay in (0.0, 0.15, 0.4):
        command = [sys.executable, "-c", START, str(folder)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
        ) as owner:
            assert owner.stdout is not None
            assert owner.stdout.readline() == "starting\n"
            time.sleep(delay)
            owner.send_signal(number)
            owner.wait()
            until = time.monotonic() + 5
            # Not before the interpreter that would make the folder has ended or begun.
            time.sleep(0.3)
            while list(folder.iterdir()) and time.monotonic() < until:
                time.sleep(0.05)
        assert list(folder.iterdir()) == [], delay


LIMITED = """
import resource, sys
from scdpo.sandbox import ProcessSandbox
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
soft, hard = int(sys.argv[2]), int(sys.argv[3]) or hard
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
try:
    with ProcessSandbox(level=sys.argv[1], preload=()) as sandbox:
        print(sandbox.run(["6 * 7"])[0].output)
except Exception as error:
    print(error)
"""


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("soft", "hard", "said"),
    [
        (64, 64, "the limit on open files (ulimit -n) is 64, and sessions need 256"),
        (255, 255, "the limit on open files (ulimit -n) is 255, and sessions need 256"),
        (64, 0, "42"),
        (256, 256, "42"),
    ],
)
def test_few_descriptors(level: Level, soft: int, hard: int, said: str) -> None:
    command = [sys.executable, "-c", LIMITED, level, str(soft), str(hard)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines() == [done.stdout.strip()], done
    assert done.stdout.strip().endswith(said)


def test_no_descriptors_for_another_session() -> None:
    async def body() -> str:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with ProcessSandbox(preload=()) as sandbox:
            sessions = [await sandbox.session()]
            soft = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only their number
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft + 9, hard))
            try:
                while len(sessions) < 20:
                    sessions.append(await sandbox.session())
            except SandboxError as error:
                return str(error)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
        return ""

    assert run(body()).endswith("Too many open files (ulimit -n)")


@pytest.mark.parametrize("deadline", [float("inf"), float("nan"), 0, -1])
def test_a_deadline_is_a_finite_number(deadline: float) -> None:
    with pytest.raises(InputError, match="deadline") as caught:
        ProcessSandbox(deadline=deadline)
    assert "\n" not in str(caught.value)


PRIVILEGED = """
import contextlib, os, resource, sys
# As far as this user may have them.
for which in (13, resource.RLIMIT_RTPRIO):
    with contextlib.suppress(ValueError): resource.setrlimit(which, (7, 7))
with contextlib.suppress(OSError): os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
from scdpo.sandbox import ProcessSandbox
look = '''
import os, resource
def gained(deed, *arguments):
    try: deed(*arguments)
    except OSError: return False
    return True
print(resource.getrlimit(resource.RLIMIT_RTPRIO), resource.getrlimit(13), os.sched_getscheduler(0))
gained(os.nice, -3), gained(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1))
'''
with ProcessSandbox(level=sys.argv[1], preload=()) as sandbox:
    print(sandbox.run([look])[0].output)
"""


@pytest.mark.parametrize("level", LEVELS)
def test_rights_to_priority_are_not_inherited(level: Level) -> None:
    command = [sys.executable, "-c", PRIVILEGED, level]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "(0, 0) (0, 0) 0\n(False, False)\n", done.stderr


BELOW_TMP = """
import asyncio
from scdpo.sandbox import ProcessSandbox
async def main():
    with ProcessSandbox(preload=()) as sandbox:
        session = await sandbox.session()
        print((await session.run("import os, subprocess, sys\\nos.getcwd()")).output)
        await session.run("n = open('/tmp/one', 'w').write('1')\\nos.makedirs('/tmp/two/three')")
        copy = await session.clone()
        look = "open('/tmp/one').read(), os.listdir('/tmp/two'), os.path.exists(sys.prefix)"
        print((await copy.run(look)).output)
        await copy.run("n = open('/tmp/one', 'w').write('2')")
        print((await session.run("open('/tmp/one').read()")).output)
        again = await copy.clone()
        print((await again.run("import json, wave; open('/tmp/one').read()")).output)
asyncio.run(main())
"""


def test_an_interpreter_below_tmp(tmp_path: Path) -> None:
    if not str(tmp_path).startswith("/tmp/"):
        pytest.skip("the tests' own folder is not below /tmp")
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    site = next(p for p in sys.path if p.endswith("site-packages"))
    source = str(Path(__file__).parents[1] / "src")
    done = subprocess.run(
        [venv / "bin" / "python", "-c", BELOW_TMP],
        env={"PYTHONPATH": f"{source}:{site}", "PATH": os.defpath},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == ["'/tmp'", "('1', ['three'], True)", "'1'", "'2'"], done


@pytest.mark.parametrize("level", LEVELS)
def test_clones_do_not_fail_at_random(level: Level) -> None:
    async def some(sandbox: ProcessSandbox) -> int:
        session = await sandbox.session()
        await session.run("x = 5")
        for _ in range(15):
            await (await session.clone()).close()
        await session.close()
        return 15

    async def body() -> int:
        with ProcessSandbox(SandboxConfig(level=level, deadline=20, preload=())) as sandbox:
            return sum(await asyncio.gather(*(some(sandbox) for _ in range(6))))

    assert run(body()) == 90


def test_ends_at_the_same_time(sandbox: ProcessSandbox) -> None:
    """Many sessions whose blocks are overdue at once, while their owner is held up."""

    async def body() -> tuple[list[Execution], int]:
        sandbox_below = len(below_us())
        sessions = [await sandbox.session() for _ in range(6)]
        code = "import os, time\nfor _ in range(3): os.fork()\ntime.sleep(60)"
        blocks = [asyncio.create_task(session.run(code)) for session in sessions]
        await asyncio.sleep(0.2)
        time.sleep(DEADLINE + 1)  # noqa: ASYNC251 - the point of the test
        alive = sum(map(ProcessTable().lives, below_us()))
        return await asyncio.gather(*blocks), alive - sandbox_below

    executions, left = run(body())
    # As many blocks run at a time as there are cores; the others had not begun.
    assert {execution.cut for execution in executions} == {"deadline"}
    assert left <= 6 * 2
    assert run(play(sandbox, "1 + 1"))[0].output == "2"


def test_overdue_blocks_are_those_with_a_note_and_no_answer() -> None:
    deadlines = Deadlines()
    overdue = OverdueBlocks(deadlines.fd)
    pairs = [socket.socketpair() for _ in range(5)]
    token = bytes(range(16))
    slots = [deadlines.take() for _ in range(300)]
    assert len(set(slots)) == 300
    for number, (ours, _) in enumerate(pairs):
        overdue.add(number, slots[-1 - number], os.dup(ours.fileno()))
        deadlines.note(slots[-1 - number], time.monotonic() - 1, token)
    assert list(overdue) == [0, 1, 2, 3, 4]
    pairs[0][1].sendall(wire.DONE + token)
    pairs[1][1].sendall(wire.MEMORY + token)
    pairs[2][1].sendall(wire.DONE + bytes(16))
    pairs[3][1].close()
    deadlines.erase(slots[-5])
    assert list(overdue) == [2, 3]
    deadlines.note(slots[-3], time.monotonic() + 5, token)
    overdue.remove(3)
    overdue.remove(17)
    assert list(overdue) == []
    for number in range(5):
        overdue.remove(number)
    for one in (end for pair in pairs for end in pair):
        one.close()
    deadlines.give_back(slots.pop())
    deadlines.close()
