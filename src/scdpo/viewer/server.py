"""The server of the viewer: the page, the tables, one problem at a time. It only reads."""

from __future__ import annotations

import errno
import ipaddress
import secrets
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from scdpo.errors import InputError, MissingDependency
from scdpo.viewer.details import problem_details
from scdpo.viewer.guard import LOCAL, Guard
from scdpo.viewer.index import TABLES, Index, encoded
from scdpo.viewer.page import assets

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

MIN_TOKEN = 16
_ALL = ("0.0.0.0", "::")
_SECONDS_PER_REQUEST = 0.2
_TYPES = {
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "svg": "image/svg+xml",
}


def application(
    index: Index, hosts: frozenset[str], token: str | None = None, *, any_address: bool = False
) -> ASGIApp:
    """The ASGI application for an index. `hosts` are what a request's Host may be, with port.

    With `any_address` it may also be the address that the request came in at.

    Raises MissingDependency without Starlette.
    """
    try:
        from starlette.applications import Starlette
        from starlette.responses import Response
        from starlette.routing import Route
    except ImportError as error:
        raise MissingDependency("starlette", "viewer") from error

    files = assets()

    def file(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in files:
            return Response("Not found.\n", 404)
        return Response(files[name], media_type=_TYPES[name.rpartition(".")[2]])

    def tables(request: Request) -> Response:
        index.refresh(_SECONDS_PER_REQUEST)
        query = request.query_params
        try:
            known = {name: max(0, int(query.get(name, "0"))) for name in TABLES}
        except ValueError:
            return Response("Numbers of rows, please.\n", 400)
        found = index.tables(query.get("generation", ""), known)
        return Response(encoded(found), media_type="application/json")

    def problem(request: Request) -> Response:
        query = request.query_params
        if query.get("generation") != index.content.generation:
            return Response("The run was read anew; this number is an old one.\n", 409)
        try:
            found = problem_details(index, int(query.get("number", "")))
        except (InputError, ValueError):
            return Response("No such problem.\n", 404)
        return Response(encoded(found), media_type="application/json")

    routes = [
        Route("/", file),
        Route("/assets/{name}", file),
        Route("/api/tables", tables),
        Route("/api/problem", problem),
    ]
    return Guard(Starlette(routes=routes), hosts, token, any_address=any_address)


def serve(
    index: Index,
    *,
    host: str = LOCAL[0],
    port: int = 0,
    token: str | None = None,
    ready: Callable[[str], None] = print,
) -> None:
    """Serve an index until the process is interrupted; `ready` gets the address of the page.

    Port 0 takes a free one. Raises InputError for an address other than this machine's own without
    a token, for a token that is short, and for an address that cannot be used; MissingDependency
    without Starlette and uvicorn.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise MissingDependency("uvicorn", "viewer") from error
    if not is_local(host) and not token:
        raise InputError(
            f"--host {host}: another address than {LOCAL[0]} needs --token, for instance "
            f"--token {secrets.token_urlsafe(MIN_TOKEN)}"
        )
    if token is not None and (len(token) < MIN_TOKEN or not token.isascii()):
        raise InputError(f"--token: at least {MIN_TOKEN} ASCII characters")
    listener = _listener(host, port)
    with listener:
        port = listener.getsockname()[1]
        app = application(index, _names(host, port), token, any_address=host in _ALL)
        threading.Thread(target=index.refresh, daemon=True).start()
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=1,
        )
        ready(f"http://{_in_url(host)}:{port}/" + (f"?token={token}" if token else ""))
        uvicorn.Server(config).run(sockets=[listener])


def is_local(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listener(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        more = "; --port 0 takes a free one" if taken else ""
        raise InputError(f"{host}, port {port}: cannot be listened to: {why}{more}") from error


def _names(host: str, port: int) -> frozenset[str]:
    """What a request's Host may be."""
    names = {_in_url(host)}
    if is_local(host):
        names |= set(LOCAL)
    elif host in _ALL:
        names = {*LOCAL, socket.gethostname()}
    ports = [f":{port}", ""] if port == 80 else [f":{port}"]  # browsers leave out port 80
    return frozenset(f"{name.lower()}{suffix}" for name in names for suffix in ports)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
