"""Requests and answers on the wire: connections, deadlines, errors by name, and the API key."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any

from scdpo.engines.http.faults import ServerFault
from scdpo.errors import EngineError, MissingDependency, short

if TYPE_CHECKING:
    import ssl

    import httpx

KEEPALIVE_SECONDS = 4.0
"""How long an idle connection is kept: less than the 5 s after which vLLM's server closes it."""
CONNECT_SECONDS = 10.0
LONGEST_WAIT = 60.0
"""The longest `Retry-After` that is obeyed, in seconds."""
_HIDDEN = "[API key]"


class Wire:
    """Sends JSON to servers and takes JSON from them, with the API key of an environment variable.

    Its connections belong to the event loop that first uses it: they are closed with it, and
    another loop gets others. Raises MissingDependency without httpx, and EngineError for a key that
    no header can hold.
    """

    def __init__(self, api_key_env: str):
        try:
            import httpx  # noqa: F401
        except ImportError as error:
            raise MissingDependency("httpx", "http") from error
        self._key = _key_from(api_key_env)
        self._env = api_key_env
        self._tls: ssl.SSLContext | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._holder: AsyncGenerator[None, None] | None = None
        self._free: dict[str, list[httpx.AsyncClient]] = {}

    async def enter(self) -> bool:
        """Make connections possible in the running loop; whether this loop is a new one."""
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return False
        self._loop, self._holder = loop, self._connections()
        await anext(self._holder)
        return True

    async def leave(self) -> None:
        """Close the connections of the running loop."""
        holder, self._loop, self._holder = self._holder, None, None
        if holder is not None:
            await holder.aclose()

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that the connections belong to."""
        return self._loop

    async def post(
        self,
        url: str,
        body: Mapping[str, Any],
        *,
        deadline: float,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The answer to a JSON body. Raises ServerFault, and EngineError where it is refused."""
        return await self._send("POST", url, deadline, json=body, headers=headers)

    async def get(self, url: str, *, deadline: float) -> Any:
        """The JSON at a URL. Raises as `post` does."""
        return await self._send("GET", url, deadline)

    async def _send(self, method: str, url: str, deadline: float, **content: Any) -> Any:
        import httpx

        server = httpx.URL(url)
        free = self._free.setdefault(f"{server.scheme}://{server.netloc!r}", [])
        client = free.pop() if free else self._connection(server.scheme == "https")
        try:
            # httpx limits single reads and writes; a server that sends a byte now and then never
            # runs into those.
            async with asyncio.timeout(deadline):
                response = await client.request(method, url, **content)
        except TimeoutError as error:
            raise ServerFault("deadline", f"no answer within {deadline:g} s") from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ServerFault("unreachable", f"no connection: {self._said(error)}") from error
        except httpx.DecodingError as error:
            raise ServerFault("garbled", self._said(error)) from error
        except httpx.TransportError as error:
            raise ServerFault("cut", f"the connection was cut: {self._said(error)}") from error
        except httpx.HTTPError as error:
            raise EngineError(self._said(error)) from None
        finally:
            free.append(client)
        self._check_status(response)
        try:
            return json.loads(response.content)
        except ValueError as error:
            raise ServerFault("garbled", f"not JSON: {self._said(response.text)}") from error

    def _check_status(self, response: httpx.Response) -> None:
        code = response.status_code
        if code == 200:
            return
        said = f"status {code}: {self._said(_message(response))}"
        if code in (429, 503):
            raise ServerFault("busy", said, wait=_seconds(response.headers.get("Retry-After")))
        if code in (408, 425) or code >= 500:
            raise ServerFault("status", said)
        if code in (401, 403):
            lack = "refuses the API key of" if self._key else "wants an API key, but there is no"
            raise EngineError(f"the server {lack} environment variable {self._env} ({said})")
        raise EngineError(f"the server refuses the request: {said}")

    def _said(self, what: object) -> str:
        """What somebody else said, as one line without the key."""
        text = " ".join(str(what).split()) or type(what).__name__
        return short(text.replace(self._key, _HIDDEN) if self._key else text, 200, quote=False)

    async def _connections(self) -> AsyncGenerator[None, None]:
        # asyncio.run closes the generators that are left, so this ends with its loop.
        self._free = {}
        try:
            yield
        finally:
            for clients in self._free.values():
                for client in clients:
                    await client.aclose()

    def _connection(self, secure: bool) -> httpx.AsyncClient:
        """A client with one connection: the pool of a client looks at all of its connections
        several times for each request, which takes longer than the request."""
        import httpx

        if secure and self._tls is None:  # it takes a tenth of a second
            self._tls = httpx.create_ssl_context()
        return httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else None,
            # Without TLS there is nothing to verify.
            verify=self._tls if secure and self._tls is not None else False,
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=1, keepalive_expiry=KEEPALIVE_SECONDS),
            # Proxies of the environment are used, but not on the way to this machine.
            mounts={f"all://{host}": None for host in ("127.0.0.1", "localhost", "[::1]")},
        )


def _key_from(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise EngineError(
            f"environment variable {variable} holds no API key: it is not plain ASCII"
        )
    return key


def _message(response: httpx.Response) -> str:
    """What an error's body says: `error.message` or `message` of its JSON, or the body itself."""
    try:
        body = response.json()
    except ValueError:
        return response.text
    error = body.get("error", body) if isinstance(body, dict) else body
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)


def _seconds(retry_after: str | None) -> float:
    """The seconds of a Retry-After header; 0 for none, and for a date, which is rarely sent."""
    try:
        return min(max(float(retry_after or 0), 0.0), LONGEST_WAIT)
    except ValueError:
        return 0.0
