"""A sentencepiece tokenizer that comes with remote code, as one that needs none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scdpo.errors import MissingDependency, PolicyError
from scdpo.policies.names import brief

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

SAMPLES = (
    "Natalia sold 48/2 = 24 clips in May.\nHow many altogether?",
    " two  leading   and trailing spaces  ",
    "```python\n    x = 100_000.25\n\tprint(x)\n```\n\n```output\n100000.25\n```",
    "\\boxed{\\frac{1}{2}} is 50% – 3 × 4 ≤ 12 €",
    "小明有12个苹果，吃了3个。还剩几个？",
    "naïve Ωμέγα кот 😀 \u200b end",
)
"""Texts on which the new tokenizer must agree with sentencepiece."""
NORMAL, CONTROL, USER_DEFINED, BPE = 1, 3, 4, 2
"""Types of pieces and of models in sentencepiece's protocol."""
_KEPT = (
    *("bos_token", "eos_token", "unk_token", "pad_token", "additional_special_tokens"),
    *("add_bos_token", "add_eos_token", "chat_template", "model_max_length"),
)


def plain_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, without the remote code that its configuration asks for.

    A `tokenizer.json` is used as it is. Else the tokenizer is built from `tokenizer.model`, and
    compared with sentencepiece on sample texts. Raises PolicyError if there is neither, or if the
    two disagree, MissingDependency without the packages sentencepiece and protobuf.
    """
    from transformers import PreTrainedTokenizerFast

    settings = _settings(folder)
    try:
        if (folder / "tokenizer.json").is_file():
            return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
                tokenizer_file=str(folder / "tokenizer.json"), **_kept(settings)
            )
        if not (folder / "tokenizer.model").is_file():
            raise PolicyError(f"{folder}: no tokenizer in it (tokenizer.model is missing)")
        backend = _from_pieces(folder / "tokenizer.model", settings)
        return PreTrainedTokenizerFast(tokenizer_object=backend, **_kept(settings))  # type: ignore[no-untyped-call]
    except (PolicyError, MissingDependency):
        raise
    except Exception as error:  # whatever the tokenizer's backend raises
        raise PolicyError(f"{folder}: its tokenizer cannot be read: {brief(error)}") from error


def _settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json and special_tokens_map.json together; the former has precedence."""
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            try:
                found |= json.loads((folder / name).read_text(encoding="utf-8"))
            except ValueError as error:
                raise PolicyError(f"{folder / name}: not JSON: {brief(error)}") from error
    if (folder / "chat_template.jinja").is_file():
        found["chat_template"] = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    return found


def _kept(settings: dict[str, Any]) -> dict[str, Any]:
    kept = {key: settings[key] for key in _KEPT if settings.get(key) is not None}
    tokens = {
        key: value["content"] if isinstance(value, dict) else value for key, value in kept.items()
    }
    return {"add_bos_token": True, "clean_up_tokenization_spaces": False} | tokens


def _from_pieces(file: Path, settings: dict[str, Any]) -> Tokenizer:
    """A BPE tokenizer with the pieces, merges and normalisation of a sentencepiece model."""
    try:
        from sentencepiece import SentencePieceProcessor
        from sentencepiece.sentencepiece_model_pb2 import ModelProto
    except ImportError as error:
        raise MissingDependency(
            "sentencepiece or protobuf (to read tokenizer.model)", "sentencepiece"
        ) from error
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    model = ModelProto()
    model.ParseFromString(file.read_bytes())
    if model.trainer_spec.model_type != BPE:
        raise PolicyError(f"{file}: not a BPE model")
    # Placeholders that the configuration gives a name, as InternLM2 does with its last ids.
    added = {int(i): token for i, token in settings.get("added_tokens_decoder", {}).items()}
    renamed = {i: token["content"] for i, token in added.items()}
    renamed_special = {i: bool(token.get("special", True)) for i, token in added.items()}
    pieces = [renamed.get(i, piece.piece) for i, piece in enumerate(model.pieces)]
    beyond = [renamed[i] for i in sorted(renamed) if i >= len(pieces)]
    backend = Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(pieces)},
            merges=_merges(model.pieces),
            unk_token=pieces[model.trainer_spec.unk_id],
            fuse_unk=True,
            byte_fallback=model.trainer_spec.byte_fallback,
        )
    )
    spec = model.normalizer_spec
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend("▁"))
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(content=" ", left=1)] if spec.add_dummy_prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    for i, (text, piece) in enumerate(zip(pieces, model.pieces, strict=True)):
        if i in renamed or piece.type in (CONTROL, USER_DEFINED):
            special = renamed_special.get(i, piece.type == CONTROL)
            backend.add_tokens([AddedToken(text, normalized=False, special=special)])
    backend.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in beyond])
    _must_agree(backend, SentencePieceProcessor(model_file=str(file)), file)
    return backend


def _merges(pieces: Any) -> list[tuple[str, str]]:
    """The merges that a BPE vocabulary implies: every way to join two pieces into a third.

    Better scored pieces are merged first; sentencepiece takes the leftmost of equal ones.
    """
    normal = [piece for piece in pieces if piece.type == NORMAL]
    rank = {piece.piece: i for i, piece in enumerate(normal)}
    found = []
    for piece in normal:
        text = piece.piece
        halves = [(text[:i], text[i:]) for i in range(1, len(text))]
        inside = [(a, b) for a, b in halves if a in rank and b in rank]
        inside.sort(key=lambda pair: (rank[pair[0]], rank[pair[1]]))
        found += [(piece.score, pair) for pair in inside]
    return [pair for _, pair in sorted(found, key=lambda scored: -scored[0])]


def _must_agree(backend: Tokenizer, model: Any, file: Path) -> None:
    """Raise PolicyError if the two tokenizers cut a sample text differently."""
    for text in SAMPLES:
        mine = backend.encode(text, add_special_tokens=False).ids
        theirs = model.encode(text)
        if mine != theirs:
            raise PolicyError(
                f"{file}: could not be rebuilt exactly ({text[:20]!r} is cut into {len(mine)} "
                f"tokens, {len(theirs)} by sentencepiece); put a tokenizer.json beside it"
            )
