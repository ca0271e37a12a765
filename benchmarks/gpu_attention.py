"""FlexAttention over token trees, next to sdpa: a part of gpu.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from gpu_shared import (
    Say,
    Shape,
    apart_by,
    attempted,
    random_mistral,
    random_sequences,
    random_tree,
    seconds_of,
    wait,
)
from torch.nn import functional as F
from transformers import MistralConfig

from scdpo.training import tree_logps
from scdpo.training.attention import attention_inputs
from scdpo.training.tree import Tree


def attention(shape: Shape, say: Say) -> None:
    """FlexAttention over token trees next to sdpa with a dense mask, forward and backward."""
    lengths = (1024, 2048, 4096, 8192) if shape.device == "cuda" else (96,)
    for dtype in (torch.bfloat16, torch.float32) if shape.device == "cuda" else (torch.float32,):
        for n in lengths if dtype == torch.bfloat16 else lengths[:1]:
            with attempted(f"{dtype}, row of {n}", say):
                _attend(shape, random_tree(n), dtype, say)
    if shape.device == "cuda":
        with attempted("flex, rows of different lengths", say):
            _many_lengths(shape, say)
    _through_a_model(shape, say)


def _attend(shape: Shape, tree: Tree, dtype: torch.dtype, say: Say) -> None:
    """The errors of both against sdpa in fp32 on the same numbers, and their times."""
    inputs = _states(shape, len(tree), dtype)
    config = MistralConfig(sliding_window=None)
    masks = {
        kind: attention_inputs(tree, kind, config, shape.device)["attention_mask"]
        for kind in ("sdpa", "flex")
    }
    exact = _values(_sdpa, masks["sdpa"], [t.float() for t in inputs])
    for name, call in (("sdpa", _sdpa), ("flex", _flex(shape.device))):
        # FlexAttention has no backward pass on a CPU.
        backward = name == "sdpa" or shape.device == "cuda"
        found = _values(call, masks[name], inputs, backward=backward)
        seconds = seconds_of(
            lambda c=call, m=masks[name], b=backward: _values(c, m, inputs, backward=b)
        )
        parts = zip(("out", "d query", "d key", "d value"), found, exact, strict=False)
        errors = {f"error {what}": apart_by(a, b) for what, a, b in parts}
        what = f"{name}, {str(dtype).removeprefix('torch.')}, row of {len(tree)}"
        say({"what": what, **errors, "ms": 1000 * seconds})


def _flex(device: str) -> Callable[..., torch.Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    # Not compiled it computes the whole product: what a CPU can try in a moment.
    call = torch.compile(flex_attention) if device == "cuda" else flex_attention
    return lambda q, k, v, mask: call(q, k, v, block_mask=mask, enable_gqa=True)


def _sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any) -> torch.Tensor:
    groups = q.shape[1] // k.shape[1]
    k, v = (t.repeat_interleave(groups, dim=1) for t in (k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _states(shape: Shape, n: int, dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(0)
    size = shape.hidden // shape.heads
    heads = (shape.heads, shape.kv_heads, shape.kv_heads)
    return [torch.randn(1, h, n, size, device=shape.device).to(dtype) for h in heads]


def _values(
    call: Callable[..., torch.Tensor],
    mask: Any,
    inputs: Sequence[torch.Tensor],
    *,
    backward: bool = True,
) -> list[torch.Tensor]:
    """The result and, with `backward`, the gradients of query, key and value."""
    leaves = [t.detach().clone().requires_grad_(backward) for t in inputs]
    out = call(*leaves, mask)
    if not backward:
        return [out.detach()]
    weights = torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape).to(out.dtype)
    out.backward(weights)
    return [out.detach(), *(t.grad for t in leaves if t.grad is not None)]


def _many_lengths(shape: Shape, say: Say, first: int = 1000, apart: int = 250) -> None:
    """Rows of many lengths, as a training has them. They should be compiled twice, for the first
    length and then for any; where it goes on, torch would give up and compute whole products."""
    import torch._dynamo
    from torch.nn.attention.flex_attention import flex_attention

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    on_gpu = shape.device == "cuda"
    call = torch.compile(flex_attention, **({} if on_gpu else {"backend": "aot_eager"}))
    began = time.perf_counter()
    lengths = range(first, first + 12 * apart, apart)
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        for n in lengths:
            config = MistralConfig(sliding_window=None)
            mask = attention_inputs(random_tree(n), "flex", config, shape.device)["attention_mask"]
            states = _states(shape, n, shape.dtype)
            run_it = lambda q, k, v, m: call(q, k, v, block_mask=m, enable_gqa=True)  # noqa: E731
            _values(run_it, mask, states, backward=on_gpu)
    wait()
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    ms = 1000 * (time.perf_counter() - began)
    say({"what": f"flex, {len(lengths)} row lengths", "ms": ms, "compiled": graphs})


def _through_a_model(shape: Shape, say: Say) -> None:
    """Log-probs and their gradient through two layers, over trees and one by one."""
    small = Shape(**{f: getattr(shape, f) for f in Shape.__slots__} | {"layers": 2})
    model = random_mistral(small, torch.float32).eval()
    sequences = random_sequences(small, 1)[0]
    backends = ("flex", "sdpa", "paths") if shape.device == "cuda" else ("sdpa", "paths")

    def gradient(backend: str | None) -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        if backend is None:
            logps = torch.cat([tree_logps(model, [s], attention="sdpa") for s in sequences])
        else:
            logps = tree_logps(model, sequences, attention=backend)  # type: ignore[arg-type]
        (logps * torch.linspace(-1, 1, len(logps), device=logps.device)).sum().backward()
        grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        return logps.detach(), torch.cat(grads)

    alone, of_alone = gradient(None)
    for backend in backends:
        what = f"log-probs of a tree, {backend}, fp32, 2 layers"
        with attempted(what, say):
            found, of_found = gradient(backend)
            errors = {"out": apart_by(found, alone), "gradient": apart_by(of_found, of_alone)}
            say({"what": what, **{f"error {name}": value for name, value in errors.items()}})
