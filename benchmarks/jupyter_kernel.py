"""A Jupyter kernel as an executor of blocks, for comparison with the sandbox.

Needs the extra `bench`. A kernel keeps its connection file and its history in a folder of its
own, which goes with it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Self

from scdpo.errors import SandboxError

try:
    from jupyter_client.manager import AsyncKernelManager
except ImportError as error:
    raise SandboxError("Jupyter is not installed: pip install -e '.[bench]'") from error

_READY_SECONDS = 120.0
_REPLY_SECONDS = 60.0


class JupyterKernel:
    """One kernel of the interpreter that runs this: `start()`, `run()`, `stop()`."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="jupyter-")
        # Read by the manager in this process, so it is not enough to hand it to the kernel.
        os.environ["JUPYTER_RUNTIME_DIR"] = self._folder.name
        self._manager = AsyncKernelManager(kernel_name="python3")
        self._client: Any = None

    async def start(self) -> Self:
        """Start the kernel and wait until it answers. Raises SandboxError when it does not."""
        env = os.environ | {"IPYTHONDIR": self._folder.name}
        log = Path(self._folder.name) / "stderr"
        with log.open("wb") as stderr:
            await self._manager.start_kernel(env=env, stderr=stderr)
        self._client = self._manager.client()
        self._client.start_channels()
        try:
            await self._client.wait_for_ready(timeout=_READY_SECONDS)
        except RuntimeError as error:
            said = log.read_text(errors="replace").strip().splitlines() or [str(error)]
            await self.stop()
            raise SandboxError(f"the Jupyter kernel did not start: {said[-1]}") from error
        return self

    async def run(self, code: str) -> str:
        """What one block prints and shows, once the kernel is idle again."""
        asked = self._client.execute(code)
        shown: list[str] = []
        while True:
            message = await self._client.get_iopub_msg(timeout=_REPLY_SECONDS)
            if message["parent_header"].get("msg_id") != asked:
                continue
            content = message["content"]
            match message["msg_type"]:
                case "stream":
                    shown.append(content["text"])
                case "execute_result":
                    shown.append(content["data"]["text/plain"])
                case "error":
                    shown.append(f"{content['ename']}: {content['evalue']}")
                case "status" if content["execution_state"] == "idle":
                    break
        await self._client.get_shell_msg(timeout=_REPLY_SECONDS)
        return "".join(shown).rstrip()

    async def stop(self) -> None:
        """Kill the kernel at once, the quickest way it can be ended."""
        if self._client is not None:
            self._client.stop_channels()
        await self._manager.shutdown_kernel(now=True)
        self._folder.cleanup()
