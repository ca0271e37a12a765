"""Tokens a second of the in-process engine in a step loop, beside transformers' generate().

    python benchmarks/engine.py [--rows 200] [--max-rows 256] [--kv-heads 5] [--threads 2]

A random Llama of about 2 M parameters; each rollout starts from its own prompt of about 100
tokens and takes 6 steps of 15 to 35 tokens, with 6 tokens of the host after each. generate()
pads the batch, recomputes the prompts and runs every row for the longest step, so it is timed on
the first and on the last step only; tokens that a row did not ask for are not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from scdpo.engines import LocalEngine, LocalEngineConfig, Request
from scdpo.policies import Policy

N_STEPS, HOST_TOKENS = 6, 6


def random_policy(kv_heads: int) -> Policy:
    """A Llama with random weights and a tokenizer of 1,024 words."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=160,
        intermediate_size=480,
        num_hidden_layers=5,
        num_attention_heads=5,
        num_key_value_heads=kv_heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(1024)}, unk_token="w0"))
    model = LlamaForCausalLM(config).eval()
    return Policy("random", model, PreTrainedTokenizerFast(tokenizer_object=words))


def first_step(n_rows: int) -> list[Request]:
    """Requests with prompts of 60 to 140 tokens and 15 to 35 tokens to sample."""
    draw = np.random.default_rng(0)
    return [
        Request(
            prompt_ids=tuple(draw.integers(0, 1024, draw.integers(60, 141)).tolist()),
            stop=(),
            end=(),
            temperature=1.0,
            max_tokens=int(draw.integers(15, 36)),
            seed=i,
        )
        for i in range(n_rows)
    ]


def step_loop(engine: LocalEngine, requests: list[Request]) -> tuple[list[float], list[Request]]:
    """Seconds of each step, and the requests of the last one."""
    seconds: list[float] = []
    host = tuple(range(HOST_TOKENS))
    for _ in range(N_STEPS):
        asked = requests
        begin = time.perf_counter()
        done = asyncio.run(engine.generate(asked))
        seconds.append(time.perf_counter() - begin)
        requests = [
            replace(
                request,
                prompt_ids=request.prompt_ids + completion.token_ids + host,
                position=request.position + len(completion.token_ids),
            )
            for request, completion in zip(asked, done, strict=True)
        ]
    return seconds, asked


def plain_generate(policy: Policy, requests: list[Request]) -> None:
    """One step with transformers' own generate(), prompts padded on the left."""
    width = max(len(request.prompt_ids) for request in requests)
    ids = torch.zeros(len(requests), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, request in enumerate(requests):
        ids[i, -len(request.prompt_ids) :] = torch.tensor(request.prompt_ids)
        mask[i, -len(request.prompt_ids) :] = 1
    longest = max(request.max_tokens for request in requests)
    policy.model.generate(
        ids, attention_mask=mask, max_new_tokens=longest, do_sample=True, top_k=0, pad_token_id=0
    )


def timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--max-rows", type=int, default=LocalEngineConfig().max_rows)
    parser.add_argument("--kv-heads", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    policy = random_policy(args.kv_heads)
    start = first_step(args.rows)
    n_tokens = sum(request.max_tokens for request in start)
    n_parameters = sum(p.numel() for p in policy.model.parameters())
    print(
        f"{n_parameters / 1e6:.1f} M parameters, {args.rows} rows ({args.max_rows} at a time), "
        f"{n_tokens} tokens a step, {args.threads} threads"
    )
    print(f"{'':34}{'first step':>12}{'last step':>12}{'all steps':>12}   tokens/s")
    last = start
    for name, cache_mb in (("engine, prefix cache", 512), ("engine, no prefix cache", 0)):
        config = LocalEngineConfig(max_rows=args.max_rows, cache_mb=cache_mb, device="cpu")
        engine = LocalEngine(policy, config=config)
        asyncio.run(engine.generate(start[:4]))
        engine.clear()
        seconds, last = step_loop(engine, start)
        engine.close()
        cells = [n_tokens / seconds[0], n_tokens / seconds[-1], n_tokens * N_STEPS / sum(seconds)]
        print(f"{name:34}" + "".join(f"{cell:12.0f}" for cell in cells), flush=True)
    cells = [
        n_tokens / timed(lambda step=step: plain_generate(policy, step)) for step in (start, last)
    ]
    print(f"{'transformers generate()':34}" + "".join(f"{cell:12.0f}" for cell in cells))


if __name__ == "__main__":
    main()
