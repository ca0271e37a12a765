"""What the parts of gpu.py share: shapes, random models and pairs, and the meter."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import MistralConfig, MistralForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from scdpo.policies import Policy
from scdpo.records import Pair, Step
from scdpo.training.tokens import tokenise
from scdpo.training.tree import MaskedIds, Tree, grow, join

Say = Callable[[dict[str, Any]], None]
EOS = "<eos>"
PEAK_TFLOPS = {"H100": 989, "H200": 989, "H800": 989, "GH200": 989, "A100": 312, "A800": 312,
               "B200": 2250, "L40S": 362}  # fmt: skip
"""Dense bf16, by a part of the device's name; the makers' figures for the SXM versions."""
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Shape:
    """A Mistral, and how much is measured with it."""

    hidden: int = 4096
    feed_forward: int = 14336
    layers: int = 32
    heads: int = 32
    kv_heads: int = 8
    words: int = 32000
    device: str = "cuda"
    dtype: torch.dtype = torch.bfloat16
    row: int = 4096
    steps: int = 4
    questions: int = 8
    question_tokens: int = 120
    step_tokens: int = 60
    rows: int = 64


DRY = Shape(
    hidden=64, feed_forward=128, layers=2, heads=4, kv_heads=2, words=1024, device="cpu",
    dtype=torch.float32, row=128, steps=2, questions=2, question_tokens=12, step_tokens=6, rows=4,
)  # fmt: skip


class Meter:
    """Time, tokens a second, MFU and memory from `start` to `stop`."""

    def __init__(self, shape: Shape):
        self._shape = shape
        self._began = 0.0

    def start(self) -> None:
        """From here on."""
        wait()
        reset_memory()
        self._began = time.perf_counter()

    def stop(self, n_tokens: int, flops: int) -> dict[str, Any]:
        """The figures of `n_tokens`, at `flops` operations for each of a weight's uses: 6 where
        all weights are trained, 4 where only an adapter is. What is computed again does not
        count, nor does attention."""
        wait()
        seconds = time.perf_counter() - self._began
        rate = n_tokens / seconds
        shape = self._shape
        size = shape.hidden // shape.heads
        layer = shape.hidden * (
            2 * shape.hidden + 2 * shape.kv_heads * size + 3 * shape.feed_forward
        )
        weights = shape.layers * layer + shape.hidden * shape.words
        peak = peak_tflops()
        mfu = 100 * flops * weights * rate / (peak * 1e12) if peak else None
        return {"s": seconds, "tokens/s": rate, "MFU %": mfu, "peak GiB": peak_memory()}


def random_mistral(shape: Shape, dtype: torch.dtype) -> PreTrainedModel:
    """A Mistral with random weights, made on the device."""
    config = MistralConfig(
        vocab_size=shape.words,
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=8192,
        sliding_window=None,
        bos_token_id=None,
        eos_token_id=shape.words - 1,
        pad_token_id=shape.words - 1,
        dtype=dtype,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(shape.device):
            return MistralForCausalLM(config)
    finally:
        torch.set_default_dtype(before)


def word_tokenizer(shape: Shape) -> PreTrainedTokenizerFast:
    """One token a word: `w0`, `w1`, …"""
    words = {f"w{i}": i for i in range(shape.words - 1)} | {EOS: shape.words - 1}
    made = Tokenizer(models.WordLevel(words, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="w0", eos_token=EOS, pad_token=EOS
    )


def random_pairs(shape: Shape) -> list[Pair]:
    """A naive pair and two step-controlled ones for each question; solutions of six steps."""
    draw = np.random.default_rng(0)

    def words(n: int, last: bool = False) -> str:
        made = "".join(f"w{i} " for i in draw.integers(0, shape.words - 1, n))
        return made + EOS if last else made

    found: list[Pair] = []
    for q in range(shape.questions):
        prompt = words(shape.question_tokens)
        right = [Step(kind="text", text=words(shape.step_tokens, n == 5)) for n in range(6)]
        for k in (0, 2, 4):
            wrong = [Step(kind="text", text=words(shape.step_tokens, n == 5)) for n in range(k, 6)]
            found.append(
                Pair(
                    id=f"{q}-{k}", problem_id=str(q), dataset="random", question=prompt,
                    kind="step_controlled" if k else "naive", format="plain", prompt=prompt,
                    shared=tuple(right[:k]), chosen=tuple(right[k:]), rejected=tuple(wrong),
                    branch_step=k, chosen_id=f"{q}", rejected_id=f"{q}-{k}",
                )
            )  # fmt: skip
    return found


def random_sequences(shape: Shape, questions: int) -> list[list[MaskedIds]]:
    """The sequences of some questions' pairs."""
    many = Shape(**{f: getattr(shape, f) for f in Shape.__slots__} | {"questions": questions})
    policy = Policy("random", None, word_tokenizer(shape))  # type: ignore[arg-type]
    found = tokenise(random_pairs(many), policy.encode, max_length=4096).pairs
    sides = [[pair.chosen, pair.rejected] for pair in found]
    return [[s for two in sides[n : n + 3] for s in two] for n in range(0, len(sides), 3)]


def random_tree(n: int) -> Tree:
    """A row of `n` tokens: questions whose solutions part at several steps."""
    draw = np.random.default_rng(n)
    trees: list[Tree] = []
    left = n
    while left > 0:
        trunk = draw.integers(0, 1000, min(left, 400)).tolist()
        branch = [
            *trunk[: len(trunk) // 2],
            *draw.integers(1000, 2000, min(left // 3, 200)).tolist(),
        ]
        sequences = [(ids, [True] * len(ids)) for ids in (trunk, branch)]
        tree = grow(sequences)
        if len(tree) > left:
            tree = grow([(trunk[:left], [True] * min(left, len(trunk)))])
        trees.append(tree)
        left -= len(tree)
    return join(trees)


@contextmanager
def attempted(what: str, say: Say) -> Iterator[None]:
    """A measurement whose failure is said and does not stop those after it; its memory is freed."""
    try:
        yield
    except Exception as error:  # whatever happens is a result
        traceback.print_exc()
        text = " ".join(str(error).split())[:200]
        say({"failed": f"{what}: {type(error).__name__}: {text}"})
    free()


def free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def reset_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> float | None:
    return torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else None


def peak_tflops() -> int | None:
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((value for part, value in PEAK_TFLOPS.items() if part in name), None)


def seconds_of(call: Callable[[], object], times: int = 5) -> float:
    call()
    wait()
    began = time.perf_counter()
    for _ in range(times):
        call()
    wait()
    return (time.perf_counter() - began) / times


def apart_by(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative difference (L2)."""
    return ((a.double() - b.double()).norm() / b.double().norm()).item()
