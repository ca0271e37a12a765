"""Settings of the engine that asks servers."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from scdpo.engines.base import EngineConfig

OWN_FIELDS = frozenset(
    (
        *("model", "prompt", "max_tokens", "temperature", "seed", "n", "stream", "echo"),
        *("stop", "stop_token_ids", "include_stop_str_in_output", "skip_special_tokens"),
        *("spaces_between_special_tokens", "return_token_ids", "logprobs"),
    )
)
"""Fields of a request that `extra` may not set."""


SPEED = frozenset(
    ("api_key_env", "in_flight", "deadline", "retries", "pause", "breaker", "patience", "probe")
)
"""Settings of every engine of servers that shape no rows."""


class ServersConfig(EngineConfig):
    """How servers are asked, whoever has started them."""

    max_context: int | None = Field(
        None,
        ge=2,
        description="Maximum tokens of prompt and completion together; default: the smallest limit "
        "of the servers and the policy.",
    )
    in_flight: int = Field(64, ge=1, description="Requests in flight per server; others wait.")
    deadline: float = Field(600, gt=0, description="Seconds until a request without answer fails.")
    retries: int = Field(10, ge=0, description="Times that a failed request is asked again.")
    pause: float = Field(
        0.5,
        ge=0,
        description="Mean seconds before a request is asked again, doubled each time, up to 30.",
    )
    breaker: int = Field(
        5,
        ge=1,
        description="Failures in a row after which a server gets nothing more until it has "
        "answered a request for one token.",
    )
    patience: float = Field(
        600, ge=0, description="Seconds without any usable server after which the run stops."
    )
    logprobs: bool = Field(
        True, description="Ask for log-probs; false for servers that have none at temperature 1."
    )
    probe: bool = Field(
        True, description="Check at the start that every server does what is asked of it."
    )
    api_key_env: str = Field(
        "SCDPO_API_KEY",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable that holds the API key; every server gets it.",
    )
    extra: dict[str, Any] = Field(
        {},
        description="Further fields of every request, such as `{no_stop_trim: true}` for SGLang.",
    )

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, extra: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(OWN_FIELDS & extra.keys()):
            raise ValueError(f"{taken[0]} is set by the engine")
        return extra


class HttpEngineConfig(ServersConfig):
    """Settings of the engine that asks servers such as vLLM's; only `max_context`, `logprobs` and
    `extra` change rows, and the others may be changed during a run."""

    only_speed: ClassVar[frozenset[str]] = SPEED | {"urls", "models", "session_header"}

    name: Literal["http"] = Field("http", description="Servers with the route /v1/completions.")
    urls: tuple[str, ...] = Field(
        min_length=1,
        description="Base URLs of servers of the policy, such as http://gpu1:8000, or of a router.",
    )
    models: dict[str, str] = Field(
        {},
        description="Names under which servers have a policy, `{policy: name}`, where they state "
        "neither the policy's name nor its path.",
    )
    session_header: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9-]+$",
        description="Header with the problem's id, by which a router keeps requests together: "
        "`X-Session-ID` (vllm-router), `X-SMG-Routing-Key` (SGLang's router).",
    )

    @field_validator("urls", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("urls")
    @classmethod
    def _base_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        bases = tuple(base_url(url) for url in urls)
        if len(set(bases)) < len(bases):
            raise ValueError("a server is listed twice")
        return bases


def base_url(url: str) -> str:
    """A URL without trailing slash and `/v1`. Raises ValueError for one that is not usable."""
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected a URL such as http://gpu1:8000")
    if parts.username or parts.password:
        # Recipes are kept in run folders.
        raise ValueError("a URL may not hold a password; give a key in the environment variable")
    if parts.query or parts.fragment:
        raise ValueError("a base URL has no query")
    path = re.sub(r"/+(v1/*)?$", "", parts.path)
    return f"{parts.scheme}://{parts.netloc}{path}"
