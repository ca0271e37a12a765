"""A tiny random policy and a scripted one, in folders of their own and behind servers."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from completion_server import CompletionServer, Worded, likeliest
from scdpo.engines import LocalEngine, LocalEngineConfig, Request, ScriptedEngine
from scdpo.formats import get_format
from scdpo.policies import Policy, load_tokenizer, save_policy

BLOCKS = get_format("blocks", system="")
EOS = "<|eos|>"
LINES = get_format("plain", end=[EOS], template="Q: {question}\nA: ")
CONTEXT = 160


def byte_tokenizer(turned: int = 0) -> PreTrainedTokenizerFast:
    """One token a byte, and the markers of `blocks` with an EOS; `turned` gives other ids."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    alphabet = alphabet[turned:] + alphabet[:turned]
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    markers = [*BLOCKS.special_tokens, EOS]
    tokenizer.add_special_tokens([AddedToken(m, special=True, normalized=False) for m in markers])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS)


def tiny_policy(folder: Path) -> Policy:
    """A random policy in a folder, which writes any byte as gladly as another."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=CONTEXT,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        # Far from uniform, so that greedy choices do not hang on rounding.
        initializer_range=0.3,
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    policy = Policy(str(folder), model, tokenizer)
    save_policy(policy, folder)
    return policy


def served_tiny(
    policy: Policy, *, context: int | None = CONTEXT, key: str = ""
) -> CompletionServer:
    """A server of the tiny policy."""
    engine = LocalEngine(policy, LocalEngineConfig())
    top = likeliest(policy)
    where = {"name": "tiny", "root": policy.name, "context": context}
    return CompletionServer(engine, policy.tokenizer, top=top, key=key, **where)  # type: ignore[arg-type]


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


def served_lines(folder: Path) -> CompletionServer:
    """A server of the policy that writes `lines`, whose folder has a tokenizer and no weights."""
    scripted = ScriptedEngine(lines, special_tokens=[EOS], max_context=4096)
    tokenizer = load_tokenizer(folder)
    engine = Worded(scripted, tokenizer)
    return CompletionServer(engine, tokenizer, name="lines", root=str(folder), context=4096)


def lines_policy(folder: Path) -> Path:
    """The folder of the policy that writes `lines`."""
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(folder)
    eos = tokenizer.eos_token_id
    LlamaConfig(max_position_embeddings=4096, eos_token_id=eos).save_pretrained(folder)
    return folder
