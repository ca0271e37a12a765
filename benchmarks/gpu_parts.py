"""The parts of gpu.py: each measures something and says its figures as it goes."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engine import N_STEPS, first_step, step_loop
from gpu_attention import attention
from gpu_shared import (
    DRY,
    Meter,
    Say,
    Shape,
    attempted,
    free,
    peak_memory,
    random_mistral,
    random_pairs,
    random_sequences,
    reset_memory,
    wait,
    word_tokenizer,
)
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from scdpo.engines import LocalEngine, LocalEngineConfig
from scdpo.policies import Policy, save_policy
from scdpo.records import Pair
from scdpo.training import PreferenceTrainer, tree_attention, tree_logps
from scdpo.training.adapters import load_in_four_bits, with_adapter
from scdpo.training.dpo_config import DPOConfig, LoraSettings
from scdpo.training.recomputing import enable_checkpointing
from scdpo.training.tokens import PairTokens, tokenise


def run(part: str, dry: bool, say: Say) -> None:
    """Measure a part. Raises whatever goes wrong in it."""
    shape = DRY if dry else Shape()
    if not dry:
        if not torch.cuda.is_available():
            raise RuntimeError("there is no GPU that torch can use here; --dry tries it on the CPU")
        name = torch.cuda.get_device_name()
        say({"what": "device", "name": name, "torch": torch.__version__})
    PARTS[part](shape, say)


# ---- training


def training(shape: Shape, say: Say) -> None:
    """All weights in bf16, packed rows, gradient checkpointing; AdamW with bf16 states, which a
    real training should not have, but which fits one GPU."""
    model = random_mistral(shape, shape.dtype)
    enable_checkpointing(model, True)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=shape.device == "cuda")
    per_row = max(shape.row // (4 * shape.step_tokens), 2)
    sequences = [s for q in random_sequences(shape, per_row) for s in q[:1]]
    fits = np.cumsum([len(ids) for ids, _ in sequences]) <= shape.row
    sequences = sequences[: max(int(fits.sum()), 1)]
    n_tokens = sum(len(ids) for ids, _ in sequences)
    counted = sum(sum(mask[1:]) for _, mask in sequences)
    for backend in ("flex", "sdpa") if shape.device == "cuda" else ("paths", "sdpa"):
        what = f"all weights, bf16, row of {n_tokens}, {backend}"
        meter = Meter(shape)
        with attempted(what, say):
            for n in range(shape.steps + 1):
                if n == 1:
                    meter.start()
                with tree_attention(model, attention=backend):  # type: ignore[arg-type]
                    logps = tree_logps(model, sequences, attention=backend)  # type: ignore[arg-type]
                    loss = -logps.sum() / counted
                    loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            figures = meter.stop(n_tokens * shape.steps, flops=6)
            say({"what": what, **figures, "loss": loss.item()})


# ---- pairs


def pairs(shape: Shape, say: Say) -> None:
    """A step's pairs with an adapter: over trees, pair by pair, and by TRL."""
    tokenizer = word_tokenizer(shape)
    made = random_pairs(shape)
    ours = Policy("random", None, tokenizer)  # type: ignore[arg-type]
    tokens = tokenise(made, ours.encode, max_length=4096, score_output=True).pairs
    settings = {"trees": ("tree", 1), "pairs, 2 at a time": ("pairs", 2)}
    for name, (computation, size) in settings.items():
        with attempted(name, say):
            _ours(shape, name, tokens, computation, size, say)
    with attempted("TRL", say):
        _trl(shape, made, tokens, tokenizer, say)


def _ours(
    shape: Shape, name: str, tokens: Sequence[PairTokens], computation: str, size: int, say: Say
) -> None:
    policy = Policy("random", random_mistral(shape, shape.dtype), word_tokenizer(shape))
    _adapter_training(shape, name, policy, tokens, say, computation=computation,
                      micro_batch_size=size, lora=LoraSettings())  # fmt: skip


def _adapter_training(
    shape: Shape,
    name: str,
    policy: Policy,
    tokens: Sequence[PairTokens],
    say: Say,
    **settings: Any,
) -> None:
    """`PreferenceTrainer` on all pairs in one step, which is then repeated."""
    config = DPOConfig(
        batch_size=len(tokens),
        epochs=shape.steps + 1,
        learning_rate=1e-5,
        max_length=4096,
        row_tokens=shape.row,
        score_output=True,
        checkpoint_steps=1_000_000,
        **settings,
    )
    meter = Meter(shape)
    separate = sum(len(p.chosen[0]) + len(p.rejected[0]) for p in tokens)
    model = with_adapter(policy, config.lora, 0)

    def stepped(done: int, total: int) -> None:
        if done == 1:
            meter.start()
        elif done == total:
            measured.update(meter.stop(separate * shape.steps, flops=4))

    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        trainer = PreferenceTrainer(model, tokens, config, Path(folder), progress=stepped)
        trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    saved = trainer.tokens_saved
    if saved:  # of the work, not of the pairs
        measured["MFU %"] = (measured["MFU %"] or 0) * (1 - saved) or None
    attention = trainer.scoring.backend if trainer.scoring else "padded"
    what = f"{name} ({attention}), {len(tokens)} pairs, {separate} tokens"
    figures = {"tokens saved %": 100 * saved, "loss": losses[-1]}
    say({"what": what, **measured, **figures, "reference s": trainer.reference.seconds})


