"""Clones of sessions: the same state, independent, and out of reach as far as is promised."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from pathlib import Path

import pytest

from scdpo.errors import SandboxError
from scdpo.sandbox import Level, ProcessSandbox, SandboxConfig
from sessions import (
    DEADLINE,
    GRACE,
    LEVELS,
    below_us,
    last,
    run,
    sandbox,
    wait_until_gone,
    wait_until_there,
)

__all__ = ["sandbox"]

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
        separate = len(folders) == (4 if sandbox.level == "process" else 1)
        return {"same": same, "separate": separate, "alive": alive}

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
        code = "import resource\nresource.setrlimit(resource.RLIMIT_NPROC, (0, 0))\n1"
        assert (await session.run(code)).output == "1"
        with pytest.raises(SandboxError, match="could not be cloned"):
            await session.clone()
        assert (await session.run("2")).output == "2"
        await session.close()

    run(body())
    assert last(sandbox, "1 + 1").output == "2"


async def close_beside_a_clone(sandbox: ProcessSandbox, code: str) -> str:
    """What a clone says after its original has run `code` and was closed."""
    session = await sandbox.session()
    await session.run("state = 'kept'")
    copy = await session.clone()
    await session.run(code)
    await session.close()
    output = (await copy.run("state")).output
    await copy.close()
    return output


@pytest.mark.parametrize(
    "code",
    [
        "import os, signal\nfor pid in range(2, 40):\n    if pid != os.getpid():\n"
        "        try: os.kill(pid, signal.SIGSTOP)\n        except OSError: pass",
        "import os\nfor pid in (-1, *range(16000, 17000)):\n"
        "    try: os.kill(pid, 9)\n    except OSError: pass",
        "import os\nif os.fork() == 0:\n    while True:\n"
        "        try: os.fork()\n        except OSError: pass",
    ],
    ids=["stops", "kills", "forks"],
)
def test_an_original_cannot_harm_its_clones(code: str) -> None:
    with ProcessSandbox(SandboxConfig(deadline=5, processes=32, preload=())) as sandbox:
        assert run(close_beside_a_clone(sandbox, code)) == "'kept'"
        assert last(sandbox, "1 + 1").output == "2"


def test_a_clone_outlives_an_original_that_is_closed_at_once(sandbox: ProcessSandbox) -> None:
    async def body() -> list[str]:
        outputs = []
        for _ in range(60):
            session = await sandbox.session()
            await session.run("x = 20")
            copy = await session.clone()
            await session.close()
            outputs.append((await copy.run("x + 1")).output)
            await copy.close()
        return outputs

    assert run(body()) == ["21"] * 60


@pytest.mark.parametrize("level", LEVELS)
def test_a_clone_that_is_given_up_leaves_the_files_of_its_original(level: Level) -> None:
    async def body() -> str:
        with ProcessSandbox(SandboxConfig(level=level, preload=())) as sandbox:
            session = await sandbox.session()
            await session.run("n = open('kept', 'w').write('x' * 1000)")
            for turns in range(6):
                clone = asyncio.create_task(session.clone())
                for _ in range(turns):
                    await asyncio.sleep(0)
                clone.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await (await clone).close()
            look = "import os\nlen(open('kept').read()), os.listdir('.')"
            return (await session.run(look)).output

    assert run(body()) == "(1000, ['kept'])"


def test_a_chain_of_clones_that_ends_leaves_the_last_as_it_was() -> None:
    async def body() -> tuple[int, str]:
        with ProcessSandbox(SandboxConfig(preload=())) as sandbox:
            chain = [await sandbox.session()]
            await chain[0].run("import os\nn = open('kept', 'w').write('x' * 1000)")
            with contextlib.suppress(SandboxError):
                while len(chain) < 60:
                    chain.append(await chain[-1].clone())
            last = chain[-1]
            look = (
                "pid = os.fork()\nif pid == 0: os._exit(0)\nlen(open('kept').read()), pid < 16384"
            )
            return len(chain), (await last.run(look)).output

    length, output = run(body())
    assert 20 < length < 60
    assert output == "(1000, True)"


def test_clones_that_come_while_others_go_cannot_be_signalled_by_the_original() -> None:
    seen = """
import os
low = []
for pid in range(3, 3000):
    try: os.kill(pid, 0)
    except OSError: continue
    low.append(pid)
