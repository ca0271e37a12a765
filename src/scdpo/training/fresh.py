"""A new small policy: a tokenizer trained on texts and a randomly initialised model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from scdpo.policies import Policy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class FreshPolicyConfig(BaseModel):
    """Shape of a new Llama-architecture policy and of its byte-level BPE tokenizer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocab_size: int = Field(1024, ge=300, description="Tokens of the tokenizer, markers included.")
    hidden_size: int = Field(160, ge=16, description="Width of the hidden states.")
    layers: int = Field(5, ge=1, description="Number of decoder layers.")
    heads: int = Field(5, ge=1, description="Attention heads of a layer.")
    kv_heads: int = Field(1, ge=1, description="Key and value heads of a layer.")
    intermediate_size: int = Field(432, ge=16, description="Width of the feed-forward layers.")
    max_context: int = Field(768, ge=64, description="Longest text in tokens.")
    seed: int = Field(0, description="Seed of the initial weights.")


def fresh_policy(
    texts: Iterable[str], special_tokens: Sequence[str], end: str, config: FreshPolicyConfig
) -> Policy:
    """A tokenizer trained on `texts`, and a random model with its vocabulary.

    Every digit is a token of its own, so that numbers are read and copied digit by digit. `end`
    is the end-of-solution token and one of `special_tokens`.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer(texts, special_tokens, end, config)
    torch.manual_seed(config.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=config.max_context,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    return Policy(name="fresh", model=model, tokenizer=tokenizer)


def _tokenizer(
    texts: Iterable[str], special_tokens: Sequence[str], end: str, config: FreshPolicyConfig
) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pad = "<|pad|>"
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=[pad, *special_tokens],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe,
        eos_token=end,
        pad_token=pad,
        model_max_length=config.max_context,
        clean_up_tokenization_spaces=False,
    )
