"""Memory of training and sampling: the formulas of `scdpo plan` against measurements, and a table.

    python benchmarks/memory.py [--table-only]

First, the bytes that a layer keeps for its backward pass, counted with autograd's hooks, in fp32
and under bf16 autocast. Second, the peak memory of whole trainings and of the engine, each in a
process of its own (its peak resident set, less what was there before the model was made), on a
random policy of 34 M parameters. Third, what the same formulas say for larger policies.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    TrainerCallback,
)

from scdpo.pipeline.planning.hardware import GIB
from scdpo.pipeline.planning.memory import (
    Sampling,
    Training,
    layer_bytes,
    sampling_memory,
    training_memory,
)
from scdpo.pipeline.planning.shapes import SHAPES, Shape, shape_from_config
from scdpo.policies import Policy
from scdpo.training.adapters import with_adapter
from scdpo.training.dpo_config import LoraSettings

MIB = 2**20
SMALL: dict[str, Any] = {
    "vocab_size": 8192,
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
}
FAMILIES: dict[str, type[PreTrainedConfig]] = {
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
}
TRAININGS: dict[str, dict[str, Any]] = {
    "all weights, rows of 1,024": {},
    "all weights, rows of 2,048": {"row_tokens": 2048},
    "… checkpointing": {"row_tokens": 2048, "gradient_checkpointing": True},
    "… selective": {"row_tokens": 2048, "gradient_checkpointing": "selective"},
    "LoRA 16, rows of 2,048": {"row_tokens": 2048, "lora": {"rank": 16}},
    "… checkpointing ": {
        "row_tokens": 2048,
        "lora": {"rank": 16},
        "gradient_checkpointing": True,
    },
}
SAMPLINGS: dict[str, dict[str, int]] = {
    "32 rows, context 512": {"rows": 32, "context": 512},
    "128 rows, context 512": {"rows": 128, "context": 512},
}
LARGE = {
    "135 M": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "1.5 B": "Qwen/Qwen2.5-Math-1.5B-Instruct",
    "7 B": "mistralai/Mistral-7B-v0.1",
    "20 B": "internlm/internlm2-20b",
}


def small(family: str = "llama", **changes: Any) -> PreTrainedConfig:
    """The configuration of the small policy that is measured."""
    more = {"head_dim": 64} if family == "qwen3" else {}
    return FAMILIES[family](**SMALL | more | changes)


def shape_of(config: PreTrainedConfig) -> Shape:
    """The shape that `scdpo plan` reads from a configuration."""
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        return shape_from_config(Path(folder) / "config.json")


# ---- what a layer keeps


def kept_bytes(config: PreTrainedConfig, tokens: int, bf16: bool, rank: int = 0) -> int:
    """Bytes that the layers of a model keep for the backward pass, weights left out."""
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config)
    if rank:
        settings = LoraSettings(rank=rank)
        policy = Policy("small", model, cast(Any, None))
        model = cast(Any, with_adapter(policy, settings, 0)).base_model.model
    weights = {shape for p in model.parameters() for shape in (p.shape, p.shape[::-1])}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    autocast = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
    with saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        output = model.model(input_ids=torch.arange(tokens)[None] % 64, use_cache=False)
    assert output.last_hidden_state.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def layers() -> Iterator[tuple[str, float, float]]:
    """For each family and number format: bytes per token and layer, measured and computed."""
    tokens = 384
    for family in FAMILIES:
        for bf16 in (False, True):
            sizes = [
                kept_bytes(small(family, num_hidden_layers=n, vocab_size=64), tokens, bf16)
                for n in (1, 2)
            ]
            measured = (sizes[1] - sizes[0]) / tokens
            computed = layer_bytes(shape_of(small(family)), bf16)
            yield f"{family}, {'bf16 autocast' if bf16 else 'fp32'}", measured, computed
    for bf16 in (False, True):
        sizes = [
            kept_bytes(small("llama", num_hidden_layers=n, vocab_size=64), tokens, bf16, 16)
            for n in (1, 2)
        ]
        measured = (sizes[1] - sizes[0]) / tokens
        computed = layer_bytes(shape_of(small()), bf16, 16)
        yield f"llama, LoRA 16, {'bf16 autocast' if bf16 else 'fp32'}", measured, computed


# ---- whole trainings, in processes of their own


def resident(peak: bool) -> int:
    """This process's resident set, now or at its peak, in bytes."""
    key = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


class Peak(TrainerCallback):
    """Remembers the peak after the last step, before anything is saved."""

    bytes = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bytes = resident(peak=True)


