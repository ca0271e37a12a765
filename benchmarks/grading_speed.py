"""Times the grader of this checkout beside the one of another checkout, on the same texts.

    git worktree add --detach ../before COMMIT
    python benchmarks/grading_speed.py ../before ../shared/data [--rounds 7] [--only math,recorded]

Each corpus is judged once by a forked process with empty caches; the two checkouts take turns, so
that a busy machine slows both, and run in this interpreter, with the same packages. Printed are
medians of CPU seconds, and the ratio of the lowest. Nothing is sent to the workers, as
Math-Verify's time is not the rules': what they would decide is undecided here.

The corpora are gold answers against themselves, in another spelling and against the next one,
labelled pairs, recorded solutions, solutions without a box, and answers meant to slow a grader.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from grading import FILES, HOSTILE, TABLE
from rich.console import Console
from rich.table import Table

from scdpo.formats import get_format, read_recorded
from scdpo.problems.benchmarks import load_problems
from scdpo.problems.gold import one_of_several

console = Console(width=110)
HERE = Path(__file__).resolve().parents[1]
MEASURE = """
import gc, json, os, sys, time
from pathlib import Path
import scdpo
from scdpo.grading import Claim, Grader, judge
from scdpo.grading.pool import WorkerPool
from scdpo.records import undecided

WorkerPool.compare_many = lambda pool, pairs: [undecided("not sent")] * len(pairs)
grader = Grader()
print(json.dumps(str(Path(scdpo.__file__).parent)), flush=True)
for at, rows in enumerate(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))):
    claims = [Claim(text, (gold,), several, is_answer=is_answer)
              for text, gold, several, is_answer in rows]
    if at == 0:  # imports, and compiles the expressions that are compiled when first used
        judge(claims, grader)
        gc.collect()
        gc.freeze()  # a collection in a forked process would copy all of this one's memory
    elif (child := os.fork()) == 0:
        start = time.process_time()
        found = judge(claims, grader)
        seconds = time.process_time() - start
        print(json.dumps([seconds, [one.verdict.name for one in found]]), flush=True)
        os._exit(0)
    else:
        os.waitpid(child, 0)
"""
"""What each process runs; rows are text, gold answer, several values, whether text is an answer."""

Rows = list[tuple[str | None, str, bool, bool]]


def main(
    before: Annotated[Path, typer.Argument(help="A checkout of the other version.")],
    data: Annotated[Path, typer.Argument(help="The folder with the data sets.")],
    rounds: Annotated[int, typer.Option(help="Measurements of each version.")] = 7,
    most: Annotated[int, typer.Option(help="Texts of a corpus; of more, every n-th.")] = 3_000,
    only: Annotated[str, typer.Option(help="Corpora, separated by commas.")] = "",
) -> None:
    """Print the table."""
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    every = _corpora(data)
    first_use = [row for name in ("table-answers", "table-kinds") for row in every[name][::25]]
    corpora = {
        name: rows[:: -(-len(rows) // most)]
        for name, rows in every.items()
        if not wanted or name in wanted
    }
    sources = (before.resolve() / "src", HERE / "src")
    seconds: list[list[list[float]]] = [[], []]
    verdicts: list[list[list[str]]] = [[], []]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        file.write_text(json.dumps([first_use, *corpora.values()]), encoding="utf-8")
        for at in range(rounds):
            for side in (0, 1) if at % 2 else (1, 0):
                found = _measured(sources[side], file)
                seconds[side].append([used for used, _ in found])
                verdicts[side] = [names for _, names in found]
    table = Table(title=f"CPU seconds, medians of {rounds}", title_justify="left", box=None)
    for column in (
        "corpus",
        "texts",
        "before",
        "now",
        "now / before",
        "of the lowest",
        "other verdicts",
    ):
        table.add_column(column, justify="left" if column == "corpus" else "right")
    for at, (name, rows) in enumerate(corpora.items()):
        used = [[one[at] for one in side] for side in seconds]
        first, second = map(median, used)
        lowest = min(used[1]) / min(used[0])
        other = sum(a != b for a, b in zip(verdicts[0][at], verdicts[1][at], strict=True))
        ratios = (f"{second / first:.2f}", f"{lowest:.2f}", str(other))
        table.add_row(name, f"{len(rows):,}", f"{first:.3f}", f"{second:.3f}", *ratios)
    console.print(table)


def _measured(source: Path, file: Path) -> list[tuple[float, list[str]]]:
    """The seconds and the verdicts of one version, for each corpus."""
    run = subprocess.run(
        [sys.executable, "-P", "-c", MEASURE, str(file)],
        env={**os.environ, "PYTHONPATH": str(source), "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    where, *found = map(json.loads, run.stdout.splitlines())
    if Path(where) != source / "scdpo":
        raise typer.BadParameter(f"{where} was imported instead of {source}")
    return found


def _corpora(data: Path) -> dict[str, Rows]:
    """The texts of each corpus."""
    found: dict[str, Rows] = {}
    for name in ("math", "ape210k", "gsm8k"):
        golds = [p.answer for f in FILES[name] for p in load_problems(name, data / f)]
        found[name] = [(gold, gold, False, True) for gold in golds]
        different = list(dict.fromkeys(golds))
        found[f"{name}-respelled"] = [
            (f"$ {_respelled(gold)} $.", gold, False, True) for gold in different
        ]
        found[f"{name}-others"] = [
            (answer, gold, False, True)
            for gold, answer in zip(different, different[1:] + different[:1], strict=True)
        ]
    for path in sorted((data / "solutions").glob("*.jsonl")):
        found.setdefault("recorded", []).extend(_recorded(path))
    for name in ("answers", "kinds"):
        table = json.loads((TABLE / f"{name}.json").read_text(encoding="utf-8"))
        found[f"table-{name}"] = [
            (row.get("answer", row.get("solution")), row["gold"], False, "answer" in row)
            for row in table
        ]
    texts = [
        "\n\n".join(row["steps"]).replace("\\boxed", "")
        for path in sorted((data / "processbench").glob("*.json"))
        for row in json.loads(path.read_text(encoding="utf-8"))
    ]
    found["unboxed"] = [(text, "5", False, False) for text in texts]
    found["hostile"] = [(text, gold, False, True) for text in HOSTILE for gold in ("5", "x^2")]
    return found


def _respelled(gold: str) -> str:
    return gold.replace("\\frac", "\\dfrac").replace(",", ", ")


def _recorded(path: Path) -> Rows:
    recorded = list(read_recorded(path, "tora" if "ToRA" in path.stem else "mathcoder"))
    form: Any = get_format(recorded[0].format)
    dataset = "simuleq" if "simuleq" in path.stem else "other"
    return [
        (
            form.plain(form.render(r.steps)) if r.finished else None,
            r.gold,
            one_of_several(dataset, r.question),
            False,
        )
        for r in recorded
    ]


if __name__ == "__main__":
    typer.run(main)
