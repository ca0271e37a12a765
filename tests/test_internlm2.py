"""InternLM2 checkpoints as Llama's, against a forward pass written from the model's description."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from scdpo.errors import InputError, MissingDependency, PolicyError
from scdpo.policies import decode_ids, encode_text, load_policy
from scdpo.policies.internlm2 import convert_internlm2
from scdpo.policies.sentencepieces import plain_tokenizer

HIDDEN, HEADS, KV, LAYERS, INNER, VOCAB, LONGEST = 24, 6, 2, 2, 40, 340, 16
SIZE = HIDDEN // HEADS
CHAT = ["<|im_end|>", "<|im_start|>"]
"""The names of the vocabulary's last two ids."""


def settings(**changes: object) -> dict[str, object]:
    return {
        "architectures": ["InternLM2ForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM"},
        "attn_implementation": "eager",
        "bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": INNER,
        "max_position_embeddings": LONGEST,
        "model_type": "internlm2",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV,
        "pad_token_id": 2,
        "rms_norm_eps": 1e-5,
        "rope_scaling": {"type": "dynamic", "factor": 2.0},
        "rope_theta": 1000000,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "vocab_size": VOCAB,
    } | changes


def weights(*, bias: bool = False) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) / math.sqrt(shape[-1])

    made = {
        "model.tok_embeddings.weight": random(VOCAB, HIDDEN),
        "model.norm.weight": 1 + random(HIDDEN),
        "output.weight": random(VOCAB, HIDDEN),
    }
    for n in range(LAYERS):
        layer = f"model.layers.{n}."
        made[layer + "attention.wqkv.weight"] = 3 * random((HEADS + 2 * KV) * SIZE, HIDDEN)
        made[layer + "attention.wo.weight"] = random(HIDDEN, HIDDEN)
        made[layer + "attention_norm.weight"] = 1 + random(HIDDEN)
        made[layer + "ffn_norm.weight"] = 1 + random(HIDDEN)
        made[layer + "feed_forward.w1.weight"] = random(INNER, HIDDEN)
        made[layer + "feed_forward.w3.weight"] = random(INNER, HIDDEN)
        made[layer + "feed_forward.w2.weight"] = random(HIDDEN, INNER)
        if bias:
            made[layer + "attention.wqkv.bias"] = random((HEADS + 2 * KV) * SIZE)
            made[layer + "attention.wo.bias"] = random(HIDDEN)
    return made


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()


def rotated(x: Tensor, base: float) -> Tensor:
    """(positions, head size), each position's first half turned against its second half."""
    half = x.shape[1] // 2
    out = x.clone()
    for position in range(x.shape[0]):
        for i in range(half):
            angle = position * base ** (-2 * i / x.shape[1])
            a, b = x[position, i], x[position, i + half]
            out[position, i] = a * math.cos(angle) - b * math.sin(angle)
            out[position, i + half] = b * math.cos(angle) + a * math.sin(angle)
    return out


def forward(w: dict[str, Tensor], ids: list[int], factor: float | None) -> Tensor:
    """InternLM2's logits (arXiv 2403.17297): (positions, vocabulary). `factor`: dynamic NTK."""
    base, length = 1e6, len(ids)
    if factor is not None and length > LONGEST:
        grown = factor * length / LONGEST - (factor - 1)
        base *= grown ** (SIZE / (SIZE - 2))
    x = w["model.tok_embeddings.weight"][ids]
    masked = torch.full((length, length), -math.inf).triu(1)
    for n in range(LAYERS):
        layer = f"model.layers.{n}."
        inside = norm(x, w[layer + "attention_norm.weight"])
        fused = inside @ w[layer + "attention.wqkv.weight"].T
        fused = fused + w.get(layer + "attention.wqkv.bias", torch.zeros(1))
        heads = []
        group = HEADS // KV
        for g in range(KV):
            own = fused[:, g * (group + 2) * SIZE : (g + 1) * (group + 2) * SIZE]
            *queries, key, value = own.split(SIZE, dim=1)
            for query in queries:
                scores = rotated(query, base) @ rotated(key, base).T / math.sqrt(SIZE)
                heads.append((scores + masked).softmax(-1) @ value)
        attended = torch.cat(heads, dim=1) @ w[layer + "attention.wo.weight"].T
        x = x + attended + w.get(layer + "attention.wo.bias", torch.zeros(1))
        inside = norm(x, w[layer + "ffn_norm.weight"])
        gate = torch.nn.functional.silu(inside @ w[layer + "feed_forward.w1.weight"].T)
        up = inside @ w[layer + "feed_forward.w3.weight"].T
        x = x + (gate * up) @ w[layer + "feed_forward.w2.weight"].T
    return norm(x, w["model.norm.weight"]) @ w["output.weight"].T


