"""The commands that measure policies and compare the results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scdpo.cli.app import (
    RESUME,
    Group,
    RecipeOption,
    RedoOption,
    SetOption,
    app,
    changes_of,
    opened,
    refuse_with_run,
)
from scdpo.cli.tables import show, show_compared, show_disagreements, show_measured
from scdpo.errors import InputError
from scdpo.terminal import Terminal

if TYPE_CHECKING:
    from scdpo.evaluation import GroupBy
    from scdpo.pipeline.changes import Changes
    from scdpo.pipeline.measure import Place
    from scdpo.pipeline.recipe import Recipe


PolicyOption = Annotated[
    str | None,
    typer.Option(
        help="sft, dpo, dpo_equal, scdpo or a training's name; with --benchmarks: embedded, "
        "a folder or a hub name.",
        show_default="sft",
    ),
]
BenchmarksOption = Annotated[
    str | None, typer.Option(help="Such as gsm8k,math500; all: the paper's.", show_default=False)
]
DataOption = Annotated[
    list[str] | None,
    typer.Option(help="A folder with the files, or NAME=PATH.", show_default="the hub"),
]
OutOption = Annotated[
    Path | None, typer.Option(help="The folder to write.", show_default="evaluations/POLICY")
]
LimitOption = Annotated[
    int | None, typer.Option(help="Maximum questions per benchmark.", show_default="all")
]
ByOption = Annotated[
    Group | None, typer.Option(help="Also break the accuracy down by this.", show_default=False)
]
FormatOption = Annotated[
    str | None,
    typer.Option(help="blocks, fenced or plain.", show_default="the recipe's or the policy's"),
]
ChatTemplateOption = Annotated[
    bool,
    typer.Option("--chat-template", help="Write prompts with the tokenizer's chat template."),
]
EndOption = Annotated[
    list[str] | None,
    typer.Option(help="A string that ends a solution, such as <|im_end|>.", show_default=False),
]
RowsOption = Annotated[
    int | None,
    typer.Option(help="Questions answered side by side.", show_default="the recipe's"),
]


@app.command()
def evaluate(
    run: Annotated[
        Path | None,
        typer.Argument(help="The run folder; omit it with --benchmarks.", show_default=False),
    ] = None,
    policy: PolicyOption = None,
    benchmarks: BenchmarksOption = None,
    data: DataOption = None,
    out: OutOption = None,
    limit: LimitOption = None,
    by: ByOption = None,
    format: FormatOption = None,
    chat_template: ChatTemplateOption = False,
    end: EndOption = None,
    rows: RowsOption = None,
    recipe: RecipeOption = None,
    redo: RedoOption = False,
    set_: SetOption = None,
) -> None:
    """Answer questions greedily: a run's test problems, or benchmarks with any policy.

    `scdpo evaluate RUN --policy scdpo` is a stage of a run. `scdpo evaluate --policy P
    --benchmarks gsm8k,math500` measures a policy without a run; rerun it to resume. Settings come
    from --recipe, whose problems are not read.
    """
    changes = changes_of(set_)
    if run is not None:
        without_run = {"--benchmarks": benchmarks, "--data": data, "--out": out, "--limit": limit}
        without_run |= {"--by": by, "--format": format, "--chat-template": chat_template or None}
        without_run |= {"--end": end, "--rows": rows}
        refuse_with_run(run, without_run)
        _evaluate_run(run, policy or "sft", recipe, redo, changes)
        return
    if benchmarks is None:
        raise InputError("expected a run folder, or --policy and --benchmarks; found neither")
    from scdpo.pipeline.measure import measuring_recipe, places

    settings = measuring_recipe(
        recipe,
        policy,
        format=format,
        chat_template=chat_template,
        end=end or [],
        rows=rows,
        changes=changes,
    )
    sources = places(benchmarks, data or [])
    _measure(settings, sources, recipe, out, limit=limit, by=by.value if by else None, redo=redo)


def _measure(
    settings: Recipe,
    benchmarks: list[Place],
    recipe: str | None,
    out: Path | None,
    *,
    limit: int | None,
    by: GroupBy | None,
    redo: bool,
) -> None:
    """Measure a policy on benchmarks without a run; `recipe` is where `settings` come from."""
    from scdpo.pipeline.measure import Measurement

    source = recipe or ("embedded" if settings.policy == "embedded" else "none")
    with (
        Terminal({"policy": settings.policy, "recipe": source}) as terminal,
        Measurement(
            settings, benchmarks, out, terminal, limit=limit, by=by, redo=redo
        ) as measurement,
    ):
        try:
            measured = measurement.run()
        except KeyboardInterrupt:
            terminal.note("stopped", RESUME)
            raise
        terminal.settle()
        show_measured(measurement, measured, by)
        terminal.note("rows", f"{measurement.path / 'evaluations' / '*'}")


def _evaluate_run(
    path: Path, policy: str, recipe: str | None, redo: bool, changes: Changes
) -> None:
    from scdpo.pipeline.recipe import METHODS

    redone = f"evaluations/{policy}" if redo else None
    trained = None if policy == "sft" else f"{path / 'policies' / policy / 'policy'}"
    with opened(path, recipe, redo=redone, changes=changes, policy=trained) as (run, terminal):
        known = list(dict.fromkeys(("sft", *METHODS, *run.trainings())))
        if policy not in known:
            raise InputError(f"unknown policy {policy!r}; known: {', '.join(known)}")
        run.evaluate(policy)
        terminal.settle()
        show(run)
        terminal.note("report", f"{path / 'report.md'}")


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="A folder or JSONL file.", show_default=False)],
    b: Annotated[
        Path, typer.Argument(help="Another one, on the same questions.", show_default=False)
    ],
    common: Annotated[
        bool, typer.Option("--common", help="Compare only the questions in both.")
    ] = False,
    list_: Annotated[
        bool, typer.Option("--list", help="List the questions that only one side got right.")
    ] = False,
    metric: Annotated[
        str | None,
        typer.Option(help="Of lm-evaluation-harness: the metric.", show_default="the only one"),
    ] = None,
    filter_: Annotated[
        str | None,
        typer.Option(
            "--filter", help="Of lm-evaluation-harness: the filter.", show_default="the only one"
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two policies question by question: difference, interval and exact McNemar test.

    A and B are folders written by `scdpo evaluate`, evaluations of a run
    (RUN/evaluations/scdpo), files with their rows, files written by `scdpo grade`, or samples of
    lm-evaluation-harness (samples_*.jsonl, or their folder). Rows are paired by id, by position
    if a file has no ids, and by the question's text between ours and lm-evaluation-harness.
    """
    from scdpo.evaluation import compare_answered, comparison_lines, disagreements, read_answered
    from scdpo.report import as_json

    a_side, b_side = (read_answered(side, metric=metric, filter_=filter_) for side in (a, b))
    compared = compare_answered(a_side, b_side, common=common)
    lines = comparison_lines(compared)
    alone = disagreements(a_side, b_side, common=common) if list_ else []
    if json:
        typer.echo(as_json(alone if list_ else lines), nl=False)
        return
    show_compared(lines, a_side.name, b_side.name)
    show_disagreements(alone)
    if not a_side.rows.keys() & b_side.rows.keys():
        return  # one data set each, under two names
    with Terminal() as terminal:
        for side, opposite in ((a_side, b_side), (b_side, a_side)):
            if left := [name for name in side.rows if name not in opposite.rows]:
                terminal.note("left out", f"{', '.join(left)}: only in {side.name}")
