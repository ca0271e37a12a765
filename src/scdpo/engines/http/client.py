"""The engine that asks servers for completions."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from scdpo.engines.base import Completion, Request
from scdpo.engines.http.asking import open_asking
from scdpo.engines.http.config import HttpEngineConfig
from scdpo.engines.http.faults import ServerFault
from scdpo.engines.http.probe import PROMPTS, ServerReport, probe_server
from scdpo.engines.http.servers import Server, Servers
from scdpo.errors import EngineError
from scdpo.policies import encode_text, stated_format
from scdpo.waiting import run

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LONGEST_PAUSE = 30.0
"""Seconds; the mean pause before a request is asked again is doubled up to this."""


class HttpEngine:
    """Completions from servers with the route `/v1/completions` and token ids both ways (vLLM).

    A failed try (see `faults`) is asked again with the same seed, at another server if there is
    one. A server that fails several times in a row gets no requests until it has written a token.
    An answer that is not exactly what was asked for is a failed try, and never a completion.

    Every completion is drawn from (`seed`, `position`) alone, as far as a server computes the same
    numbers in every batch. Servers do not quite: the last bit of a log-prob, and now and then a
    token, depends on what else is in the batch.

    `policy` is a folder or hub name, for its tokenizer; the servers have the weights. Opening the
    engine probes the servers. The engine is a context manager. Raises PolicyError,
    MissingDependency, and EngineError for a server that has another policy or ignores a setting.
    """

    free_running = True

    def __init__(self, policy: str | Path, config: HttpEngineConfig):
        self.name = str(policy)
        self._config = config
        self._asking = open_asking(policy, config)
        self._tokenizer = self._asking.completions.tokenizer
        self._servers = Servers(
            config.urls,
            in_flight=config.in_flight,
            breaker=config.breaker,
            patience=config.patience,
        )
        self._mending: set[asyncio.Task[None]] = set()
        self._leaving: asyncio.Task[None] | None = None
        self._closed = False
        self.max_context = self._context(run(self._open()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The policy's tokenizer, from which `formats.policy_format` makes the policy's format."""
        return self._tokenizer

    @property
    def solution_format(self) -> dict[str, Any] | None:
        """The format options that the policy's folder states, if any (`policies.stated_format`)."""
        return stated_format(self.name)

    @property
    def servers(self) -> tuple[Server, ...]:
        """The servers and what has happened with them."""
        return self._servers.all

    def encode(self, text: str, *, start: bool = False) -> tuple[int, ...]:
        """Token ids of `text`, with special-token markers recognised; `start` prepends BOS."""
        return encode_text(self._tokenizer, text, start=start)

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Complete every request, in order. Raises EngineError; the others are then cancelled."""
        tasks = [asyncio.ensure_future(self.complete(request)) for request in requests]
        try:
            return await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def complete(self, request: Request) -> Completion:
        """Complete a request as soon as a server has a place for it.

        Cancelling the call closes the connection, at which servers stop generating. Raises
        EngineError.
        """
        if self._closed:
            raise EngineError(f"{self.name}: the engine is closed")
        max_tokens = min(request.max_tokens, self.max_context - len(request.prompt_ids))
        if max_tokens <= 0:
            return Completion((), "", (), "length")
        await self._enter()
        failed: Server | None = None
        for n in range(self._config.retries + 1):
            server = await self._servers.take(request.key, avoid=failed)
            try:
                return await self._try(server, request, max_tokens)
            except ServerFault as fault:
                if n == self._config.retries:
                    raise EngineError(
                        f"{server.url}: {n + 1} tries failed, now: {fault}"
                    ) from fault
                failed, wait = server, max(fault.wait, self._pause(n))
            except EngineError as error:
                raise EngineError(f"{server.url}: {error}") from error
            finally:
                await self._servers.give_back(server)
            await asyncio.sleep(wait)
        raise AssertionError("the last try returns or raises")

    def clear(self) -> None:
        """Do nothing: servers keep what they have cached, which changes a token now and then."""

    def close(self) -> None:
        """Close the connections; closing again does nothing."""
        self._closed = True
        loop = self._asking.wire.loop
        if loop is None or loop.is_closed():
            return
        if loop.is_running():
            with contextlib.suppress(RuntimeError):  # it has ended meanwhile, which closes them too
                loop.call_soon_threadsafe(self._leave_later, loop)

    async def _try(self, server: Server, request: Request, max_tokens: int) -> Completion:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            done = await self._asking.step(server.url, server.model, request, max_tokens)
        except ServerFault as fault:
            if self._servers.failed(server, fault):
                self._mend(server)
            raise
        server.answered(loop.time() - begun, len(done.token_ids))
        return done

    def _pause(self, n: int) -> float:
        """Seconds to wait after n + 1 failures: exponential back-off with full jitter."""
        return random.uniform(0, 2 * min(self._config.pause * 2.0**n, LONGEST_PAUSE))

    # Opening, and servers that are not usable for now.

    async def _open(self) -> list[ServerReport]:
        """Probe all servers. Raises EngineError for one that fails a check."""
        await self._enter()
        try:
            reports = await asyncio.gather(*(self._probed(s) for s in self._servers.all))
        finally:
            await self._leave()
        if not any(report.reached for report in reports):
            raise EngineError("; ".join(f"{r.url}: {r.failed[0].found}" for r in reports))
        return reports

    async def _probed(self, server: Server) -> ServerReport:
        """Probe a server. It is broken if it does not answer. Raises EngineError for a check."""
        settings = self._config.probe
        report = await probe_server(self._asking, server.url, self.name, settings=settings)
        if report.reached and report.failed:
            check = report.failed[0]
            raise EngineError(f"{server.url}: {check.name}: {check.found}")
        server.model, server.checked = report.model, report.reached
        server.broken = not report.reached
        if server.broken:
            server.last_fault = report.failed[0].found
        return report

    def _context(self, reports: Sequence[ServerReport]) -> int:
        """The context to use: what the config asks for, within the limits of servers and policy."""
        limits = {report.url: report.max_context for report in reports if report.max_context}
        if self._asking.context is not None:
            limits[self.name] = self._asking.context
        wanted = self._config.max_context or min(limits.values(), default=None)
        if wanted is None:
            raise EngineError(f"{self.name}: no server states its context; set engine.max_context")
        for name, most in limits.items():
            if wanted > most:
                raise EngineError(
                    f"{name}: max_context {wanted} exceeds its limit of {most} tokens"
                )
        return wanted

    async def _enter(self) -> None:
        """Prepare for the running event loop."""
        if await self._asking.wire.enter():
            self._servers.enter()
            self._mending.clear()
            for server in self._servers.all:
                if server.broken:
                    self._mend(server)

    async def _leave(self) -> None:
        for task in self._mending:
            task.cancel()
        self._mending.clear()
        await self._asking.wire.leave()

    def _give_up(self, why: str) -> None:
        """No server will be usable any more; may be called in any thread."""
        self._servers.lost = why
        loop = self._asking.wire.loop
        if loop is not None and loop.is_running():
            with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                asyncio.run_coroutine_threadsafe(self._servers.wake(), loop)

    def _leave_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._leaving = loop.create_task(self._leave())

    def _mend(self, server: Server) -> None:
        task = asyncio.get_running_loop().create_task(self._mended(server))
        self._mending.add(task)
        task.add_done_callback(self._mending.discard)

    async def _mended(self, server: Server) -> None:
        """Wait until a server writes a token; that it is said to be healthy means nothing."""
        n = 0
        while True:
            await asyncio.sleep(self._pause(n))
            n += 1
            try:
                await self._writes(server)
            except (ServerFault, EngineError) as error:
                server.last_fault = str(error)
            else:
                break
        await self._servers.mended(server)

    async def _writes(self, server: Server) -> None:
        """Ask a broken server for a token. It may have been started anew with another policy, and
        one that was away at the start is yet to be probed. Raises ServerFault and EngineError."""
        settings = self._config.probe and not server.checked
        report = await probe_server(self._asking, server.url, self.name, settings=settings)
        if report.failed:
            raise EngineError(f"{report.failed[0].name}: {report.failed[0].found}")
        if report.max_context is not None and report.max_context < self.max_context:
            raise EngineError(f"its context of {report.max_context} tokens is too short")
        prompt = self.encode(PROMPTS[0], start=True)
        await self._asking.step(
            server.url, report.model, Request(prompt, (), (), 0.0, max_tokens=1, seed=0), 1
        )
        server.model, server.checked = report.model, True
