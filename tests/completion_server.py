"""A server on this machine that speaks vLLM's protocol over an engine of ours, and that can be told
to misbehave: `quirks` concern every answer, `disturb` picks single ones.

It stands on plain sockets, so that a connection can be cut at any byte, and a client that goes away
is noticed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Any

from scdpo.engines import Completion, EngineProtocol, Request
from scdpo.errors import ScdpoError
from scdpo.policies import Policy, decode_ids, encode_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Disturb = Callable[[int, Mapping[str, Any]], str | None]
"""What happens to a completion, by its number and its body; None: nothing."""
TopLogps = Callable[[Sequence[int]], dict[int, float]]
"""The log-probs of the likeliest next tokens."""


class Refused(Exception):
    """An answer that is an error, with its status."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class CompletionServer:
    """The server: what it serves, how it misbehaves, and what it has seen.

    `bodies` and `headers` are those of all completions asked for; `aborted` counts clients that
    went away before their answer.
    """

    def __init__(
        self,
        engine: EngineProtocol,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        root: str,
        context: int | None,
        top: TopLogps | None = None,
        key: str = "",
    ):
        self.engine, self.tokenizer, self.top, self.key = engine, tokenizer, top, key
        self.name, self.root, self.context = name, root, context
        self.quirks: set[str] = set()
        self.disturb: Disturb = lambda number, body: None
        self.delay = 0.0
        self.bodies: list[Mapping[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.answered = self.aborted = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._waiting: list[tuple[Request, asyncio.Future[Completion]]] = []
        self._working: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    # Running.

    async def listen(self) -> None:
        """Accept connections, at the port it had before if it had one."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, limit=1 << 24
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def die(self) -> None:
        """Accept none, and cut those there are."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    def do(self, what: Coroutine[Any, Any, None]) -> None:
        """Do something in the server's own event loop, from another thread."""
        asyncio.run_coroutine_threadsafe(what, self._loop).result(timeout=20)

    def run(self) -> None:
        """Serve until `stop`."""
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0.01))  # what is closed says so a turn later
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def stop(self) -> None:
        """End `run`."""
        self.do(self.die())
        self._loop.call_soon_threadsafe(self._loop.stop)

    # HTTP.

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ")
                pairs = (line.split(":", 1) for line in head[1:] if line)
                headers = {name.strip().lower(): value.strip() for name, value in pairs}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                await self._respond(method, path, headers, body, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _respond(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        try:
            if self.key and headers.get("authorization") != f"Bearer {self.key}":
                said = headers.get("authorization", "nothing")
                raise Refused(401, f"Unauthorized: {said} is not the key")
            asked = json.loads(body) if body else {}
            if (method, path) == ("GET", "/v1/models"):
                await _send(writer, 200, self._models())
            elif (method, path) == ("POST", "/tokenize") and "no tokenize" not in self.quirks:
                await _send(writer, 200, self._tokenized(asked))
            elif (method, path) == ("POST", "/v1/completions"):
                self.bodies.append(asked)
                self.headers.append(headers)
                await self._answer(asked, reader, writer)
            elif (method, path) == ("GET", "/health"):
                await _send(writer, 200, {})
            else:
                raise Refused(404, "Not Found")
        except Refused as error:
            await _send(writer, error.status, {"error": {"message": str(error)}})

    async def _answer(
        self, asked: Mapping[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        fault = self.disturb(len(self.bodies), asked)
        work = asyncio.ensure_future(self._worked(asked, fault))
        gone = asyncio.ensure_future(reader.read(1))
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            self.aborted += 1
            work.cancel()
            raise ConnectionResetError
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone
        text = json.dumps(work.result()).encode()
        if fault == "cut":
            writer.transport.abort()
        elif fault == "garbage":
            await _send(writer, 200, b"<html>502 Bad Gateway</html>")
        elif fault == "half json":
            await _send(writer, 200, text[: len(text) // 2])
        elif fault == "half body":
            await _send(writer, 200, text[: len(text) // 2], length=len(text))
            writer.transport.abort()
        else:
            await _send(writer, 200, text)
            self.answered += 1

    # What it serves.

    def _models(self) -> dict[str, Any]:
        model = {"id": self.name, "object": "model", "owned_by": "vllm", "root": self.root}
        if self.context is not None and "hides context" not in self.quirks:
            model["max_model_len"] = self.context  # type: ignore[assignment]
        return {"object": "list", "data": [model]}

    def _tokenized(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        special = asked.get("add_special_tokens", True)
        ids = self.tokenizer(asked["prompt"], add_special_tokens=special)["input_ids"]
        return {"count": len(ids), "max_model_len": self.context, "tokens": ids}

    async def _worked(self, asked: Mapping[str, Any], fault: str | None) -> dict[str, Any]:
        """The answer to a completion. Raises Refused."""
        await asyncio.sleep(self.delay)
        if fault == "hang":
            await asyncio.Event().wait()
        if fault in ("500", "503"):
            raise Refused(int(fault), "EngineCore encountered an issue")
        if asked["model"] != self.name:
            raise Refused(404, f"The model `{asked['model']}` does not exist.")
        if not isinstance(asked["prompt"], list):
            raise Refused(400, "this server takes token ids")
        prompt = tuple(asked["prompt"][-8:] if "truncates" in self.quirks else asked["prompt"])
        limit = 16 if "max_tokens" in self.quirks else asked.get("max_tokens", 16)
        if self.context is not None and len(prompt) + limit > self.context:
            raise Refused(
                400,
                f"This model's maximum context length is {self.context} tokens. However, you "
                f"requested {len(prompt) + limit} tokens.",
            )
        done, reason = await self._completed(asked, prompt, limit)
        return self._shown(asked, prompt, done, reason, fault)

    async def _completed(
        self, asked: Mapping[str, Any], prompt: tuple[int, ...], limit: int
    ) -> tuple[Completion, str | int | None]:
        """The completion and what stopped it: a string, a token's id, or None."""
        forced = asked.get("logit_bias") or {}
        if forced:  # 100 leaves no other token any chance
            ids = (int(next(iter(forced))),) * limit
            return Completion(ids, "", (0.0,) * limit, "length"), None
        stop = tuple(asked.get("stop") or ()) if "ignores stop" not in self.quirks else ()
        stop_ids = () if "ignores stop ids" in self.quirks else asked.get("stop_token_ids") or ()
        added = self.tokenizer.added_tokens_decoder
        markers = tuple(str(added[i]) for i in stop_ids if i in added)
        warm = 1.0 if "temperature" in self.quirks else asked.get("temperature", 1.0)
        seed = random.getrandbits(31) if "seed" in self.quirks else asked["seed"]
        request = Request(prompt, (*stop, *markers), (), warm, limit, seed)
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._working is None or self._working.done():
            self._working = asyncio.ensure_future(self._work())
        done = await future
        ids = done.token_ids
        at = next((n for n, i in enumerate(ids) if i in stop_ids), None)
        if at is not None:
            cut = ids[: at + 1]
            return Completion(cut, "", done.logps[: at + 1], "stop"), ids[at]
        said = next((s for s in stop if s in decode_ids(self.tokenizer, ids)), None)
        return done, said

    async def _work(self) -> None:
        """Complete what waits, together."""
        while self._waiting:
            await asyncio.sleep(0.001)
            batch, self._waiting = self._waiting, []
            try:
                completions = await self.engine.generate([r for r, _ in batch])
            except ScdpoError as error:
                for _, future in batch:
                    future.cancelled() or future.set_exception(Refused(500, str(error)))
                continue
            for (_, future), done in zip(batch, completions, strict=True):
                if not future.done():
                    future.set_result(done)

    def _shown(
        self,
        asked: Mapping[str, Any],
        prompt: tuple[int, ...],
        done: Completion,
        stopped: str | int | None,
        fault: str | None,
    ) -> dict[str, Any]:
        """A completion as the protocol has it."""
        ids = list(done.token_ids)
        reason: str | None = "length" if done.finish == "length" else "stop"
        if fault in ("abort", "partial"):
            ids, stopped = ids[: len(ids) // 2], None
            reason = "abort" if fault == "abort" else "length"
        choice: dict[str, Any] = {
            "index": 0,
            "text": self._text(asked, ids, stopped),
            "finish_reason": reason,
            "stop_reason": stopped,
            "logprobs": None,
        }
        if "no ids" not in self.quirks and asked.get("return_token_ids"):
            choice |= {"token_ids": ids, "prompt_token_ids": list(prompt)}
        if asked.get("logprobs") is not None:
            choice["logprobs"] = self._logprobs(asked, prompt, ids, done.logps[: len(ids)])
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(ids)}
        return {"object": "text_completion", "choices": [choice], "usage": usage}

    def _text(self, asked: Mapping[str, Any], ids: list[int], stopped: str | int | None) -> str:
        """As vLLM: the text ends with a stop string, also where its last token goes on."""
        kept = asked.get("include_stop_str_in_output", False) and "strips stop" not in self.quirks
        skip = asked.get("skip_special_tokens", True) or "skips special" in self.quirks
        shown = ids[:-1] if isinstance(stopped, int) and not kept else ids
        text = decode_ids(self.tokenizer, shown)
        if skip:
            text = str(self.tokenizer.decode(shown, skip_special_tokens=True))
        if isinstance(stopped, str) and stopped in text:
            text = text[: text.index(stopped) + (len(stopped) if kept else 0)]
        return text

    def _logprobs(
        self,
        asked: Mapping[str, Any],
        prompt: tuple[int, ...],
        ids: list[int],
        logps: Sequence[float],
    ) -> dict[str, Any]:
        scale = 1.0
        if "processed logprobs" in self.quirks:
            scale = 1 / max(asked.get("temperature", 1.0), 1e-3)
        tops: list[dict[str, float]] = []
        if asked["logprobs"] and self.top is not None:
            for n in range(len(ids)):
                likely = self.top([*prompt, *ids[:n]])
                tops.append({f"token_id:{i}": v * scale for i, v in likely.items()})
        values = [v * scale for v in logps]
        return {"token_logprobs": values, "tokens": [""] * len(ids), "top_logprobs": tops}


async def _send(
    writer: asyncio.StreamWriter, status: int, body: bytes | object, length: int | None = None
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = (
        f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data) if length is None else length}\r\n\r\n"
    )
    writer.write(head.encode() + data)
    await writer.drain()


class Worded:
    """An engine over one with other token ids (such as a scripted one), by way of the text."""

    def __init__(self, inner: EngineProtocol, tokenizer: PreTrainedTokenizerBase):
        self.name, self.max_context = inner.name, inner.max_context
        self._inner, self._tokenizer = inner, tokenizer

    def encode(self, text: str, *, start: bool = False) -> tuple[int, ...]:
        return encode_text(self._tokenizer, text, start=start)

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        done = []
        for request in requests:
            ids = self._inner.encode(decode_ids(self._tokenizer, request.prompt_ids))
            inner = Request(
                ids, request.stop, request.end, request.temperature, 1 << 20, request.seed
            )
            [written] = await self._inner.generate([inner])
            out = self.encode(written.text)
            finish = written.finish if len(out) <= request.max_tokens else "length"
            out = out[: request.max_tokens]
            text = decode_ids(self._tokenizer, out)
            done.append(Completion(out, text, (-0.5,) * len(out), finish))
        return done

    def clear(self) -> None: ...

    def close(self) -> None: ...


def likeliest(policy: Policy) -> TopLogps:
    """The two likeliest next tokens of a policy with their log-probs."""
    import torch

    def top(ids: Sequence[int]) -> dict[int, float]:
        with torch.inference_mode():
            logps = policy.model(torch.tensor([list(ids)])).logits[0, -1].log_softmax(-1)
        values, tokens = logps.topk(2)
        return dict(zip(tokens.tolist(), values.tolist(), strict=True))

    return top


@contextmanager
def served(server: CompletionServer) -> Iterator[CompletionServer]:
    """The server in a thread of its own, while the block runs."""
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    try:
        server.do(server.listen())
        yield server
    finally:
        server.stop()
        thread.join()
