"""The engine that starts its own servers."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from pathlib import Path

from scdpo.engines.http.client import HttpEngine
from scdpo.engines.http.config import HttpEngineConfig, ServersConfig
from scdpo.engines.http.faults import ServerFault
from scdpo.engines.http.wire import Wire
from scdpo.engines.vllm.config import VllmEngineConfig
from scdpo.engines.vllm.processes import ServerProcess, free_port, gpus_of_servers, last_line
from scdpo.errors import EngineError
from scdpo.policies import policy_path
from scdpo.waiting import run

HOST = "127.0.0.1"
_POLL_SECONDS = 0.5


class VllmEngine(HttpEngine):
    """Completions from `vllm serve` on this machine, one server for each replica.

    Opening the engine starts the servers and waits until each has written a token; closing it stops
    them, so that their memory is free. A server that ends is started again, and what it was asked
    for is asked again. Raises PolicyError, MissingDependency, and EngineError for a server that
    does not start, has too few GPUs, or fails a check of the probe.
    """

    def __init__(self, policy: str | Path, config: VllmEngineConfig):
        self._processes: list[ServerProcess] = []
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._opened = False
        ports: list[int] = []
        if shutil.which(config.command[0]) is None:
            what = f"there is no command {config.command[0]!r}"
            raise EngineError(f"{what}: pip install vllm, or set engine.command")
        try:
            gpus = gpus_of_servers(config.replicas, config.tensor_parallel)
            folder = self._log_folder(config)
            for n, names in enumerate(gpus):
                ports.append(free_port())
                self._start(policy, config, ports[-1], names, folder / f"vllm-{n}.log")
            urls = [f"http://{HOST}:{port}" for port in ports]
            run(self._listening(urls, config))
            shared = config.model_dump(include=set(ServersConfig.model_fields) - {"name"})
            super().__init__(policy, HttpEngineConfig(urls=tuple(urls), **shared))
            self._opened = True
            run(self._first_tokens())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connections and stop the servers; closing again does nothing."""
        if self._opened:
            super().close()
        for process in self._processes:
            process.stop()
        self._processes.clear()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _log_folder(self, config: VllmEngineConfig) -> Path:
        if config.log_folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="scdpo-vllm-")
            return Path(self._temporary.name)
        folder = Path(config.log_folder)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _start(
        self,
        policy: str | Path,
        config: VllmEngineConfig,
        port: int,
        gpus: tuple[str, ...],
        log: Path,
    ) -> None:
        length = () if config.max_context is None else ("--max-model-len", str(config.max_context))
        command = [
            *(*config.command, policy_path(policy)),
            *("--host", HOST, "--port", str(port), "--served-model-name", str(policy)),
            *("--tensor-parallel-size", str(config.tensor_parallel)),
            *(*length, *config.arguments),
        ]
        visible = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}
        process = ServerProcess(
            command,
            log,
            environment=os.environ | visible,
            restarts=config.restarts,
            on_lost=self._one_is_lost,
        )
        self._processes.append(process)

    async def _listening(self, urls: list[str], config: VllmEngineConfig) -> None:
        """Wait until all servers listen. Raises EngineError."""
        wire = Wire(config.api_key_env)
        await wire.enter()
        latest = time.monotonic() + config.start_seconds
        try:
            for url, process in zip(urls, self._processes, strict=True):
                while not await self._listens(wire, url):
                    if process.lost:
                        raise EngineError(process.lost)
                    if time.monotonic() > latest:
                        raise EngineError(
                            f"{config.command[0]} does not serve after {config.start_seconds:g} s: "
                            f"{last_line(process.log)}"
                        )
        finally:
            await wire.leave()

    async def _listens(self, wire: Wire, url: str) -> bool:
        try:
            await wire.get(f"{url}/v1/models", deadline=10.0)
        except ServerFault:
            await asyncio.sleep(_POLL_SECONDS)
            return False
        return True

    async def _first_tokens(self) -> None:
        """Wait for a token of every server. Raises EngineError."""
        await self._enter()
        try:
            await asyncio.gather(*(self._writes(server) for server in self._servers.all))
        except ServerFault as fault:
            raise EngineError(str(fault)) from fault
        finally:
            await self._leave()

    def _one_is_lost(self) -> None:
        """A server is not started again; without any, requests need not wait. In its thread."""
        if self._opened and all(process.lost for process in self._processes):
            self._give_up(self._processes[-1].lost)
