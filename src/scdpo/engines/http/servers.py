"""Several servers of one policy: which of them a request goes to, and which get none for now."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from scdpo.engines.http.faults import ServerFault
from scdpo.errors import EngineError

BALANCE = 1.25
"""How far the requests in flight at a server may exceed its share for the sake of a warm cache."""
SLACK = 4
"""Requests that a server may have beyond that: so many belong together when few are in flight."""
_SMOOTHING = 0.1
"""Weight of an answer in the moving average of a server's seconds per answer."""


@dataclass(slots=True)
class Server:
    """A server, what is known of it, and what has happened with it.

    `model` is its name for the policy and `checked` whether it has shown that it does what is asked
    (both once it has been reached). `broken` servers get no requests. `failures` counts failed
    tries since the last answer; `faults` counts all of them by name.
    """

    url: str
    model: str = ""
    checked: bool = False
    broken: bool = False
    in_flight: int = 0
    failures: int = 0
    answers: int = 0
    tokens: int = 0
    seconds: float = 0.0
    last_fault: str = ""
    faults: Counter[str] = field(default_factory=Counter)

    def answered(self, seconds: float, tokens: int) -> None:
        """Count an answer of `tokens` tokens that took `seconds`."""
        weight = _SMOOTHING if self.answers else 1.0
        self.seconds += weight * (seconds - self.seconds)
        self.answers += 1
        self.tokens += tokens
        self.failures = 0

    def failed(self, fault: ServerFault) -> None:
        """Count a failed try."""
        self.failures += 1
        self.faults[fault.name] += 1
        self.last_fault = str(fault)


class Servers:
    """Places at servers, `in_flight` at each: a request waits until one is free.

    Requests with the same key go to the same server (rendezvous hashing: Thaler and Ravishankar,
    1998), whose cache has their prefix, unless that server has more than its share of the requests
    in flight (consistent hashing with bounded loads: Mirrokni, Thorup and Zadimoghaddam, 2018);
    then they go to the least loaded one. A server's share is by its speed, so that a slow one does
    not hold up the rest.
    """

    def __init__(self, urls: Sequence[str], *, in_flight: int, breaker: int, patience: float):
        self.all = tuple(Server(url) for url in urls)
        self._in_flight = in_flight
        self._breaker = breaker
        self._patience = patience
        self._freed = asyncio.Condition()
        self._broken_since: float | None = None
        self.lost = ""
        """Why no server will be usable any more, once that is known."""

    def enter(self) -> None:
        """Begin in a new event loop."""
        self._freed = asyncio.Condition()
        self._broken_since = None

    async def take(self, key: str, avoid: Server | None = None) -> Server:
        """Wait for a place and take it; not at `avoid` if another server has one.

        Raises EngineError if all servers are lost, or broken for longer than the patience.
        """
        async with self._freed:
            while (server := self._choose(key, avoid)) is None:
                try:
                    async with asyncio.timeout(self._patience_left()):
                        await self._freed.wait()
                except TimeoutError:
                    continue
                except asyncio.CancelledError:
                    # This one may have been woken for a place that it will not take.
                    self._freed.notify()
                    raise
            server.in_flight += 1
            return server

    async def give_back(self, server: Server) -> None:
        """Free a place."""
        async with self._freed:
            server.in_flight -= 1
            self._freed.notify()

    def failed(self, server: Server, fault: ServerFault) -> bool:
        """Count a failed try; whether the server is given no requests from now on."""
        server.failed(fault)
        if server.broken or server.failures < self._breaker:
            return False
        server.broken = True
        return True

    async def wake(self) -> None:
        """Let those that wait see that something has changed."""
        async with self._freed:
            self._freed.notify_all()

    async def mended(self, server: Server) -> None:
        """Give a server requests again."""
        async with self._freed:
            server.broken, server.failures = False, 0
            self._broken_since = None
            self._freed.notify_all()

    def _choose(self, key: str, avoid: Server | None) -> Server | None:
        if self.lost:
            raise EngineError(self.lost)
        usable = [s for s in self.all if not s.broken]
        free = [s for s in usable if s.in_flight < self._in_flight]
        if not free:
            return None
        free = [s for s in free if s is not avoid] or free
        speeds = _speeds(usable)
        if key:
            favourite = max(usable, key=lambda s: _score(key, s.url))
            total = 1 + sum(s.in_flight for s in usable)
            share = BALANCE * total * speeds[favourite.url] / sum(speeds.values())
            if favourite in free and favourite.in_flight < math.ceil(share) + SLACK:
                return favourite
        return min(free, key=lambda s: (s.in_flight + 1) / speeds[s.url])

    def _patience_left(self) -> float | None:
        """Seconds to go on waiting; None, without limit, while a server is usable."""
        if any(not s.broken for s in self.all):
            self._broken_since = None
            return None
        now = asyncio.get_running_loop().time()
        if self._broken_since is None:
            self._broken_since = now
        left = self._broken_since + self._patience - now
        if left <= 0:
            last = "; ".join(f"{s.url}: {s.last_fault}" for s in self.all)
            raise EngineError(f"no server is usable for {self._patience:g} s: {last}")
        return left


def _speeds(servers: Sequence[Server]) -> dict[str, float]:
    """Answers per second and place, by URL; servers without answers count as average ones."""
    known = [s.seconds for s in servers if s.answers]
    average = sum(known) / len(known) if known else 1.0
    return {s.url: 1 / max(s.seconds if s.answers else average, 1e-6) for s in servers}


def _score(key: str, url: str) -> bytes:
    return blake2b(f"{key}\n{url}".encode(), digest_size=8).digest()
