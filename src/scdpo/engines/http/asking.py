"""One try: a step asked of one server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scdpo.engines.base import Completion, Request
from scdpo.engines.http.completions import Completions
from scdpo.engines.http.config import HttpEngineConfig
from scdpo.engines.http.wire import Wire
from scdpo.errors import PolicyError
from scdpo.policies import load_tokenizer, policy_path


@dataclass(frozen=True, slots=True)
class Asking:
    """How servers are asked for steps of one policy."""

    config: HttpEngineConfig
    wire: Wire
    completions: Completions
    context: int | None
    """The policy's own limit of tokens; None if it states none."""

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


def open_asking(policy: str | Path, config: HttpEngineConfig) -> Asking:
    """How servers are asked for steps of a policy, of which a folder or hub name has the tokenizer.

    Raises PolicyError, MissingDependency, and EngineError for an API key that cannot be one.
    """
    tokenizer = load_tokenizer(policy)
    context, eos_ids = _of_folder(policy)
    if isinstance(tokenizer.eos_token_id, int):
        eos_ids.add(tokenizer.eos_token_id)
    completions = Completions(tokenizer, eos_ids, logprobs=config.logprobs, extra=config.extra)
    return Asking(config, Wire(config.api_key_env), completions, context)


def _of_folder(policy: str | Path) -> tuple[int | None, set[int]]:
    """A policy's own context limit (None if it states none), and the ids at which it ends."""
    from transformers import AutoConfig, GenerationConfig

    path = policy_path(policy)
    try:
        config = AutoConfig.from_pretrained(path).get_text_config()
    except Exception as error:  # whatever the readers of configs raise
        raise PolicyError(f"{policy}: its config cannot be read: {error}") from error
    limit = getattr(config, "max_position_embeddings", None)
    try:
        eos = GenerationConfig.from_pretrained(path).eos_token_id
    except OSError:  # it has none
        eos = getattr(config, "eos_token_id", None)
    ids = {eos} if isinstance(eos, int) else set(eos or ())
    return limit if isinstance(limit, int) else None, {i for i in ids if isinstance(i, int)}
