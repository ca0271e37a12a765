"""What a run adds to the model cards of its policies: their problems, and their accuracies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scdpo.evaluation import (
    DATA_EQUAL,
    SFT,
    Difference,
    MeasuredLine,
    PolicyLine,
    benchmark_lines,
    policy_lines,
)
from scdpo.pipeline.recipe import ProblemSource
from scdpo.problems import BENCHMARKS
from scdpo.records import Evaluation
from scdpo.report import label, notation
from scdpo.training.card import read_card, save_card, with_section

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

    from scdpo.pipeline.opened import OpenRun

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_AGAINST = {"vs_sft": SFT, "vs_data_equal": DATA_EQUAL}


def card_of_training(run: OpenRun, name: str) -> None:
    """Add to a trained policy's card its name and where its problems came from."""
    folder = policy_folder(run, name)
    card = read_card(folder)
    if card is None:
        return
    sources = run.recipe.problems.sources("train")
    lines = []
    if run.begun("solutions"):
        described = "; ".join(map(_described, sources))
        lines.append(f"- {described}, {_rows(run, 'problems/train')} problems")
        lines.append(f"- {_rows(run, 'solutions')} sampled solutions, temperature "
                     f"{run.recipe.sample.temperature:g}")  # fmt: skip
    if run.begun("branches"):
        rising = run.recipe.branch.schedule
        lines.append(
            f"- {_rows(run, 'branches')} continuations of preferred solutions, temperature "
            f"{rising.start:g} rising by {rising.increment:g} a step to {rising.cap:g}"
        )
    for stage in run.imports():
        manifest = run.stage(stage).manifest
        dataset = manifest.config.get("dataset") if manifest else None
        lines.append(f"- {_rows(run, stage)} recorded solutions of {dataset}")
    lines.append(f"- preset `{run.recipe.preset}`, solution format `{run.recipe.format.name}`")
    card.text = with_section(card.text, "Problems", "\n".join(lines), before="Settings")
    card.text = re.sub(r"\A\s*# .*", f"\n# {label(name)}", card.text)
    if hubs := list(dict.fromkeys(hub for source in sources if (hub := _hub_of(source)))):
        card.data["datasets"] = hubs
    card.data["tags"] = list(dict.fromkeys([*card.data["tags"], name]))
    save_card(folder, card)


def accuracies_of_run(run: OpenRun, rows: Mapping[str, Sequence[Evaluation]]) -> None:
    """Write the accuracy of every evaluated policy into its card, with its differences."""
    sources = run.recipe.problems.sources("test")
    name = " + ".join(dict.fromkeys(source.source for source in sources))
    for line in policy_lines(rows, {}):
        _keep(policy_folder(run, line.policy), [_result(line, name, sources[0])])


def accuracies_on_benchmarks(
    folder: Path, policy: str, rows: Mapping[str, Sequence[Evaluation]]
) -> None:
    """Write the accuracy of the policy in a folder on each benchmark into its card, if any."""
    if folder.is_dir():
        _keep(folder, [_result(line, line.benchmark) for line in benchmark_lines(policy, rows)])


def policy_folder(run: OpenRun, name: str) -> Path:
    """Where a run keeps one of its policies; the initial one only if the run has trained it."""
    return run.path / "sft" / "policy" if name == SFT else run.path / "policies" / name / "policy"


def _keep(folder: Path, results: Iterable[EvalResult]) -> None:
    """Put results into a card. One on fewer questions does not take the place of another."""
    card = read_card(folder)
    if card is None:
        return
    data: Any = card.data
    known = {found.unique_identifier: found for found in data.eval_results or ()}
    for found in results:
        before = known.get(found.unique_identifier)
        if before is None or _args(before).get("n", 0) <= _args(found)["n"]:
            known[found.unique_identifier] = found
    if data.model_name is None:
        parts = [part for part in folder.resolve().parts if part != "policy"]
        data.model_name = parts[-1]
    data.eval_results = list(known.values())
    card.text = with_section(
        card.text, "Evaluation", _evaluation(list(known.values())), before="Method"
    )
    save_card(folder, card)


def _result(line: MeasuredLine, name: str, source: ProblemSource | None = None) -> EvalResult:
    from huggingface_hub import EvalResult

    benchmark = BENCHMARKS.get(name)
    configs = benchmark.configs if benchmark else ()
    args: dict[str, Any] = {
        "n": line.n,
        "low": round(line.low, 4),
        "high": round(line.high, 4),
        **{key: n for key in ("undecided", "unfinished") if (n := getattr(line, key, 0))},
    }
    if isinstance(line, PolicyLine):
        for key in _AGAINST:
            found: Difference | None = getattr(line, key)
            if found is not None:
                args[key] = {k: float(f"{v:.4g}") for k, v in found.model_dump().items()}
    return EvalResult(
        task_type="text-generation",
        dataset_type=(benchmark and benchmark.hub) or name,
        dataset_name=name,
        dataset_config=configs[0] if len(configs) == 1 else None,
        dataset_split=source.split if source else "test",
        metric_type="accuracy",
        metric_name="accuracy, greedy decoding",
        metric_value=round(line.accuracy, 4),
        metric_args=args,
    )


def _evaluation(results: Sequence[EvalResult]) -> str:
    """The table of a card."""
    against = [key for key in _AGAINST if any(key in _args(found) for found in results)]
    head = ["questions", "split", "n", "accuracy % [95 %]"]
    head += [f"vs {label(_AGAINST[key])} [95 %], p" for key in against]
    lines = [head, ["---"] * len(head)]
    for found in results:
        args = _args(found)
        if "n" not in args:
            continue
        interval = notation.percent_interval(args["low"], args["high"])
        cells = [
            str(found.dataset_name),
            str(found.dataset_split),
            notation.count(args["n"]),
            f"{notation.percent(found.metric_value)} {interval}",
        ]
        cells += [_gap(args.get(key)) for key in against]
        lines.append(cells)
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    notes = "Greedy decoding; Wilson intervals; undecided and unfinished count as not correct."
    if against:
        notes += (
            " Differences are percentage points on the same questions, with paired bootstrap"
            " intervals and the two-sided exact McNemar test."
        )
    return f"{table}\n\n{notes}"


def _args(found: EvalResult) -> dict[str, Any]:
    return found.metric_args or {}


def _gap(found: Mapping[str, float] | None) -> str:
    if not found:
        return ""
    interval = notation.points_interval(found["low"], found["high"])
    return f"{notation.points(found['difference'])} {interval}, {notation.p_value(found['p'])}"


def _rows(run: OpenRun, stage: str) -> str:
    manifest = run.stage(stage).manifest
    return notation.count(manifest.rows if manifest else 0)


def _described(source: ProblemSource) -> str:
    where = _hub_of(source) or (Path(source.path).name if source.path else "")
    limit = f", at most {notation.count(source.limit)}" if source.limit else ""
    return f"`{source.source}`{f' (`{where}`)' if where else ''}, split `{source.split}`{limit}"


def _hub_of(source: ProblemSource) -> str | None:
    """The data set on the hub that problems were read from."""
    path = source.path
    on_hub = path and _HUB_NAME.fullmatch(path) and not Path(path).exists()
    return path if on_hub else None
