"""A tiny random policy and a scripted one, in folders of their own and behind servers."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from completion_server import CompletionServer, likeliest
from lines_server import EOS
from scdpo.engines import LocalEngine, LocalEngineConfig
from scdpo.formats import get_format
from scdpo.policies import Policy, save_policy

BLOCKS = get_format("blocks", system="")
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


def lines_policy(folder: Path) -> Path:
    """The folder of the policy that writes `lines`."""
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(folder)
    eos = tokenizer.eos_token_id
    LlamaConfig(max_position_embeddings=4096, eos_token_id=eos).save_pretrained(folder)
    return folder
