"""What stands between the network and the viewer.

A page of another site may send requests to this machine, also under a host name of its own that
leads here. So a request must name the host that this server was reached by, and no other site gets
an answer. Model text may be hostile: the pages run no script but their own, and load nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; img-src {image}; "
    "connect-src {connect}; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""The content security policy: no inline script, no HTML made from text, no other host."""

SERVED = POLICY.format(script="'self'", style="'self'", image="'self'", connect="'self'")
HEADERS = {
    "content-security-policy": f"{SERVED}; frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
LOCAL = ("127.0.0.1", "localhost")


class Guard:
    """Answers only GET requests to one of `hosts` (with their port), with `token` if there is one.

    With `any_address` the host may also be the address at which the request came in. The token is
    taken from `?token=`, which is answered with a cookie and the page without it, or from
    `Authorization: Bearer`.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: frozenset[str],
        token: str | None = None,
        *,
        any_address: bool = False,
    ):
        self.app = app
        self.any_address = any_address
        self.hosts = hosts
        self.token = token
        self._secret = secrets.token_bytes(32)
        self._cookie = "scdpo-" + hashlib.sha256(repr(sorted(hosts)).encode()).hexdigest()[:8]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request or pass it on."""
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *added]
            await send(message)

        status, text, headers = self._refusal(scope)
        if status:
            plain = {"content-type": "text/plain; charset=utf-8"} | headers
            await guarded(
                {
                    "type": "http.response.start",
                    "status": status,
                    "headers": [(k.encode(), v.encode()) for k, v in plain.items()],
                }
            )
            await guarded({"type": "http.response.body", "body": text.encode()})
            return
        await self.app(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> tuple[int, str, dict[str, str]]:
        """The status, text and headers of a refusal; status 0 if the request may pass."""
        given: list[tuple[bytes, bytes]] = list(scope["headers"])
        hosts = [value.decode("latin-1") for name, value in given if name == b"host"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in given}
        known = self.hosts
        if self.any_address and scope.get("server"):
            address, port = scope["server"]
            known |= {f"[{address}]:{port}" if ":" in address else f"{address}:{port}"}
        if len(hosts) != 1 or hosts[0].lower() not in known:
            return 421, f"This server answers at {' and '.join(sorted(known))} only.\n", {}
        if scope["method"] != "GET":
            return 405, "Only GET.\n", {"allow": "GET"}
        # A browser says where a request comes from; another site gets nothing, not even an error
        # of the application. Following a link to the page itself is allowed.
        site = headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin") and scope["path"] != "/":
            return 403, "Not for other sites.\n", {}
        return self._without_token(scope, headers) if self.token else (0, "", {})

    def _without_token(
        self, scope: Scope, headers: Mapping[str, str]
    ) -> tuple[int, str, dict[str, str]]:
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if scope["path"] == "/" and "token" in query and self._is_token(query["token"][-1]):
            cookie = f"{self._cookie}={self._session()}; HttpOnly; SameSite=Strict; Path=/"
            return 303, "", {"location": "/", "set-cookie": cookie}
        if self._is_token(headers.get("authorization", "").removeprefix("Bearer ")):
            return 0, "", {}
        try:
            cookie_given = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            cookie_given = None
        if cookie_given and hmac.compare_digest(
            cookie_given.value.encode(), self._session().encode()
        ):
            return 0, "", {}
        return 401, "Open the address with ?token=… that `scdpo view` was started with.\n", {}

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), (self.token or "").encode())

    def _session(self) -> str:
        """What the cookie holds: it proves the token and is worth nothing after this process."""
        return hmac.new(self._secret, (self.token or "").encode(), "sha256").hexdigest()
