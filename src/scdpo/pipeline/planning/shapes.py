"""Shapes of causal language models of Llama's kind, from a table or from a config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scdpo.errors import InputError
from scdpo.policies import EMBEDDED, policy_path
from scdpo.records import Record


class Shape(Record):
    """The sizes that memory and computation follow from; `head_dim` is that of one head."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    context: int
    tied: bool = False
    """Whether the output embeddings are the input embeddings."""
    qkv_bias: bool = False
    qk_norm: bool = False
    """Whether queries and keys are normalised per head (Qwen3)."""

    @property
    def query(self) -> int:
        """Width of the queries of all heads."""
        return self.heads * self.head_dim

    @property
    def kv(self) -> int:
        """Width of the keys (or values) of all heads."""
        return self.kv_heads * self.head_dim

    @property
    def layer_matrices(self) -> int:
        """Parameters in the weight matrices of one layer."""
        attention = 2 * self.hidden * (self.query + self.kv)
        return attention + 3 * self.hidden * self.intermediate

    @property
    def embeddings(self) -> int:
        """Parameters of one embedding matrix."""
        return self.vocab * self.hidden

    @property
    def matrices(self) -> int:
        """Parameters that a token is multiplied with: layers and output embeddings."""
        return self.layers * self.layer_matrices + self.embeddings

    @property
    def parameters(self) -> int:
        """All parameters."""
        small = 2 * self.hidden
        small += (self.query + 2 * self.kv) * self.qkv_bias + 2 * self.head_dim * self.qk_norm
        layers = self.layers * (self.layer_matrices + small)
        return layers + self.hidden + self.embeddings * (1 if self.tied else 2)

    def adapter(self, rank: int) -> int:
        """Parameters of low-rank adapters on all linear layers but the output embeddings."""
        h, f = self.hidden, self.intermediate
        ends = (h + self.query) * 2 + (h + self.kv) * 2 + (h + f) * 3
        return self.layers * rank * ends


def _llama(
    hidden: int, layers: int, heads: int, kv: int, ffn: int, vocab: int, ctx: int, **more: Any
) -> Shape:
    return Shape(
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv,
        intermediate=ffn,
        vocab=vocab,
        context=ctx,
        **({"head_dim": hidden // heads} | more),
    )


_MISTRAL = (4096, 32, 32, 8, 14336)
SHAPES: dict[str, Shape] = {
    "mistralai/Mistral-7B-v0.1": _llama(*_MISTRAL, 32000, 32768),
    "meta-math/MetaMath-Mistral-7B": _llama(*_MISTRAL, 32001, 32768),
    "internlm/internlm2-20b": _llama(6144, 48, 48, 8, 16384, 92544, 32768),
    "internlm/internlm2-7b": _llama(4096, 32, 32, 8, 14336, 92544, 32768),
    "Qwen/Qwen2.5-Math-1.5B-Instruct": _llama(
        1536, 28, 12, 2, 8960, 151936, 4096, tied=True, qkv_bias=True
    ),
    "Qwen/Qwen2.5-Math-7B-Instruct": _llama(3584, 28, 28, 4, 18944, 152064, 4096, qkv_bias=True),
    "Qwen/Qwen3-0.6B": _llama(
        1024, 28, 16, 8, 3072, 151936, 40960, head_dim=128, tied=True, qk_norm=True
    ),
    "Qwen/Qwen3-1.7B": _llama(
        2048, 28, 16, 8, 6144, 151936, 40960, head_dim=128, tied=True, qk_norm=True
    ),
    "Qwen/Qwen3-4B": _llama(
        2560, 36, 32, 8, 9728, 151936, 40960, head_dim=128, tied=True, qk_norm=True
    ),
    "Qwen/Qwen3-8B": _llama(4096, 36, 32, 8, 12288, 151936, 40960, head_dim=128, qk_norm=True),
    "meta-llama/Llama-3.2-1B-Instruct": _llama(
        2048, 16, 32, 8, 8192, 128256, 131072, head_dim=64, tied=True
    ),
    "meta-llama/Llama-3.1-8B-Instruct": _llama(4096, 32, 32, 8, 14336, 128256, 131072),
    "deepseek-ai/deepseek-math-7b-instruct": _llama(4096, 30, 32, 32, 11008, 102400, 4096),
    "HuggingFaceTB/SmolLM2-135M-Instruct": _llama(576, 30, 9, 3, 1536, 49152, 8192, tied=True),
    "HuggingFaceTB/SmolLM2-360M-Instruct": _llama(960, 32, 15, 5, 2560, 49152, 8192, tied=True),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": _llama(2048, 24, 32, 32, 8192, 49152, 8192, tied=True),
}
"""Shapes by the name on the hub, as their config.json gives them. A policy's base and its instruct
model have the same."""


def shape_of(policy: str) -> Shape:
    """The shape of a recipe's policy: `embedded`, a folder, or a name in `SHAPES`, with or without
    its owner and `-Instruct`.

    Folders need only their config.json. Raises InputError.
    """
    folder = Path(policy_path(policy)) if policy == EMBEDDED else Path(policy)
    if folder.is_dir():
        return shape_from_config(folder / "config.json")
    # A folder that is not here yet is taken to be called as its model is.
    known = {name.lower(): shape for name, shape in SHAPES.items()}
    known |= {name.rpartition("/")[2]: shape for name, shape in known.items()}
    name = policy.lower()
    for asked in (name, name.rpartition("/")[2]):
        base = asked.removesuffix("-instruct")
        for candidate in (asked, f"{base}-instruct", base):
            if candidate in known:
                return known[candidate]
    raise InputError(
        f"policy {policy}: its shape is not known; give --shape, a folder with its config.json or "
        f"one of {', '.join(SHAPES)}"
    )


def shape_from_config(path: Path) -> Shape:
    """The shape that a model's config.json describes.

    Raises InputError for a file that is not there or not JSON, and for a model whose layers are
    not those of Llama (experts, states).
    """
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        config = config.get("text_config", config)
        family, heads = str(config["model_type"]), int(config["num_attention_heads"])
        shape = Shape(
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            intermediate=config["intermediate_size"],
            vocab=config["vocab_size"],
            context=config["max_position_embeddings"],
            tied=config.get("tie_word_embeddings", False),
            qkv_bias=config.get("attention_bias", False) or family == "qwen2",
            qk_norm=family == "qwen3",
        )
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except KeyError as error:
        raise InputError(f"{path}: no {error.args[0]}, so not a model of Llama's kind") from error
    except ValueError as error:
        raise InputError(f"{path}: {' '.join(str(error).split())[:200]}") from error
    if any(key in config for key in ("num_experts", "num_local_experts", "n_routed_experts")):
        raise InputError(f"{path}: {family} has experts, which plans do not cover")
    return shape
