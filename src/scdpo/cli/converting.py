"""Commands that turn other people's checkpoints into policy folders: convert gguf, internlm2."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scdpo.cli.app import app
from scdpo.terminal import Terminal

convert = typer.Typer(
    help="Turn a checkpoint of another kind into a policy folder.", no_args_is_help=True
)
app.add_typer(convert, name="convert")

OutPath = Annotated[
    Path, typer.Argument(metavar="OUT", help="The policy folder to write.", show_default=False)
]


@convert.command()
def gguf(
    file: Annotated[
        Path,
        typer.Argument(
            help="A .gguf file, or an archive (zip, wheel) with one.", show_default=False
        ),
    ],
    out: OutPath,
    member: Annotated[
        str | None,
        typer.Option(help="Which .gguf file of an archive.", show_default="the only one"),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Type of the saved weights: float32, bfloat16 or float16.")
    ] = "float32",
) -> None:
    """Dequantise a GGUF file of llama.cpp into a policy folder that can be trained.

    Needs the extra gguf. What quantisation took away does not come back: prefer the original
    weights where they can be had.
    """
    from scdpo.policies.gguf import convert_gguf

    made = convert_gguf(file, out, member=member, dtype=dtype)
    with Terminal() as terminal:
        terminal.note(
            "policy",
            f"{out}: {made.model.config.model_type}, {made.model.num_parameters():,} parameters, "
            f"{len(made.tokenizer):,} tokens",
        )


@convert.command()
def internlm2(
    source: Annotated[
        Path, typer.Argument(metavar="DIR", help="An InternLM2 checkpoint.", show_default=False)
    ],
    out: OutPath,
) -> None:
    """Write an InternLM2 checkpoint as Llama's, which needs no remote code.

    Weights are read and written a shard at a time. The tokenizer is rebuilt from tokenizer.model,
    which needs the extra sentencepiece, and compared with it.
    """
    from scdpo.policies.internlm2 import convert_internlm2

    config = convert_internlm2(source, out)
    with Terminal() as terminal:
        terminal.note(
            "policy",
            f"{out}: llama, {config.num_hidden_layers} layers, {config.vocab_size:,} tokens",
        )
