"""Completions from a causal language model in this process."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field

from scdpo.engines.base import Completion, EngineConfig, Request
from scdpo.engines.pump import Pump
from scdpo.errors import EngineError
from scdpo.policies import Policy, load_policy, stated_format

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from scdpo.engines.decode import Decoder, DecodingRow
    from scdpo.engines.stops import StopWatches

_MIB = 1 << 20


class LocalEngineConfig(EngineConfig):
    """Settings of the in-process engine; all but `max_context` affect samples only by rounding."""

    name: Literal["local"] = Field("local", description="The engine in this process.")
    max_rows: int = Field(
        256, ge=1, description="Rows decoded together; further requests wait their turn."
    )
    cache_mb: int = Field(
        512,
        ge=0,
        description="MiB of keys and values cached for later prompts with the same beginning.",
    )
    max_context: int | None = Field(
        None,
        ge=2,
        description="Maximum tokens of prompt and completion together; default: the model's limit.",
    )
    prefill_tokens: int = Field(
        4096, ge=1, description="Maximum padded prompt tokens in one forward pass."
    )
    device: str | None = Field(
        None, description="Torch device; default: a GPU if there is one, else the CPU."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Number format of the weights."
    )
    scheduling: Literal["lockstep", "free"] | None = Field(
        None,
        description="`lockstep`: all rollouts wait for the longest step, and rows can be drawn "
        "again bit for bit; `free`: each takes its next step at once, which is faster. Default: "
        "lockstep on a CPU, free elsewhere.",
    )


class Engine:
    """Completions from a transformers model, batched, on its own worker thread.

    Calls are served one at a time, in order of arrival. The same sequence of calls, counted from
    construction or from the last `clear`, gives the same completions bit for bit. After changing
    the model's weights, call `clear`, since cached keys and values are those of the old weights.

    That is `scheduling: lockstep`. With `scheduling: free`, each request begins when it is asked
    for (`complete`), and the batch in which it is decoded depends on what else was asked for:
    completions are the same but for rounding, which can change a token where two are about equally
    likely.

    A completion finishes with `end` at an end string or the model's own EOS (both kept in ids and
    text), with `stop` at a stop string, and with `length` otherwise. A prompt that leaves no room
    in the context gives an empty completion with `length`.

    `policy` is a loaded policy, or a folder or hub name to load it from. The engine is a context
    manager. Raises PolicyError for a folder or name without a policy, and EngineError for a model
    that does not support 4-D masks over a plain key/value cache, or whose attention window is
    shorter than `max_context`.
    """

    def __init__(self, policy: Policy | str | Path, config: LocalEngineConfig | None = None):
        from scdpo.engines.continuous import RunningBatch
        from scdpo.engines.decode import Decoder
        from scdpo.engines.stops import StopWatches

        config = config or LocalEngineConfig()
        if not isinstance(policy, Policy):
            import torch

            dtype = getattr(torch, config.dtype)
            policy = load_policy(policy, device=config.device, dtype=dtype)
        self.name = policy.name
        self.max_context = _max_context(policy, config.max_context)
        self._policy = policy
        self._config = config
        self._n_vocab = int(policy.model.config.get_text_config().vocab_size)
        with _evaluating(policy):
            self._decoder: Decoder = Decoder(
                policy.model,
                max_context=self.max_context,
                cache_bytes=config.cache_mb * _MIB,
                prefill_tokens=config.prefill_tokens,
            )
        self._watches: StopWatches = StopWatches(policy.tokenizer, self._n_vocab, _eos_ids(policy))
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scdpo-engine")
        self._closed = False
        on_cpu = policy.model.device.type == "cpu"
        self.free_running = (config.scheduling or ("lockstep" if on_cpu else "free")) == "free"
        self._pump = Pump(
            RunningBatch(self._decoder), self._worker, config.max_rows, self._computing
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The policy's tokenizer, from which `formats.policy_format` makes the policy's format."""
        return self._policy.tokenizer

    @property
    def solution_format(self) -> dict[str, Any] | None:
        """The format options that the policy's folder states, if any (`policies.stated_format`)."""
        return stated_format(self.name)

    def encode(self, text: str, *, start: bool = False) -> tuple[int, ...]:
        """Token ids of `text`, with special-token markers recognised; `start` prepends BOS."""
        return self._policy.encode(text, start=start)

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Complete every request, in order. Raises EngineError.

        A cancelled call stops before its next token.
        """
        if self._closed:
            raise EngineError(f"{self.name}: the engine is closed")
        requests = list(requests)
        for i, request in enumerate(requests):
            self._validate(i, request)
        if self.free_running:
            return await asyncio.gather(*map(self.complete, requests))
        cancelled = threading.Event()
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._worker, self._complete, requests, cancelled)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def clear(self) -> None:
        """Discard cached prefixes, so that later calls do not depend on earlier ones."""
        self._worker.submit(self._decoder.prefixes.clear).result()

    def close(self) -> None:
        """Wait for the worker and free all caches; closing again does nothing."""
        if not self._closed:
            self._closed = True
            self._worker.shutdown(wait=True, cancel_futures=True)
            self._decoder.release()

    async def complete(self, request: Request) -> Completion:
        """Complete a request beside those that are running; needs `scheduling: free`.

        Cancelling the call ends the request. Raises EngineError.
        """
        if self._closed:
            raise EngineError(f"{self.name}: the engine is closed")
        if not self.free_running:
            raise EngineError(f"{self.name}: single requests need `scheduling: free`")
        self._validate(0, request)
        row = self._row(request)
        return self._completion(row if row.limit <= 0 else await self._pump.complete(row))

    def _complete(self, requests: list[Request], cancelled: threading.Event) -> list[Completion]:
        rows = [self._row(request) for request in requests]
        waiting = [row for row in rows if row.limit > 0]
        # Group rows of similar length: attention reads every row up to the longest.
        waiting.sort(key=lambda row: len(row.request.prompt_ids))
        with self._computing(len(waiting)):
            for chunk in _chunks(waiting, self._config.max_rows):
                self._decoder.decode(chunk, cancelled)
        return [self._completion(row) for row in rows]

    @contextmanager
    def _computing(self, n_prompts: int) -> Iterator[None]:
        """Without gradients and dropout, and with errors that say what failed."""
        import torch

        try:
            with torch.inference_mode(), _evaluating(self._policy):
                yield
        except EngineError as error:
            # The rows may hold non-finite values, which would outlive the call.
            self._decoder.release()
            raise EngineError(f"{self.name}: {error}") from error
        except (RuntimeError, MemoryError) as error:
            self._decoder.release()
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise EngineError(
                f"{self.name}: the model failed on {n_prompts} prompts "
                f"({self._config.max_rows} rows at a time): {reason}"
            ) from error

    def _completion(self, row: DecodingRow) -> Completion:
        return Completion(
            tuple(row.ids), self._policy.decode(row.ids), tuple(row.logps), row.finish
        )

    def _row(self, request: Request) -> DecodingRow:
        from scdpo.engines.decode import DecodingRow

        watch = self._watches.of(request.stop, request.end)
        room = self.max_context - len(request.prompt_ids)
        return DecodingRow(request, watch, min(request.max_tokens, room))

    def _validate(self, i: int, request: Request) -> None:
        def refuse(what: str) -> EngineError:
            return EngineError(f"{self.name}: request {i}: {what}")

        if not request.prompt_ids:
            raise refuse("prompt_ids is empty; at least one token is needed")
        low, high = min(request.prompt_ids), max(request.prompt_ids)
        if low < 0 or high >= self._n_vocab:
            raise refuse(f"token id {low if low < 0 else high} is not in 0..{self._n_vocab - 1}")
        if request.max_tokens < 1:
            raise refuse(f"max_tokens is {request.max_tokens}; at least 1 is needed")
        if not (math.isfinite(request.temperature) and request.temperature >= 0):
            raise refuse(f"temperature is {request.temperature}; it must be finite and at least 0")
        if "" in request.stop or "" in request.end:
            raise refuse("a stop or end string is empty")


LocalEngine = Engine
"""The name that tells it from other engines."""


def _chunks(rows: list[DecodingRow], size: int) -> list[list[DecodingRow]]:
    """Chunks of at most `size` rows, as equal in size as possible."""
    n = math.ceil(len(rows) / size)
    return [rows[len(rows) * i // n : len(rows) * (i + 1) // n] for i in range(n)]


@contextmanager
def _evaluating(policy: Policy) -> Iterator[None]:
    """Put the model in evaluation mode (no dropout), and restore its mode afterwards."""
    was_training = policy.model.training
    policy.model.train(False)
    try:
        yield
    finally:
        policy.model.train(was_training)


def _max_context(policy: Policy, wanted: int | None) -> int:
    """The context length to use: what the config asks for, within the model's limits."""
    config = policy.model.config.get_text_config()
    limit: int | None = getattr(config, "max_position_embeddings", None)
    context = limit if wanted is None else wanted
    if context is None:
        raise EngineError(
            f"{policy.name}: the model does not state its context length; set max_context"
        )
    if limit is not None and context > limit:
        raise EngineError(f"{policy.name}: max_context {context} exceeds the model's limit {limit}")
    window = _window(config)
    if window is not None and window < context:
        raise EngineError(
            f"{policy.name}: its attention window is {window} tokens, shorter than the context "
            f"of {context}; set max_context to {window} or less"
        )
    return context


def _window(config: object) -> int | None:
    """The model's attention window in tokens, or None if it is unlimited."""
    if not getattr(config, "use_sliding_window", True):
        return None
    windows = (getattr(config, key, None) for key in ("sliding_window", "attention_chunk_size"))
    return min((int(window) for window in windows if window), default=None)


def _eos_ids(policy: Policy) -> set[int]:
    """The model's EOS token ids: those of its generation config and its tokenizer."""
    generation = getattr(policy.model, "generation_config", None)
    eos = getattr(generation, "eos_token_id", None)
    ids = {eos} if isinstance(eos, int) else set(eos or ())
    return ids | {i for i in (policy.tokenizer.eos_token_id,) if isinstance(i, int)}
