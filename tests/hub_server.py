"""A server on this machine that answers as the Hugging Face hub does where a model is uploaded."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "hf_a_token_that_nobody_may_see"


class Hub:
    """What a hub holds: repositories by name with their files, and uploads by their hash."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.uploads: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.endpoint = ""


class _Answer(Exception):
    def __init__(self, status: int, message: str, code: str = ""):
        super().__init__(message)
        self.status, self.code = status, code


@contextmanager
def hub_server() -> Iterator[Hub]:
    """The hub, served while the block runs."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            hub.calls.append(f"{self.command} {path}")
            try:
                known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
                if not known and not path.startswith("/upload/"):  # there the address is enough
                    raise _Answer(401, "Invalid credentials in Authorization header")
                found = answer(hub, self.command, path, body)
                self._send(200, found)
            except _Answer as error:
                headers = {"X-Error-Message": str(error)}
                if error.code:
                    headers["X-Error-Code"] = error.code
                self._send(error.status, {"error": str(error)}, headers)

        do_GET = do_POST = do_PUT = _serve  # noqa: N815

        def _send(self, status: int, found: Any, headers: dict[str, str] | None = None) -> None:
            body = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(hub: Hub, command: str, path: str, body: bytes) -> Any:
    """The hub's answer to one request."""
    if command == "PUT" and path.startswith("/upload/"):
        assert hashlib.sha256(body).hexdigest() == path.removeprefix("/upload/")
        hub.uploads[path.removeprefix("/upload/")] = body
        return {}
    sent = json.loads(body) if body and not path.endswith("/commit/main") else {}
    if path == "/api/repos/create":
        name = f"{sent['organization']}/{sent['name']}"
        hub.repositories[name] = {}
        hub.private[name] = sent.get("visibility") == "private"
        return {"url": f"{hub.endpoint}/{name}"}
    if path == "/api/validate-yaml":
        return _validated(sent["content"])
    if path.endswith(".git/info/lfs/objects/batch"):
        return {"transfer": "basic", "objects": [_upload(hub, o) for o in sent["objects"]]}
    name = "/".join(path.removeprefix("/api/models/").split("/")[:2])
    if name not in hub.repositories:
        raise _Answer(404, "Repository not found", "RepoNotFound")
    if command == "GET":
        return {"id": name, "private": hub.private[name], "siblings": [], "tags": []}
    if path.endswith("/preupload/main"):
        return {"files": [_mode(file) for file in sent["files"]]}
    if path.endswith("/commit/main"):
        return _commit(hub, name, [json.loads(line) for line in body.splitlines()])
    raise _Answer(404, f"no such address: {path}")


def _validated(content: str) -> Any:
    """As the hub, which knows what a card's metadata may hold."""
    from huggingface_hub import ModelCard

    data = ModelCard(content).data.to_dict()
    wrong = [
        key for key in ("base_model", "library_name") if not isinstance(data.get(key, ""), str)
    ]
    for result in (data.get("model-index") or [{"results": []}])[0]["results"]:
        if not {"task", "dataset", "metrics"} <= result.keys():
            wrong.append("model-index")
    if wrong:
        raise _Answer(400, f"wrong metadata: {', '.join(wrong)}")
    return {"errors": [], "warnings": []}


def _upload(hub: Hub, wanted: dict[str, Any]) -> dict[str, Any]:
    upload = {"href": f"{hub.endpoint}/upload/{wanted['oid']}", "header": {}}
    return {"oid": wanted["oid"], "size": wanted["size"], "actions": {"upload": upload}}


def _mode(file: dict[str, Any]) -> dict[str, Any]:
    mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}


def _commit(hub: Hub, name: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
    assert lines[0]["key"] == "header"
    for line in lines[1:]:
        value = line["value"]
        if line["key"] == "lfsFile":
            assert len(hub.uploads[value["oid"]]) == value["size"]
            hub.repositories[name][value["path"]] = hub.uploads[value["oid"]]
        else:
            hub.repositories[name][value["path"]] = base64.b64decode(value["content"])
    return {"commitUrl": f"{hub.endpoint}/{name}/commit/1", "commitOid": "1" * 40}
