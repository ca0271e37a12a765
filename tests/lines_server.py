"""A policy that writes lines by a script, and a program that serves it in place of `vllm serve`.

It loads neither torch nor transformers, so that it starts quickly.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tokenizers import Tokenizer

from completion_server import CompletionServer, Worded
from scdpo.engines import Request, ScriptedEngine

EOS = "<|eos|>"


class Bare:
    """As much of a tokenizer of transformers as a server needs, from its tokenizer.json."""

    def __init__(self, folder: Path):
        self._inner = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.added_tokens_decoder = self._inner.get_added_tokens_decoder()

    def __call__(self, text: str, add_special_tokens: bool) -> Mapping[str, list[int]]:
        return {"input_ids": self._inner.encode(text, add_special_tokens=add_special_tokens).ids}

    def decode(self, ids: list[int], skip_special_tokens: bool = False, **more: Any) -> str:
        return self._inner.decode(ids, skip_special_tokens=skip_special_tokens)


def lines(request: Request) -> str:
    """Two lines and an answer to `How much is N + 2?`, drawn from the seeds of the steps."""
    said = "".join(map(chr, request.prompt_ids))
    question, turn, answer = said.rpartition("A: ")
    if not turn:
        return "No question.\n"
    number = int(question.split()[-3])
    draw = random.Random(f"{request.seed}/{len(answer)}").random()
    if answer.count("\n") == 0:
        return f"There are {number} and {draw:.6f}.\n"
    if answer.count("\n") == 1:
        return f"That is said {draw:.6f} times.\n"
    return f"The answer is: {number + 2 + (draw < 0.4)}{EOS}"


def served_lines(folder: Path, name: str = "lines") -> CompletionServer:
    """A server of the policy that writes `lines`, whose folder has a tokenizer and no weights."""
    tokenizer: Any = Bare(folder)
    scripted = ScriptedEngine(lines, special_tokens=[EOS], max_context=4096)
    engine = Worded(scripted, tokenizer)
    return CompletionServer(engine, tokenizer, name=name, root=str(folder), context=4096)


def main() -> None:
    """Serve a folder until the end, or until `--crash-after` completions."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--served-model-name")
    parser.add_argument("--tensor-parallel-size", type=int)
    parser.add_argument("--crash-after", type=int, default=1 << 30)
    given = SimpleNamespace(**vars(parser.parse_args()))
    print("serving with", given, "gpus", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    server = served_lines(given.folder, given.served_model_name)
    server.port = given.port

    def crash(number: int, body: Mapping[str, Any]) -> None:
        if number > given.crash_after:
            print("torch.OutOfMemoryError: CUDA out of memory.", flush=True)
            os._exit(3)

    server.disturb = crash
    asyncio.run(forever(server))


async def forever(server: CompletionServer) -> None:
    await server.listen()
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()