def trained_pieces(folder: Path, *, dummy_prefix: bool) -> Path:
    """A small sentencepiece model with single digits, bytes, and two places for chat tokens."""
    spm: Any = pytest.importorskip("sentencepiece", reason="needs the extra sentencepiece")
    lines = [
        "how many apples are there in the basket",
        "there are 12 apples",
        "x = 12 * 3",
        "还剩几个苹果",
    ]
    (folder / "text.txt").write_text("\n".join(lines * 20), encoding="utf-8")
    spm.SentencePieceTrainer.train(
        input=str(folder / "text.txt"),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=VOCAB,
        hard_vocab_limit=False,
        byte_fallback=True,
        split_digits=True,
        add_dummy_prefix=dummy_prefix,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        user_defined_symbols=["[UNUSED_TOKEN_1]", "[UNUSED_TOKEN_2]"],
        minloglevel=2,
    )
    return folder / "tokenizer.model"


@pytest.fixture(scope="session")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_pieces(tmp_path_factory.mktemp("pieces"), dummy_prefix=False)


def write_checkpoint(folder: Path, pieces: Path, **changes: object) -> Path:
    """A checkpoint's folder, still without weights."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings(**changes)))
    (folder / "tokenizer.model").write_bytes(pieces.read_bytes())
    token = {"lstrip": False, "normalized": False, "rstrip": False, "special": True}
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
                "tokenizer_class": "InternLM2Tokenizer",
                "bos_token": "<s>",
                "eos_token": "</s>",
                "pad_token": "</s>",
                "unk_token": "<unk>",
                "additional_special_tokens": CHAT[::-1],
                "added_tokens_decoder": {
                    str(3 + i): token | {"content": name} for i, name in enumerate(CHAT)
                },
                "chat_template": "{{ messages[0].content }}",
            }
        )
    )
    return folder


def check_logits(folder: Path, w: dict[str, Tensor], factor: float | None) -> None:
    policy = load_policy(folder)
    for length in (LONGEST - 3, LONGEST + 9):
        ids = torch.randint(VOCAB, (length,), generator=torch.Generator().manual_seed(1)).tolist()
        with torch.no_grad():
            found = policy.model(torch.tensor([ids])).logits[0]
        expected = forward(w, ids, factor)
        assert expected.std() > 0.3
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_sharded_checkpoint_computes_the_same(kind: str, tmp_path: Path, pieces: Path) -> None:
    w = weights()
    source = write_checkpoint(tmp_path / "source", pieces)
    ending = "safetensors" if kind == "safetensors" else "bin"
    stem = "model" if kind == "safetensors" else "pytorch_model"
    names = sorted(w)
    cut = {0: names[:7], 1: names[7:]}
    where = {}
    for n, part in cut.items():
        file = f"{stem}-{n + 1:05d}-of-00002.{ending}"
        shard = {name: w[name].clone() for name in part} | {}
        if kind == "safetensors":
            save_file(shard, source / file)
        else:
            shard["model.layers.0.attention.rotary_emb.inv_freq"] = torch.ones(2)
            torch.save(shard, source / file)
        where |= dict.fromkeys(shard, file)
    (source / f"{stem}.{ending}.index.json").write_text(json.dumps({"weight_map": where}))
    convert_internlm2(source, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("model-0000?-of-00002.safetensors"))) == 2
    check_logits(tmp_path / "out", w, factor=2.0)


def test_a_single_file_with_biases_and_no_scaling(tmp_path: Path, pieces: Path) -> None:
    w = weights(bias=True)
    source = write_checkpoint(tmp_path / "source", pieces, bias=True, rope_scaling=None)
    save_file(w, source / "model.safetensors")
    (source / "generation_config.json").write_text('{"eos_token_id": [2, 3]}')
    convert_internlm2(source, tmp_path / "out")
    check_logits(tmp_path / "out", w, factor=None)
    assert load_policy(tmp_path / "out").model.generation_config.eos_token_id == [2, 3]


def test_the_tokenizer_agrees_with_sentencepiece(tmp_path: Path, pieces: Path) -> None:
    spm: Any = pytest.importorskip("sentencepiece", reason="needs the extra sentencepiece")
    source = write_checkpoint(tmp_path / "source", pieces)
    save_file(weights(), source / "model.safetensors")
    convert_internlm2(source, tmp_path / "out")
    policy = load_policy(tmp_path / "out")
    theirs = spm.SentencePieceProcessor(model_file=str(pieces))
    for text in ("how many apples", "  there are  1234 苹果?\n\tx = 12", "é😀 basket ", "12"):
        assert policy.encode(text) == tuple(theirs.encode(text))
        assert policy.decode(policy.encode(text)) == text
    assert policy.encode("12 apples", start=True)[0] == 1
    chat = policy.encode("<|im_start|>apples<|im_end|>")
    assert chat == (4, *theirs.encode("apples"), 3)
    assert policy.decode(chat) == "<|im_start|>apples<|im_end|>"
    assert policy.tokenizer.chat_template == "{{ messages[0].content }}"
    assert "auto_map" not in json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())


def test_parts_of_a_text_have_the_ids_of_the_whole(tmp_path: Path) -> None:
    """Steps are encoded one by one; a space that the tokenizer begins texts with is not theirs."""
    tokenizer = plain_tokenizer(trained_pieces(tmp_path, dummy_prefix=True).parent)
    parts = ["there are 12", " apples", "\n", "\n x = 3\n", "there"]
    whole = encode_text(tokenizer, "".join(parts), start=True)
    first, *others = parts
    ids = [encode_text(tokenizer, first, start=True)]
    ids += [encode_text(tokenizer, part) for part in others]
    assert whole == tuple(i for part in ids for i in part)
    assert [decode_ids(tokenizer, part) for part in ids[1:]] == others
    assert encode_text(tokenizer, "") == ()
    assert decode_ids(tokenizer, ()) == ""


def test_what_is_no_complete_checkpoint_is_refused(
    tmp_path: Path, pieces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def refused(
        message: str, w: dict[str, Tensor], error: type = PolicyError, **changes: Any
    ) -> None:
        source = write_checkpoint(
            tmp_path / f"source{len(list(tmp_path.iterdir()))}", pieces, **changes
        )
        if w:
            save_file(w, source / "model.safetensors")
        with pytest.raises(error, match=message):
            convert_internlm2(source, out)
        assert not out.exists()

    whole = weights()
    refused("model_type 'llama', expected 'internlm2'", whole, model_type="llama")
    refused("rope_scaling 'yarn'; known", whole, rope_scaling={"type": "yarn", "factor": 2})
    refused("no weights in it", {})
    refused(
        "1 missing tensors, such as lm_head.weight",
        {k: v for k, v in whole.items() if k != "output.weight"},
    )
    refused("model.v_head.weight: no tensor of", whole | {"model.v_head.weight": torch.ones(1)})
    refused(r"config.json has as \(340, 24\)", whole | {"output.weight": torch.ones(3, HIDDEN)})
    refused("40 rows, expected 48", whole, num_key_value_heads=3)
    refused("wo.bias makes .*which config.json has as nothing", weights(bias=True))
    with pytest.raises(PolicyError, match="not a checkpoint"):
        convert_internlm2(tmp_path, out)
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    refused(r"pip install 'scdpo\[sentencepiece\]'", whole, MissingDependency)
    out.mkdir()
    (out / "x").touch()
    with pytest.raises(InputError, match="exists already"):
        convert_internlm2(tmp_path / "source0", out)
