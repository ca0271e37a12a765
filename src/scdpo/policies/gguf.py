"""A GGUF file (llama.cpp's format) as a policy folder: dequantised weights, the tokenizer whole.

transformers reads GGUF, but two things are lost on the way to a folder that can be trained. The
loaded model counts as quantised and refuses to be saved, so its weights move into a fresh model.
And how a byte-level vocabulary splits numbers stands in the file only as a name.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from scdpo.errors import InputError, MissingDependency, PolicyError
from scdpo.policies.loading import Policy, save_policy
from scdpo.policies.names import brief
from scdpo.policies.writing import new_folder
from scdpo.waiting import Progress, silent

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAGIC = b"GGUF"
SINGLE_DIGITS = {
    *("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
}
"""Names of pre-tokenizers that split off every digit, then split as GPT-2 does (llama.cpp)."""
AS_GPT2 = {"gpt-2", "phi-2", "mpt", "olmo", "jais"}
"""Names of pre-tokenizers that split as GPT-2 does, which transformers assumes for all."""
DTYPES = ("float32", "bfloat16", "float16")


def convert_gguf(
    file: str | Path,
    out: str | Path,
    *,
    member: str | None = None,
    dtype: str = "float32",
    progress: Progress = silent,
) -> Policy:
    """Write the model of a GGUF file into the folder `out`, which must be new, and return it.

    `file` may be a zip archive, such as a wheel, that holds one GGUF file, or several of which
    `member` names one. `dtype` is the type of the saved weights. `progress` receives the number of
    tensors that are dequantised. Raises InputError for a file that
    is none of these, PolicyError for a model or a tokenizer that cannot be converted exactly,
    MissingDependency without the package gguf.
    """
    import torch

    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r}; known: {', '.join(DTYPES)}")
    try:
        import gguf  # noqa: F401, transformers needs it
    except ImportError as error:
        raise MissingDependency("gguf", "gguf") from error
    with new_folder(Path(out)) as folder, _unpacked(Path(file), member) as path:
        tokenizer = _tokenizer(path)
        with _reported(progress):
            model = _dequantised(path, getattr(torch, dtype))
        if len(tokenizer) > model.config.vocab_size:
            raise PolicyError(
                f"{path.name}: {len(tokenizer)} tokens, but embeddings of {model.config.vocab_size}"
            )
        policy = Policy(name=str(out), model=model, tokenizer=tokenizer)
        save_policy(policy, folder)
    return policy


@contextmanager
def _unpacked(path: Path, member: str | None) -> Iterator[Path]:
    """The GGUF file itself, taken out of an archive for as long as it is needed."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as opened:
        magic = opened.read(4)
    if magic == MAGIC:
        if member is not None:
            raise InputError(f"{path}: a GGUF file has no members (found {member!r})")
        yield path
        return
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: neither a GGUF file nor an archive (zip, whl) that holds one")
    with zipfile.ZipFile(path) as archive:
        inside = [name for name in archive.namelist() if name.endswith(".gguf")]
        chosen = [name for name in inside if member in (None, name, Path(name).name)]
        if len(chosen) != 1:
            raise InputError(
                f"{path}: {'no' if not chosen else len(chosen)} GGUF files"
                f"{f' named {member}' if member else ''} in it, one is needed"
                f"{' (inside: ' + ', '.join(inside) + '; choose with --member)' if inside else ''}"
            )
        with TemporaryDirectory(dir=path.parent) as folder:
            yield Path(archive.extract(chosen[0], folder))


@contextmanager
def _reported(progress: Progress) -> Iterator[None]:
    """Report how many tensors are dequantised, in place of the bar that transformers prints."""
    from transformers import modeling_gguf_pytorch_utils

    reader: Any = modeling_gguf_pytorch_utils

    def counted(tensors: Sequence[Any], **_: Any) -> Iterator[Any]:
        for n, tensor in enumerate(tensors, 1):
            yield tensor
            progress(n, len(tensors))

    printed = reader.tqdm
    reader.tqdm = counted
    try:
        yield
    finally:
        reader.tqdm = printed


def _dequantised(path: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The file's model with dense weights, as if it had never been quantised."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        loaded, found = cast(
            "tuple[PreTrainedModel, dict[str, Any]]",
            AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, dtype=dtype, output_loading_info=True
            ),
        )
        config = type(loaded.config).from_dict(
            {
                key: value
                for key, value in loaded.config.to_dict().items()
                if key not in ("quantization_config", "_name_or_path", "_model_name_or_path")
            }
        )
        with torch.device("meta"):
            model = type(loaded)(config)
    except Exception as error:  # whatever the readers of GGUF raise
        raise PolicyError(f"{path.name}: its model cannot be read: {brief(error)}") from error
    for fault in ("missing_keys", "mismatched_keys"):
        if keys := sorted(str(key) for key in found[fault]):
            raise PolicyError(f"{path.name}: {len(keys)} {fault}, such as {keys[0]}")
    packed = [name for name, value in loaded.named_parameters() if not value.is_floating_point()]
    if packed:
        raise PolicyError(f"{path.name}: {packed[0]} was not dequantised")
    model.load_state_dict(loaded.state_dict(), assign=True)
    for name, buffer in loaded.named_buffers():
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, buffer)
    model.tie_weights()
    model.generation_config = GenerationConfig.from_model_config(config)
    return model


def _tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The file's tokenizer, with the splitting of text that its vocabulary was learned with."""
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    try:
        fields = GGUFReader(path).fields
        kind, split = (
            fields[key].contents() if (key := f"tokenizer.ggml.{name}") in fields else None
            for name in ("model", "pre")
        )
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except Exception as error:  # whatever the readers of GGUF raise
        raise PolicyError(f"{path.name}: its tokenizer cannot be read: {brief(error)}") from error
    if kind != "gpt2" or split in AS_GPT2 or split in _known_splits():
        return tokenizer
    if split not in SINGLE_DIGITS:
        raise PolicyError(
            f"{path.name}: how its tokenizer splits text ({split!r}) is not known here; take the "
            "tokenizer of the original model, or a policy folder of it"
        )
    backend: Any = tokenizer.backend_tokenizer
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer


def _known_splits() -> set[str]:
    """Names of pre-tokenizers that transformers itself sets up."""
    try:
        from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
    except ImportError:  # versions before it had the table
        return set()
    return set(GGUF_PRE_TOKENIZER_SPLITS)
