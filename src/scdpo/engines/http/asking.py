"""One try: a step asked of one server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from scdpo.engines.base import Completion, Request
from scdpo.engines.http.completions import Completions
from scdpo.engines.http.config import HttpEngineConfig
from scdpo.engines.http.wire import Wire


@dataclass(frozen=True, slots=True)
class Asking:
    """How servers are asked for steps of one policy."""

    config: HttpEngineConfig
    wire: Wire
    completions: Completions

    async def step(self, url: str, model: str, request: Request, max_tokens: int) -> Completion:
        """One step of at most `max_tokens` tokens. Raises ServerFault and EngineError."""
        body = self.completions.body(request, model, max_tokens)
        return self.completions.read(await self.raw(url, body, request.key), request, max_tokens)

    async def raw(self, url: str, body: Mapping[str, Any], key: str = "") -> Any:
        """The answer to a body as it is. Raises ServerFault and EngineError."""
        header = self.config.session_header
        # Ids of problems may hold what a header cannot.
        headers = {header: quote(key, safe="")} if header and key else None
        return await self.wire.post(
            f"{url}/v1/completions", body, deadline=self.config.deadline, headers=headers
        )