def train_small(settings: dict[str, Any]) -> int:
    """Peak bytes of a training of the small policy."""
    from scdpo.records import Pair, Step
    from scdpo.training import train

    row = settings.get("row_tokens", 1024)
    draw = torch.Generator().manual_seed(0)

    def step(n: int) -> Step:
        ids = tuple(torch.randint(8, 8000, (n,), generator=draw).tolist())
        return Step(kind="text", text="x", token_ids=ids)

    def pair(number: int) -> Pair:
        prompt = step(row // 8).token_ids
        return Pair(
            id=f"p{number}",
            problem_id=f"q{number}",
            dataset="d",
            question="?",
            kind="naive",
            format="plain",
            prompt="x",
            prompt_ids=prompt,
            chosen=(step(row // 8),),
            rejected=(step(row // 4),),
            chosen_id=f"c{number}",
            rejected_id=f"r{number}",
        )

    from transformers import PreTrainedTokenizerFast

    pairs = [pair(number) for number in range(4)]
    before = resident(peak=False)
    model = AutoModelForCausalLM.from_config(small())
    peak = Peak()
    with tempfile.TemporaryDirectory() as out:
        train(
            model,
            pairs,
            out,
            tokenizer=_tokenizer(PreTrainedTokenizerFast),
            callbacks=[peak],
            epochs=2,
            batch_size=4,
            micro_batch_size=4,
            max_length=row,
            **{"row_tokens": 1024} | settings,
        )
    return peak.bytes - before


def _tokenizer(make: Any) -> Any:
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({"x": 0, "<unk>": 1}, unk_token="<unk>"))
    return make(tokenizer_object=words, unk_token="<unk>", eos_token="x")


def sample_small(settings: dict[str, int]) -> int:
    """Peak bytes of sampling from the small policy until the rows are as long as the context."""
    from transformers import PreTrainedTokenizerFast

    from scdpo.engines import LocalEngine, LocalEngineConfig, Request

    before = resident(peak=False)
    model: Any = AutoModelForCausalLM.from_config(small())
    policy = Policy("small", model, _tokenizer(PreTrainedTokenizerFast))
    rows, context = settings["rows"], settings["context"]
    engine = LocalEngine(policy, LocalEngineConfig(max_rows=rows, cache_mb=0))
    requests = [
        Request(tuple(range(10 + n, context - 6 + n)), ("\n",), (), 1.0, 6, seed=n)
        for n in range(rows)
    ]
    asyncio.run(engine.generate(requests))
    engine.close()
    return resident(peak=True) - before


def in_process(kind: str, settings: dict[str, Any]) -> int:
    """`train_small` or `sample_small` in a fresh process."""
    arguments = [sys.executable, __file__, "--case", json.dumps([kind, settings])]
    # Large blocks go back to the system when they are freed; in glibc's heap they would stay, and
    # the resident set would be that of the worst moment of fragmentation.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout.split()[-1])


def processes() -> Iterator[tuple[str, float, float]]:
    """For each training and sampling: peak bytes, measured and computed."""
    shape = shape_of(small())
    for name, settings in TRAININGS.items():
        measured = in_process("train", settings)
        lora = settings.get("lora") or {}
        training = Training(
            row=settings.get("row_tokens", 1024),
            checkpointing=settings.get("gradient_checkpointing", False),
            bf16=False,
            rank=lora.get("rank", 0),
        )
        yield name, measured, training_memory(shape, training).total
    for name, rows in SAMPLINGS.items():
        measured = in_process("sample", rows)
        yield name, measured, sampling_memory(shape, Sampling(**rows)).total


# ---- the table


def table() -> Iterator[tuple[str, ...]]:
    """GiB on one GPU, as `scdpo plan` computes them: training in rows of 4,096 tokens, of all
    weights and of an adapter, and sampling in bf16 with 64 rows of 1,024 tokens."""
    yield (
        "policy",
        "all weights",
        "… checkpointing",
        "LoRA 16",
        "… ckpt.",
        "QLoRA, ckpt.",
        "sampling",
    )
    for name, policy in LARGE.items():
        shape = SHAPES[policy]
        trainings = [
            Training(row=4096),
            Training(row=4096, checkpointing=True),
            Training(row=4096, rank=16),
            Training(row=4096, rank=16, checkpointing=True),
            Training(row=4096, rank=16, four_bits=True, checkpointing=True),
        ]
        sizes = [training_memory(shape, training).total for training in trainings]
        sizes.append(sampling_memory(shape, Sampling(rows=64, context=2048, number=2)).total)
        yield name, *(f"{size / GIB:.1f}" for size in sizes)


def main() -> None:
    """Print all three parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table-only", action="store_true")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.case:
        kind, settings = json.loads(options.case)
        print((train_small if kind == "train" else sample_small)(settings))
        return
    if not options.table_only:
        print(f"{'a layer keeps, bytes per token':34}{'measured':>12}{'computed':>12}")
        for name, measured, computed in layers():
            print(f"{name:34}{measured:>12,.0f}{computed:>12,}")
        print(f"\n{'peak, MiB':34}{'measured':>12}{'computed':>12}{'off':>8}")
        for name, measured, computed in processes():
            sizes = f"{measured / MIB:>12,.0f}{computed / MIB:>12,.0f}"
            print(f"{name:34}{sizes}{100 * (computed / measured - 1):>+7.0f}%", flush=True)
        print()
    for line in table():
        print("".join(f"{cell:>16}" for cell in line))


if __name__ == "__main__":
    main()
