"""Commands that need no run folder: exec, grade, doctor, version."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from scdpo import __version__
from scdpo.cli.app import RESUME, app
from scdpo.cli.tables import console, show_servers
from scdpo.errors import InputError
from scdpo.terminal import Terminal


@app.command("exec")
def exec_(
    file: Annotated[
        str, typer.Argument(help="Sessions, JSONL; - is standard input.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The JSONL file to append to.", show_default="standard output"),
    ] = None,
    level: Annotated[
        str | None, typer.Option(help="namespace or process.", show_default="namespace")
    ] = None,
    deadline: Annotated[
        float | None, typer.Option(help="Seconds a block may run.", show_default="10")
    ] = None,
    memory_mb: Annotated[
        int | None, typer.Option(help="Memory of a session, MiB.", show_default="1024")
    ] = None,
    output_chars: Annotated[
        int | None, typer.Option(help="Characters of output kept.", show_default="10000")
    ] = None,
    parallel: Annotated[
        int | None, typer.Option(help="Blocks at the same time.", show_default="one per core")
    ] = None,
) -> None:
    """Run code in the sandbox and nothing else: rows with blocks in, with outputs and cuts out.

    A row is one session: `{"id": 1, "blocks": ["x = 6", "x * 7"]}`. With --out, rerun the same
    command to resume after the last row; the settings, kept in OUT.manifest.json, must not change.
    """
    from scdpo.errors.validation import settings_from_options
    from scdpo.rowfiles import exec_rows
    from scdpo.sandbox import SandboxConfig

    config = settings_from_options(
        SandboxConfig,
        level=level,
        deadline=deadline,
        memory_mb=memory_mb,
        output_chars=output_chars,
        parallel=parallel,
    )
    with Terminal() as terminal:
        try:
            done = exec_rows(file, out, config, terminal.progress if out else None)
        except KeyboardInterrupt:
            if out:
                terminal.note("stopped", RESUME)
            raise
        terminal.settle()
        terminal.note("exec", done.text)


@app.command()
def grade(
    file: Annotated[
        str, typer.Argument(help="Answers, JSONL; - is standard input.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The JSONL file to append to.", show_default="standard output"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes for symbolic comparisons.", show_default="2")
    ] = None,
    deadline: Annotated[
        float | None, typer.Option(help="CPU seconds for a comparison.", show_default="5")
    ] = None,
    compat: Annotated[
        str | None,
        typer.Option(help="paper: judge as the code released with it.", show_default="none"),
    ] = None,
) -> None:
    """Judge answers and nothing else: rows with a gold answer in, with verdicts out.

    A row has `answer` (a text, a number, or a list of which any one is right) and `solution` (a
    text in which the answer is searched for) or `prediction` (an answer as it stands, null for
    none; it takes precedence over a solution). `"several": true` says that the question asks for
    several values, of which `answer` is one. The row is written with `verdict` (correct, wrong or
    undecided) and `reason`, and with `found`, the answer of a solution. With --out, rerun the same
    command to resume after the last row; the settings, kept in OUT.manifest.json, must not change.
    Under --compat paper nothing is undecided, and a solution should be its last step alone, which
    is all that the rule looks at.
    """
    from scdpo.errors.validation import settings_from_options
    from scdpo.grading import GradingConfig
    from scdpo.rowfiles import grade_rows

    config = settings_from_options(GradingConfig, workers=workers, deadline=deadline, compat=compat)
    with Terminal() as terminal:
        try:
            done = grade_rows(file, out, config, terminal.progress if out else None)
        except KeyboardInterrupt:
            if out:
                terminal.note("stopped", RESUME)
            raise
        terminal.settle()
        terminal.note("grade", done.text)


@app.command()
def doctor(
    server: Annotated[
        list[str] | None,
        typer.Option(
            help="Look at this server instead (http://gpu1:8000); can be given several times.",
            show_default=False,
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(help="The policy of the servers.", show_default="what they say they have"),
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(help="Environment variable with their key.", show_default="SCDPO_API_KEY"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Print what this machine offers: versions, devices, and the sandbox's levels, tried out.

    With --server, print whether a server does what the engine `http` asks of it, setting by
    setting. The exit code is 1 if the level that runs use by default is not available, or if a
    server fails a check.
    """
    if server:
        raise typer.Exit(_look_at_servers(server, policy, api_key_env, json))
    if policy or api_key_env:
        option = "--policy" if policy else "--api-key-env"
        raise InputError(f"{option} applies only with --server")
    from scdpo.doctor import diagnose

    found = diagnose()
    typer.echo(found.model_dump_json(indent=2) if json else found.text)
    raise typer.Exit(0 if found.ready else 1)


def _look_at_servers(
    urls: list[str], policy: str | None, api_key_env: str | None, json: bool
) -> int:
    """Print the checks of servers; returns the exit code."""
    from scdpo.engines.http.probe import probe_servers

    reports = probe_servers(urls, policy, api_key_env)
    if json:
        typer.echo(dumps([report.model_dump() for report in reports], indent=2))
    else:
        show_servers(reports)
    return int(any(report.failed for report in reports))


@app.command()
def version() -> None:
    """Print the version."""
    console.print(__version__, highlight=False)