def _trl(
    shape: Shape,
    made: Sequence[Pair],
    tokens: Sequence[PairTokens],
    tokenizer: PreTrainedTokenizerFast,
    say: Say,
) -> None:
    """TRL's DPOTrainer on the same pairs, reference log-probs computed before."""
    try:
        import datasets
        import trl
        from peft import LoraConfig
    except ImportError as error:
        say({"what": f"TRL: not measured ({error})"})
        return
    from transformers import PrinterCallback, TrainerCallback

    datasets.disable_progress_bars()
    ours, meter, measured = LoraSettings(), Meter(shape), {}
    separate = sum(len(p.chosen[0]) + len(p.rejected[0]) for p in tokens)
    size = 4 if shape.device == "cuda" else 1

    class Steps(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # fmt: skip
            if state.global_step == 1:
                meter.start()
            elif state.global_step == state.max_steps:
                measured.update(meter.stop(separate * shape.steps, flops=4))

    with tempfile.TemporaryDirectory() as folder:
        arguments = trl.DPOConfig(
            output_dir=folder,
            beta=DPOConfig().beta,
            max_length=4096,
            learning_rate=1e-5,
            num_train_epochs=shape.steps + 1,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=max(len(tokens) // size, 1),
            gradient_checkpointing=False,
            precompute_ref_log_probs=True,
            bf16=shape.device == "cuda",
            use_cpu=shape.device == "cpu",
            dataloader_pin_memory=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = trl.DPOTrainer(
            model=random_mistral(shape, shape.dtype),
            args=arguments,
            train_dataset=datasets.Dataset.from_list([_row(pair) for pair in made]),
            processing_class=tokenizer,
            callbacks=[Steps()],
            peft_config=LoraConfig(
                r=ours.rank, lora_alpha=ours.alpha, target_modules=ours.targets,
                lora_dropout=0.0, task_type="CAUSAL_LM",
            ),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    what = f"TRL {trl.__version__}, {size} at a time, {len(tokens)} pairs, {separate} tokens"
    say({"what": what, **measured, "loss": losses[-1]})


def _row(pair: Pair) -> dict[str, str]:
    sides = {"chosen": pair.chosen, "rejected": pair.rejected}
    texts = {name: "".join(step.text for step in steps) for name, steps in sides.items()}
    return texts | {"prompt": pair.prompt + "".join(step.text for step in pair.shared)}


# ---- engine


def engine(shape: Shape, say: Say) -> None:
    """Tokens a second in a loop of steps, next to transformers' generate()."""
    policy = Policy("random", random_mistral(shape, shape.dtype).eval(), word_tokenizer(shape))
    start = first_step(shape.rows)
    n_tokens = sum(request.max_tokens for request in start)
    last = start
    for name, cache in (("engine, prefix cache", 16 * 1024), ("engine, no prefix cache", 0)):
        config = LocalEngineConfig(
            max_rows=shape.rows, cache_mb=cache if shape.device == "cuda" else min(cache, 64),
            max_context=1024, device=shape.device,
        )  # fmt: skip
        with LocalEngine(policy, config=config) as ours:
            asyncio.run(ours.generate(start[:4]))
            ours.clear()
            reset_memory()
            seconds, last = step_loop(ours, start)
            say({"what": f"{name}, {shape.rows} rows", "first step tokens/s": n_tokens / seconds[0],
                 "last step tokens/s": n_tokens / seconds[-1],
                 "all steps tokens/s": N_STEPS * n_tokens / sum(seconds),
                 "peak GiB": peak_memory()})  # fmt: skip
        free()
    reset_memory()
    seconds = [_generate(policy.model, step, shape.device) for step in (start, last)]
    say({"what": f"generate(), {shape.rows} rows", "first step tokens/s": n_tokens / seconds[0],
         "last step tokens/s": n_tokens / seconds[-1], "peak GiB": peak_memory()})  # fmt: skip


def _generate(model: PreTrainedModel, requests: Sequence[Any], device: str) -> float:
    width = max(len(request.prompt_ids) for request in requests)
    ids = torch.zeros(len(requests), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, request in enumerate(requests):
        ids[i, -len(request.prompt_ids) :] = torch.tensor(request.prompt_ids)
        mask[i, -len(request.prompt_ids) :] = 1
    longest = max(request.max_tokens for request in requests)
    wait()
    began = time.perf_counter()
    model.generate(  # type: ignore[operator]
        ids.to(device), attention_mask=mask.to(device), max_new_tokens=longest, do_sample=True,
        top_k=0, pad_token_id=0, eos_token_id=None,
    )  # fmt: skip
    wait()
    return time.perf_counter() - began


# ---- QLoRA


def qlora(shape: Shape, say: Say) -> None:
    """An adapter over weights in 4 bits; half the layers, as the weights go over the disk."""
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        say({"what": f"QLoRA: not measured ({error})"})
        return
    half = Shape(**{f: getattr(shape, f) for f in Shape.__slots__} | {"layers": shape.layers // 2})
    with tempfile.TemporaryDirectory() as folder:
        policy = Policy("random", random_mistral(half, half.dtype), word_tokenizer(half))
        save_policy(policy, Path(folder))
        del policy
        free()
        loaded = load_in_four_bits(folder, shape.device)
    tokens = tokenise(random_pairs(half), loaded.encode, max_length=4096, score_output=True).pairs
    _adapter_training(half, f"trees, nf4, {half.layers} layers", loaded, tokens, say,
                      computation="tree", lora=LoraSettings(quantize=True))  # fmt: skip


PARTS = {
    "attention": attention,
    "training": training,
    "pairs": pairs,
    "engine": engine,
    "qlora": qlora,
}
