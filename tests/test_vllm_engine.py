"""The engine that starts its own servers, with a small one of ours in place of `vllm serve`."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import lines_server
from lines_server import EOS
from scdpo.engines import Completion, Request, VllmEngine, VllmEngineConfig
from scdpo.engines.vllm.processes import gpus_of_servers
from scdpo.errors import EngineError
from served_policies import lines_policy
from small_runs import fail, succeed

COMMAND = (sys.executable, lines_server.__file__, "serve")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lines_policy(tmp_path_factory.mktemp("policies") / "lines")


def config(**settings: Any) -> VllmEngineConfig:
    quick = {"pause": 0.01, "probe": False, "deadline": 30, "start_seconds": 60}
    return VllmEngineConfig(command=COMMAND, **(quick | settings))


def asked(engine: VllmEngine, number: int, seed: int = 0) -> Request:
    prompt = engine.encode(f"Q: How much is {number} + 2?\nA: ", start=True)
    return Request(prompt, ("\n",), (EOS,), 1.0, 60, seed)


def ask(engine: VllmEngine, n: int) -> list[Completion]:
    return asyncio.run(engine.generate([asked(engine, i, i) for i in range(n)]))


def processes(what: str) -> list[int]:
    """The processes whose command line has this in it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if what.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_a_server_that_crashes_is_started_again_and_nothing_is_lost(
    folder: Path, tmp_path: Path
) -> None:
    crashing = config(arguments=("--crash-after", "12"), restarts=2, log_folder=str(tmp_path))
    with VllmEngine(str(folder), crashing) as engine:
        assert len(processes(str(folder))) == 1
        first = ask(engine, 8)
        # One token at the start; it crashes in the middle of these.
        second = ask(engine, 8)
        assert second == first
        assert engine.servers[0].faults.keys() <= {"cut", "unreachable"}
        assert engine.servers[0].faults
    assert not processes(str(folder)), "closed engines leave no server"
    log = (tmp_path / "vllm-0.log").read_text()
    assert log.count("CUDA out of memory") == 1
    assert log.count("serving with") == 2
    assert "host='127.0.0.1'" in log


def test_restarts_are_limited(folder: Path, tmp_path: Path) -> None:
    """And the run does not wait for its patience to end."""
    crashing = config(arguments=("--crash-after", "1"), restarts=0, log_folder=str(tmp_path))
    with VllmEngine(str(folder), crashing) as engine:
        begun = time.monotonic()
        with pytest.raises(EngineError, match=r"ended with status 3; .*log ends with: torch.Out"):
            ask(engine, 2)
        assert time.monotonic() - begun < 30


def test_two_replicas(folder: Path) -> None:
    with VllmEngine(str(folder), config(replicas=2)) as engine:
        assert len({server.url for server in engine.servers}) == 2
        assert len(ask(engine, 12)) == 12
        assert all(server.answers for server in engine.servers)


def test_servers_end_with_a_process_that_is_killed(tmp_path: Path) -> None:
    """They would hold their GPUs."""
    name = f"server of {tmp_path}"
    code = (
        "import os, pathlib, time; from scdpo.engines.vllm.processes import ServerProcess\n"
        f"command, log = ['sh', '-c', 'echo on; sleep 60', {name!r}], pathlib.Path({'log'!r})\n"
        "ServerProcess(command, log, environment=os.environ, restarts=0, on_lost=print)\n"
        "while not (log.exists() and log.read_text() == 'on\\n'): time.sleep(0.05)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=100, check=False)
    assert done.returncode == -9
    for _ in range(100):
        if not processes(name):
            return
        time.sleep(0.1)
    raise AssertionError("a server lives on")


def test_servers_that_do_not_start(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="there is no command 'vllm-of-mine': pip install vllm"):
        VllmEngine(str(folder), VllmEngineConfig(command=("vllm-of-mine",)))
    wrong = config(arguments=("--crash-before", "1"), restarts=0, log_folder=str(tmp_path))
    with pytest.raises(
        EngineError, match=r"ended with status 2; .*unrecognized arguments: --crash"
    ):
        VllmEngine(str(folder), wrong)
    silent = ("sh", "-c", "sleep 60", "sh")
    slow = VllmEngineConfig(command=silent, start_seconds=0.5, restarts=0)
    with pytest.raises(EngineError, match=r"^sh does not serve after 0\.5 s"):
        VllmEngine(str(folder), slow)
    assert not processes(str(folder))


def test_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert gpus_of_servers(None, 1) == [()]
    assert gpus_of_servers(3, 1) == [(), (), ()]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert gpus_of_servers(None, 1) == [("0",), ("1",), ("2",), ("3",)]
    assert gpus_of_servers(None, 2) == [("0", "1"), ("2", "3")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert gpus_of_servers(1, 2) == [("4", "5")]
    with pytest.raises(EngineError, match=r"3 servers of 2 GPUs .* need 6 GPUs, but there are 4"):
        gpus_of_servers(3, 2)


def test_the_log_is_in_the_run_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {
        "policy": str(folder),
        "format": {"name": "plain", "end": [EOS], "template": "Q: {question}\nA: "},
        "engine": {"name": "vllm", "command": [*COMMAND], "probe": False, "pause": 0.01},
        "problems": {"train": {"source": "jsonl", "path": str(tmp_path / "sums.jsonl")}},
        "sample": {"max_attempts": 2},
    }
    rows = [f'{{"question": "How much is {n} + 2?", "answer": "{n + 2}"}}\n' for n in range(2)]
    (tmp_path / "sums.jsonl").write_text("".join(rows))
    recipe["problems"]["test"] = recipe["problems"]["train"]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    out = tmp_path / "run"
    succeed("sample", out, "--recipe", tmp_path / "r.yaml")
    assert "serving with" in (out / "logs" / "vllm-0.log").read_text()
    assert not processes(str(folder))
    broken = tmp_path / "broken"
    option = "engine.arguments=[--no-such]"
    text = fail(
        capsys,
        "sample",
        broken,
        "--recipe",
        tmp_path / "r.yaml",
        "--set",
        option,
        "--set",
        "engine.restarts=0",
    )
    assert "unrecognized arguments: --no-such" in text
    assert (broken / "logs" / "vllm-0.log").is_file(), "it says why"
