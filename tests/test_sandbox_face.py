"""What the sandbox offers a caller beyond sessions: lists of blocks, settings, its names."""

from __future__ import annotations

import asyncio
from typing import get_args

import pytest

import scdpo.sandbox
from scdpo.errors import InputError
from scdpo.sandbox import SESSION_ENDING_CUTS, Cut, ProcessSandbox, SandboxConfig
from sessions import run, sandbox

__all__ = ["sandbox"]


def test_run_gives_an_execution_for_every_block(sandbox: ProcessSandbox) -> None:
    found = sandbox.run(["x = 6", "x * 7", "1 / 0", "x"])
    assert [execution.output for execution in found[:2]] == ["", "42"]
    assert "ZeroDivisionError" in found[2].output
    assert found[3].output == "6"
    assert [execution.cut for execution in found] == [""] * 4
    assert sandbox.run([]) == []
    assert "NameError" in sandbox.run(["x"])[0].output  # the session was one of its own


def test_blocks_after_the_end_of_the_session_are_not_run(sandbox: ProcessSandbox) -> None:
    found = sandbox.run(["1 + 1", "import os\nos._exit(0)", "print('after')", "2"])
    assert [execution.cut for execution in found] == ["", "died", "not run", "not run"]
    assert [execution.output for execution in found] == ["2", "", "", ""]
    assert {"died"} <= SESSION_ENDING_CUTS < set(get_args(Cut))


def test_run_works_inside_a_loop_with_a_session_at_work(sandbox: ProcessSandbox) -> None:
    async def cell() -> list[str]:
        session = await sandbox.session()
        at_work = asyncio.create_task(session.run("import time\ntime.sleep(0.3)\n'slept'"))
        opening = asyncio.create_task(sandbox.session())
        await asyncio.sleep(0)  # both have been asked for, neither has been answered
        between = sandbox.run(["'between'"])
        opened = await opening
        outputs = [between[0].output, (await at_work).output, (await opened.run("'new'")).output]
        outputs.append((await session.run("'after'")).output)
        await session.close()
        await opened.close()
        return outputs

    assert run(cell()) == ["'between'", "'slept'", "'new'", "'after'"]
    assert sandbox.run(["1"])[0].output == "1"


def test_settings_are_a_config_or_keywords() -> None:
    with ProcessSandbox(deadline=3, output_chars=5) as sandbox:
        assert sandbox.config == SandboxConfig(deadline=3, output_chars=5)
        assert sandbox.run(["'x' * 100"])[0].cut == "output"
        with pytest.raises(InputError, match=r"not a single string"):
            sandbox.run("print(1)")
    for settings, complaint in [
        ({"dedline": 3}, r"unknown key 'dedline' \(did you mean deadline\?\)"),
        ({"deadline": -1}, r"deadline: input should be greater than 0 \(found -1\)"),
    ]:
        with pytest.raises(InputError, match=complaint):
            ProcessSandbox(**settings)


def test_the_face_offers_what_it_lists() -> None:
    assert set(scdpo.sandbox.__all__) <= set(dir(scdpo.sandbox))
    for name in scdpo.sandbox.__all__:
        assert getattr(scdpo.sandbox, name) is not None
    with pytest.raises(AttributeError, match="Zygote"):
        scdpo.sandbox.Zygote  # noqa: B018
