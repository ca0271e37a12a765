"""Tiny policies of real architectures, and data small enough for whole runs of the recipes.

A policy that solves anything has to have learned it. These learn four sums by heart, from solutions
of which some are wrong: so a greedy answer is right, and samples are right and wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from scdpo.formats.blocks import SYSTEM
from scdpo.pipeline.recipe import Recipe
from scdpo.policies import Policy, save_policy

SUMS = ((2, 3), (4, 1), (6, 2), (5, 4))
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True, slots=True)
class Family:
    """An architecture, and what its tokenizer has: markers, EOS, whether BOS begins every text."""

    config: type[PreTrainedConfig]
    eos: str
    markers: tuple[str, ...] = ()
    bos: str | None = None
    template: str | None = None
    context: int = 4096
    sizes: tuple[tuple[str, object], ...] = ()


CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHAT = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
FAMILIES = {
    # Mistral 0.1 attends to 4,096 tokens of its 32,768.
    "mistral": Family(
        MistralConfig, "</s>", ("<s>", "</s>"), "<s>", None, 32768, (("sliding_window", 4096),)
    ),
    "internlm2": Family(LlamaConfig, "</s>", ("<s>", "</s>"), "<s>", None, 32768),
    "qwen2": Family(Qwen2Config, "<|im_end|>", CHAT, None, CHATML),
    "qwen3": Family(Qwen3Config, "<|im_end|>", CHAT, None, CHATML, 40960, (("head_dim", 16),)),
    "llama": Family(LlamaConfig, "<|im_end|>", CHAT, None, CHATML, 8192),
}


def question(a: int, b: int) -> str:
    """A question of the tiny data sets."""
    return f"What is {a} + {b} ?"


OPENINGS = ("We add the numbers.", "The sum is asked for.", "Let us count.")


def steps_of(a: int, b: int, said: int, opening: str, format: str) -> list[dict[str, str]]:
    """The steps of a solution that says `said`."""
    if format == "plain":
        return [
            {"text": line} for line in (opening, f"{a} + {b} = {said}", f"The answer is: {said}")
        ]
    # Wrong programs add one.
    code = f"print({a} + {b}{' + 1' * (said - a - b)})"
    program = {"code": code, "output": f"{said}"}
    answer = {"text": f"The answer is \\boxed{{{said}}}."}
    if format == "blocks":
        return [{"text": opening}, program, answer]
    return [{"text": opening} | program, answer]


def demonstrations(format: str) -> Iterator[dict[str, Any]]:
    """Rows without gold answers: for each sum, three right solutions and a wrong one."""
    for number, (a, b) in enumerate(SUMS):
        for opening in OPENINGS:
            yield {
                "question": question(a, b),
                "steps": steps_of(a, b, a + b, opening, format),
            }
        opening = OPENINGS[number % len(OPENINGS)]
        yield {"question": question(a, b), "steps": steps_of(a, b, a + b + 1, opening, format)}


def make_policy(path: Path, family: Family, texts: list[str]) -> Path:
    """A random policy of a family in a folder, with a tokenizer that was trained on `texts`."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<unk>", *family.markers],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    if family.bos:
        bpe.post_processor = TemplateProcessing(
            single=f"{family.bos} $A", special_tokens=[(family.bos, bpe.token_to_id(family.bos))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        unk_token="<unk>",
        bos_token=family.bos,
        eos_token=family.eos,
        pad_token=family.eos,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = family.template
    torch.manual_seed(1)
    config = family.config(
        vocab_size=len(tokenizer),
        max_position_embeddings=family.context,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **SIZES | dict(family.sizes),
    )
    save_policy(Policy(str(path), AutoModelForCausalLM.from_config(config), tokenizer), path)
    return path


def texts_of(recipe: Recipe) -> list[str]:
    """What a tokenizer should know: prompts and solutions in the recipe's format."""
    written = [step for row in demonstrations(recipe.format.name) for step in row["steps"]]
    words = [part for step in written for part in step.values()]
    return [*words, *(question(a, b) for a, b in SUMS), *_prompt_words(recipe)] * 4


def _prompt_words(recipe: Recipe) -> list[str]:
    choice = recipe.format
    return [SYSTEM, choice.system or "", choice.template or "", "system\nuser\nassistant\n"]


# ---- data sets, as their authors publish them


def gsm8k(a: int, b: int) -> dict[str, object]:
    return {
        "question": question(a, b),
        "answer": f"{a}+{b}=<<{a}+{b}={a + b}>>{a + b}\n#### {a + b}",
    }


def math(a: int, b: int) -> dict[str, object]:
    solved = f"We have $\\boxed{{{a + b}}}$."
    return {"problem": question(a, b), "solution": solved, "level": "Level 1", "type": "Algebra"}


def math500(a: int, b: int) -> dict[str, object]:
    return math(a, b) | {"answer": f"{a + b}", "level": 1, "subject": "Algebra"}


def ape210k(a: int, b: int) -> dict[str, object]:
    return {"original_text": question(a, b), "ans": f"{a + b}", "equation": f"x={a}+{b}"}


def cmath(a: int, b: int) -> dict[str, object]:
    return {"question": question(a, b), "golden": f"{a + b}", "grade": 1}


def svamp(a: int, b: int) -> dict[str, object]:
    return {
        "Body": "Sums.",
        "Question": question(a, b),
        "Answer": a + b,
        "Equation": "",
        "Type": "Addition",
    }


ROWS = {f.__name__: f for f in (gsm8k, math, math500, ape210k, cmath, svamp)}


def write_problems(folder: Path, source: str) -> Path:
    """All sums as a data set in its own layout; returns its file."""
    path = folder / f"{source}.jsonl"
    if source.startswith("mgsm"):
        path = path.with_suffix(".tsv")
        path.write_text("".join(f"{question(a, b)}\t{a + b}\n" for a, b in SUMS))
    else:
        rows = [ROWS[source](a, b) for a, b in SUMS]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_demonstrations(path: Path, format: str) -> Path:
    """The rows to learn from, in layout question-steps."""
    path.write_text("".join(json.dumps(row) + "\n" for row in demonstrations(format)))
    return path