low
"""

    async def body() -> list[str]:
        outputs = []
        with ProcessSandbox(SandboxConfig(preload=())) as sandbox:
            session = await sandbox.session()
            for _ in range(20):
                older = await session.clone()
                newer, _ = await asyncio.gather(session.clone(), older.close())
                await newer.run("1")
                outputs.append((await session.run(seen)).output)
                await newer.close()
        return outputs

    assert run(body()) == ["[]"] * 20


def test_who_kills_the_steward_of_its_clone_holds_no_one_up() -> None:
    """The steward of a clone has a low id in the eyes of the original."""
    kill = """
import os
for pid in range(3, 64):
    if pid != os.getpid():
        try: os.kill(pid, 9)
        except OSError: pass
"""

    async def body() -> tuple[float, str]:
        with ProcessSandbox(SandboxConfig(deadline=DEADLINE, preload=())) as sandbox:
            session, beside = await sandbox.session(), await sandbox.session()
            copy = await session.clone()
            await copy.run("x = 1")
            await copy.clone()
            await session.run(kill)
            started = time.monotonic()
            await copy.close()
            output = (await beside.run("1 + 1")).output
            return time.monotonic() - started, output

    seconds, output = run(body())
    assert output == "2"
    assert seconds < 1 + GRACE


def test_a_clone_and_its_clone_that_end_at_once_are_both_answered() -> None:
    """The original stops every steward that it can see, so that the first cannot end alone."""
    stop = """
import os, time
def stop():
    for pid in range(3, 200):
        try:
            if pid != os.getpid() and os.getpgid(pid) == 0: os.kill(pid, 19)
        except OSError: pass
if os.fork() == 0:
    while True: stop()
"""

    async def body() -> str:
        with ProcessSandbox(SandboxConfig(deadline=DEADLINE, preload=())) as sandbox:
            for _ in range(3):
                session, beside = await sandbox.session(), await sandbox.session()
                copy = await session.clone()
                again = await copy.clone()
                await session.run(stop)
                async with asyncio.timeout(20):
                    await asyncio.gather(copy.close(), again.close())
                await session.close()
            return (await beside.run("1 + 1")).output

    assert run(body()) == "2"


@pytest.mark.skipif(os.geteuid() == 0, reason="sessions of root have users of their own")
def test_files_beside_a_sessions_folder_count_as_too_many() -> None:
    """A family's folder is open for a moment when a clone's is removed."""
    spin = """
import os
if os.fork() == 0:
    while True:
        try:
            os.mkdir('../extra')
            break
        except OSError: pass
    os._exit(0)
"""

    async def body() -> None:
        with ProcessSandbox(SandboxConfig(level="process", preload=())) as sandbox:
            session = await sandbox.session()
            await session.run(spin)
            for _ in range(20):
                # The session may be ended while it is cloned.
                with contextlib.suppress(SandboxError):
                    await (await session.clone()).close()
                await asyncio.sleep(0.2)
                look = "os.path.exists('../extra'), oct(os.stat('..').st_mode)[-3:]"
                execution = await session.run(look)
                if execution.cut:
                    assert execution.cut == "memory"
                    return
                assert execution.output == "(False, '500')"

    run(body())


@pytest.mark.parametrize("level", LEVELS)
def test_closed_session_leaves_nothing_while_its_clones_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: Level
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mark = f"scdpo-test-{os.getpid()}-source-{level}"
    daemon = f"""
import os, subprocess, sys
if os.fork() == 0:
    os.setsid()
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)", "{mark}"])
    os._exit(0)
"""

    async def body() -> None:
        with ProcessSandbox(SandboxConfig(level=level, preload=())) as sandbox:
            start = len(below_us())
            session = await sandbox.session()
            await session.run("open('x', 'w').write('y')\n" + daemon)
            copies = [await session.clone() for _ in range(2)]
            assert wait_until_there(mark)
            await session.close()
            await session.close()
            assert wait_until_gone(mark, 0) == []
            for copy in copies:
                assert (await copy.run("open('x').read()")).output == "'y'"
                await copy.close()
            # What was started in advance for clones may have been used up.
            assert len(below_us()) <= start
            assert folders() == []

    def folders() -> list[Path]:
        return list(tmp_path.glob("*/*"))

    run(body())
    assert list(tmp_path.iterdir()) == []


def test_open_files_of_a_clone_are_its_own(sandbox: ProcessSandbox) -> None:
    async def body() -> tuple[str, str]:
        session = await sandbox.session()
        await session.run("f = open('log', 'w+'); n = f.write('one '); f.flush()")
        copy = await session.clone()
        for one, word in ((session, "source"), (copy, "copy")):
            await one.run(f"n = f.write({word!r}); f.flush()")
        looks = [(await one.run("open('log').read()")).output for one in (session, copy)]
        await session.close()
        await copy.close()
        return looks[0], looks[1]

    assert run(body()) == ("'one source'", "'one copy'")
