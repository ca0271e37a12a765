"""InternLM2 checkpoints as Llama's: the same computation under other names.

InternLM2 (arXiv 2403.17297) is Llama with grouped queries whose three projections lie in one
matrix. `wqkv` reshapes to (key/value heads, group + 2, head size, hidden size): for each key/value
head the query heads of its group, then its key, then its value. Its class is remote code that
current versions of transformers cannot run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scdpo.errors import InputError, PolicyError, short
from scdpo.policies.names import brief
from scdpo.policies.sentencepieces import plain_tokenizer
from scdpo.policies.writing import new_folder

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaConfig

    Read = tuple[list[str], Callable[[str], Tensor]]
    """The names of a shard's tensors, and the function that reads one."""

NAMES = {
    "model.tok_embeddings": "model.embed_tokens",
    "output": "lm_head",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w3": "mlp.up_proj",
    "feed_forward.w2": "mlp.down_proj",
}
"""InternLM2's name of a module → Llama's; `model.norm` is the same in both."""
SAME_KEYS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "hidden_act", "max_position_embeddings"),
    *("initializer_range", "rms_norm_eps", "use_cache", "tie_word_embeddings"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)
"""Keys of config.json that Llama has under the same name."""
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
FILES = ("model.safetensors", "pytorch_model.bin")


def convert_internlm2(source: str | Path, out: str | Path) -> LlamaConfig:
    """Write the InternLM2 checkpoint in the folder `source` as Llama's into the new folder `out`.

    Weights are read and written a shard at a time, in their own type; remote code is not run. The
    tokenizer is rebuilt from `tokenizer.model` (see `plain_tokenizer`). Raises InputError if `out`
    exists, PolicyError for a folder that is no complete InternLM2 checkpoint, and
    MissingDependency without the package sentencepiece.
    """
    source = Path(source)
    with new_folder(Path(out)) as folder:
        if not (source / "config.json").is_file():
            raise PolicyError(f"{source}: not a checkpoint (config.json is missing)")
        config = llama_config(_read_json(source / "config.json"), source)
        shards = _shards(source)
        plain_tokenizer(source).save_pretrained(folder)
        _write_weights(shards, config, folder)
        config.save_pretrained(folder)
        if (source / "generation_config.json").is_file():
            text = (source / "generation_config.json").read_text(encoding="utf-8")
            (folder / "generation_config.json").write_text(text, encoding="utf-8")
    return config


def llama_config(settings: dict[str, Any], source: Path) -> LlamaConfig:
    """Llama's config for an InternLM2 config.json. Raises PolicyError for other models."""
    from transformers import LlamaConfig

    if settings.get("model_type") != "internlm2":
        kind = short(settings.get("model_type"))
        raise PolicyError(f"{source}: model_type {kind}, expected 'internlm2'")
    scaling = settings.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in ("default", "linear", "dynamic"):
        raise PolicyError(f"{source}: rope_scaling {kind!r}; known: linear, dynamic")
    rope = {"rope_type": kind, "rope_theta": float(settings.get("rope_theta", 10000))}
    if "factor" in scaling and kind != "default":
        rope["factor"] = float(scaling["factor"])
    config = LlamaConfig(
        **{key: settings[key] for key in SAME_KEYS if key in settings},
        attention_bias=bool(settings.get("bias", False)),
        rope_parameters=rope,
        architectures=["LlamaForCausalLM"],
    )
    config.dtype = settings.get("torch_dtype", settings.get("dtype"))
    return config


def llama_tensors(name: str, weight: Tensor, config: LlamaConfig) -> Iterator[tuple[str, Tensor]]:
    """The tensors of Llama that an InternLM2 tensor holds. Raises PolicyError for an unknown name.

    `weight` of `wqkv` is ((heads + 2 * key/value heads) * head size, hidden), its bias without the
    last dimension.
    """
    module, _, kind = name.rpartition(".")
    layer = re.fullmatch(r"(model\.layers\.\d+\.)(.+)", module)
    before, inner = (layer[1], layer[2]) if layer else ("", module)
    if inner == "attention.wqkv":
        heads, kv = config.num_attention_heads, config.num_key_value_heads or 1
        size = config.hidden_size // heads
        fused_rows = (heads + 2 * kv) * size
        if weight.shape[0] != fused_rows:
            raise PolicyError(f"{name}: {weight.shape[0]} rows, expected {fused_rows}")
        fused = weight.view(kv, heads // kv + 2, size, *weight.shape[1:])
        parts = {"q": fused[:, :-2], "k": fused[:, -2], "v": fused[:, -1]}
        for part, value in parts.items():
            flat = value.reshape(-1, *weight.shape[1:]).contiguous()
            yield f"{before}self_attn.{part}_proj.{kind}", flat
    elif inner in NAMES or name == "model.norm.weight":
        yield f"{before}{NAMES.get(inner, inner)}.{kind}", weight.contiguous()
    else:
        raise PolicyError(f"{name}: no tensor of an InternLM2 language model")


def _shards(source: Path) -> list[Path]:
    """The files with weights, in order. Raises PolicyError if there are none or one is missing."""
    for index in INDEXES:
        if (source / index).is_file():
            files = sorted(set(_read_json(source / index).get("weight_map", {}).values()))
            if missing := [name for name in files if not (source / name).is_file()]:
                raise PolicyError(f"{source}: {missing[0]} is missing ({index} lists it)")
            return [source / name for name in files]
    for name in FILES:
        if (source / name).is_file():
            return [source / name]
    raise PolicyError(f"{source}: no weights in it ({' or '.join(FILES)}, or an index of shards)")


def _write_weights(shards: list[Path], config: LlamaConfig, folder: Path) -> None:
    """Convert each shard into one of `folder`, with an index; check that the model is complete."""
    from safetensors.torch import save_file

    expected = _expected_shapes(config)
    where: dict[str, str] = {}
    size = 0
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        converted: dict[str, Tensor] = {}
        names, read = _opened(shard)
        for name in names:
            if name.endswith("rotary_emb.inv_freq"):
                continue  # computed from the config
            for new, weight in llama_tensors(name, read(name), config):
                if new not in expected or tuple(weight.shape) != expected[new] or new in where:
                    raise PolicyError(
                        f"{shard.name}: {name} makes {new} of shape {tuple(weight.shape)}, which "
                        f"config.json has as {expected.get(new, 'nothing')}"
                    )
                converted[new], where[new] = weight, file
                size += weight.numel() * weight.element_size()
        save_file(converted, folder / file, metadata={"format": "pt"})
    if missing := sorted(expected.keys() - where.keys()):
        raise PolicyError(
            f"{shards[0].parent}: {len(missing)} missing tensors, such as {missing[0]}"
        )
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(where.items()))}
    (folder / INDEXES[0]).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _expected_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a Llama model's weights, without making them."""
    import torch
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        state = LlamaForCausalLM(config).state_dict()
    if config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    return {name: tuple(value.shape) for name, value in state.items()}


def _opened(shard: Path) -> Read:
    """The tensors of a shard, read from the disk only when they are asked for."""
    import torch
    from safetensors import safe_open

    try:
        if shard.suffix == ".safetensors":
            opened = safe_open(shard, framework="pt")
            return sorted(opened.keys()), opened.get_tensor  # type: ignore[no-untyped-call]
        state = torch.load(shard, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # whatever the readers raise
        raise PolicyError(f"{shard}: cannot be read: {brief(error)}") from error
    return sorted(state), state.__getitem__


def _read_json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PolicyError(f"{path}: not JSON: {brief(error)}") from error
    if not isinstance(read, dict):
        raise InputError(f"{path}: expected an object")
    return read
