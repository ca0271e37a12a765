"""Checkpoints of other kinds become policy folders: the same numbers, the same token ids."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

from scdpo.errors import InputError, MissingDependency, PolicyError
from scdpo.policies import load_policy
from scdpo.policies.gguf import convert_gguf

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ Ġ", "t h", "th e", "1 2"]
TOKENS = [*SPECIAL, *bytes_to_unicode().values(), *(m.replace(" ", "") for m in MERGES)]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
CONFIG = LlamaConfig(
    vocab_size=len(TOKENS),
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    tie_word_embeddings=True,
    rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    bos_token_id=1,
    eos_token_id=2,
)
BLOCK = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""llama.cpp's name of a layer's tensor → transformers' name."""


def write_gguf(path: Path, *, pre: str = "smollm") -> LlamaForCausalLM:
    """Write a tiny model, quantised to 8 bits, and return it with the weights as quantised."""
    gguf: Any = pytest.importorskip("gguf", reason="needs the extra gguf")
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(CONFIG.num_hidden_layers)
    writer.add_context_length(CONFIG.max_position_embeddings)
    writer.add_embedding_length(CONFIG.hidden_size)
    writer.add_feed_forward_length(CONFIG.intermediate_size)
    writer.add_head_count(CONFIG.num_attention_heads)
    writer.add_head_count_kv(CONFIG.num_key_value_heads)
    writer.add_rope_freq_base(5000.0)
    writer.add_layer_norm_rms_eps(CONFIG.rms_norm_eps)
    writer.add_vocab_size(CONFIG.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    state = model.state_dict()
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
    for layer in range(CONFIG.num_hidden_layers):
        for short, name in BLOCK.items():
            names[f"blk.{layer}.{short}"] = f"model.layers.{layer}.{name}"
    q8 = gguf.GGMLQuantizationType.Q8_0
    for short, name in names.items():
        weight = state[f"{name}.weight"]
        if weight.ndim == 1:
            weight.copy_(torch.randn_like(weight))
            writer.add_tensor(f"{short}.weight", weight.numpy())
            continue
        blocks = gguf.quants.quantize(weight.numpy(), q8)
        weight.copy_(torch.from_numpy(gguf.quants.dequantize(blocks, q8)))
        if short.endswith(("attn_q", "attn_k")):
            # llama.cpp rotates neighbouring values, transformers the two halves of a head.
            heads = CONFIG.num_attention_heads if short.endswith("q") else 2
            half = blocks.shape[0] // heads // 2
            blocks = blocks.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(blocks.shape)
        writer.add_tensor(f"{short}.weight", blocks, raw_dtype=q8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model.eval()


def ids_of(*tokens: str) -> tuple[int, ...]:
    return tuple(TOKENS.index(token) for token in tokens)


def test_a_wheel_with_a_gguf_file_becomes_a_policy(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = write_gguf(tmp_path / "tiny.gguf")
    wheel = tmp_path / "models-1.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(tmp_path / "tiny.gguf", "models/tiny.gguf")
    capfd.readouterr()
    done: list[tuple[int, int]] = []
    convert_gguf(wheel, tmp_path / "policy", progress=lambda *counts: done.append(counts))
    assert capfd.readouterr() == ("", ""), "no bars of transformers"
    assert done == [(n, 20) for n in range(1, 21)]
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.gguf", "models-1.whl", "policy"}

    policy = load_policy(tmp_path / "policy")
    prompt = torch.tensor([[1, *range(5, 60), 2]])
    with torch.no_grad():
        expected, found = model(prompt).logits, policy.model(prompt).logits
    assert torch.equal(expected, found)
    assert expected.std() > 0.05
    # Without the digits split off first, the two spaces would not be one token, nor 1 and 2 two.
    assert policy.encode("the  12") == ids_of("the", "ĠĠ", "1", "2")
    assert policy.encode("<|im_start|>t<|im_end|>") == (1, *ids_of("t"), 2)
    assert policy.decode(policy.encode("é  1\n")) == "é  1\n"
    assert policy.tokenizer.eos_token_id == 2
    assert policy.tokenizer.chat_template == TEMPLATE
    again = policy.model.config
    assert not hasattr(again, "quantization_config")
    assert again.rope_parameters["rope_theta"] == 5000.0


def test_a_split_that_transformers_assumes_is_kept(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", pre="gpt-2")
    policy = convert_gguf(tmp_path / "tiny.gguf", tmp_path / "policy", dtype="bfloat16")
    assert policy.encode("12") == ids_of("12")
    saved = load_policy(tmp_path / "policy", dtype=torch.bfloat16)
    assert torch.equal(
        saved.model.state_dict()["model.norm.weight"],
        policy.model.state_dict()["model.norm.weight"],
    )


def test_a_gguf_that_cannot_be_converted_exactly_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", pre="mystery")
    with pytest.raises(PolicyError, match=r"tiny.gguf: how its tokenizer splits .*'mystery'"):
        convert_gguf(tmp_path / "tiny.gguf", tmp_path / "policy")
    assert not (tmp_path / "policy").exists()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes((tmp_path / "tiny.gguf").read_bytes()[:3000])
    with pytest.raises(PolicyError, match=r"cut.gguf: its tokenizer cannot be read"):
        convert_gguf(cut, tmp_path / "policy")
    with pytest.raises(InputError, match="dtype 'int8'; known: float32"):
        convert_gguf(cut, tmp_path / "policy", dtype="int8")
    with pytest.raises(InputError, match="has no members"):
        convert_gguf(cut, tmp_path / "policy", member="cut.gguf")


def test_archives_and_folders_that_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gguf", reason="needs the extra gguf")
    out = tmp_path / "policy"
    with pytest.raises(InputError, match=r"none.gguf: no such file"):
        convert_gguf(tmp_path / "none.gguf", out)
    (tmp_path / "text.gguf").write_text("not one")
    with pytest.raises(InputError, match="neither a GGUF file nor an archive"):
        convert_gguf(tmp_path / "text.gguf", out)
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.gguf", "GGUF")
        archive.writestr("b/b.gguf", "GGUF")
    with pytest.raises(InputError, match=r"2 GGUF files in it, .*a.gguf, b/b.gguf; .*--member"):
        convert_gguf(tmp_path / "two.zip", out)
    with pytest.raises(InputError, match=r"no GGUF files named c.gguf in it"):
        convert_gguf(tmp_path / "two.zip", out, member="c.gguf")
    with pytest.raises(PolicyError, match=r"b.gguf: its tokenizer cannot be read"):
        convert_gguf(tmp_path / "two.zip", out, member="b.gguf")
    out.mkdir()
    (out / "file").touch()
    with pytest.raises(InputError, match="exists already"):
        convert_gguf(tmp_path / "two.zip", out)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingDependency, match=r"scdpo\[gguf\]"):
        convert_gguf(tmp_path / "two.zip", out)
