"""The paper's benchmarks (arXiv 2407.00782) and the user's own files, as `Problem` records."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from scdpo.errors import DataError, InputError
from scdpo.problems import rows
from scdpo.problems.embedded import EMBEDDED, load_embedded
from scdpo.problems.files import NumberedRow, file_rows, find_file, hub_rows
from scdpo.problems.gold import Row, RowError, problem_id
from scdpo.problems.selection import Ids, selected
from scdpo.records import Problem

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_SUFFIXES = (".jsonl", ".json", ".tsv")
PATTERNS = ("{split}.jsonl", "{split}.json", "*_{split}.jsonl", "*_{split}.json")
"""File names in a folder that holds a single benchmark."""

Group = Literal["level", "subject"]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """How a benchmark is read: its rows, its files, and where it is on the hub.

    `row` converts a row. `files` are file-name patterns, tried in order, and `folder` is the name
    of a folder that the benchmark shares with others. `hub` is a hub data set that holds it, and
    `configs` the configurations to read there. `groups` are the usual breakdowns of its results.
    """

    row: Callable[[Row], rows.Item]
    files: tuple[str, ...] = PATTERNS
    hub: str = ""
    configs: tuple[str, ...] = ()
    folder: str = ""
    groups: tuple[Group, ...] = ()


_MATH_SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)

BENCHMARKS: dict[str, Benchmark] = {
    "gsm8k": Benchmark(rows.gsm8k, hub="openai/gsm8k", configs=("main",)),
    "math": Benchmark(
        rows.math,
        hub="EleutherAI/hendrycks_math",
        configs=_MATH_SUBJECTS,
        groups=("level", "subject"),
    ),
    "math500": Benchmark(
        rows.math,
        ("math500.jsonl", "test500.jsonl", *PATTERNS),
        "HuggingFaceH4/MATH-500",
        folder="math",
        groups=("level", "subject"),
    ),
    "ape210k": Benchmark(
        rows.ape210k, ("{split}.ape.json", *PATTERNS), "MU-NLPC/Calc-ape210k", ("default",)
    ),
    "cmath": Benchmark(
        rows.cmath, ("cmath_{split}.jsonl", *PATTERNS), "weitianwen/cmath", groups=("level",)
    ),
    "mgsm_zh": Benchmark(rows.mgsm, ("mgsm_zh.tsv",), "juletxara/mgsm", ("zh",), "mgsm"),
    "mgsm_en": Benchmark(rows.mgsm, ("mgsm_en.tsv",), "juletxara/mgsm", ("en",), "mgsm"),
    "svamp": Benchmark(rows.svamp, ("SVAMP.json", *PATTERNS), "ChilleD/SVAMP"),
    "asdiv": Benchmark(rows.asdiv, hub="EleutherAI/asdiv"),
    "mawps": Benchmark(rows.mawps, hub="MU-NLPC/Calc-mawps", configs=("default",)),
    "simuleq": Benchmark(
        rows.simuleq,
        ("simuleq_{split}_post.jsonl", "simuleq_{split}.jsonl"),
        folder="mathcoder_ood",
    ),
    "mathematics": Benchmark(
        rows.messages,
        ("mathematics_{split}_post.jsonl", "mathematics_{split}.jsonl"),
        folder="mathcoder_ood",
    ),
    "jsonl": Benchmark(rows.own),
}
"""Every benchmark by name; `jsonl` means the user's own rows, named after their file."""


def load_problems(
    name: str,
    path: Path | str | None = None,
    *,
    split: str = "test",
    limit: int | None = None,
    offset: int | None = None,
    ids: Ids | None = None,
) -> list[Problem]:
    """The problems of benchmark `name`, in file order, at most `limit` after the first `offset`.

    `ids` takes only problems with these ids: a list, or a file with an id a line or with JSONL rows
    of problems, solutions or evaluations, or a folder of such files.

    `path` is a file, a folder that holds the file of `split`, or a data set on the Hugging Face
    hub (`owner/name`; an existing path takes precedence). `embedded` means the packaged problems,
    which take no path and have the splits train, validation and test. `jsonl` means your own rows
    with `question` and `answer`. Ids are a hash of the question (see `problem_id`), with `-2`,
    `-3` … appended for repeated questions; your own rows may have their own ids. Raises InputError
    for an unknown name or an invalid split, limit or offset, DataError with the line for a row that
    is malformed or lacks a question or an answer, DataError for ids or an offset that are not
    there, and MissingDependency for hub data without the extra `datasets`.
    """
    if name != EMBEDDED and name not in BENCHMARKS:
        raise InputError(f"unknown benchmark {name!r}; known: {EMBEDDED}, {', '.join(BENCHMARKS)}")
    if limit is not None and limit < 1:
        raise InputError(f"limit {limit}: must be at least 1")
    if offset is not None and offset < 0:
        raise InputError(f"offset {offset}: must not be negative")
    if name == EMBEDDED:
        if path is not None:
            raise InputError(f"benchmark {EMBEDDED!r} takes no path (found {path})")
        if offset is None and ids is None:
            return load_embedded(split, limit)
        source = f"{EMBEDDED} {split}"
        return selected(load_embedded(split), offset=offset, limit=limit, ids=ids, source=source)
    if path is None:
        raise InputError(f"benchmark {name!r} needs a path: a file, a folder or a hub name")
    benchmark = BENCHMARKS[name]
    local = Path(path)
    if local.is_dir():
        local = find_file(local, benchmark.files, split)
    if local.exists():
        source, numbered = str(local), file_rows(local)
    elif _HUB_NAME.fullmatch(str(path)) and local.suffix not in _SUFFIXES:
        source, numbered = str(path), hub_rows(str(path), benchmark.configs, split)
    else:
        raise DataError("no such file or folder", path)
    dataset = re.split(r"[\\/]", source)[-1].split(".")[0] if name == "jsonl" else name
    # The first rows are always read: ids of repeated questions depend on them.
    needed = None if limit is None or ids is not None else (offset or 0) + limit
    problems = _problems(dataset, benchmark.row, islice(numbered, needed), source)
    return selected(problems, offset=offset, limit=limit, ids=ids, source=source)


def _problems(
    dataset: str,
    read: Callable[[Row], rows.Item],
    numbered: Iterable[NumberedRow],
    source: str,
) -> list[Problem]:
    seen: Counter[str] = Counter()
    problems = []
    for number, (line, row) in enumerate(numbered, start=1):
        try:
            item = read(row)
        except RowError as error:
            where = "" if line is not None else f"row {number}: "
            raise DataError(f"{where}{error}", source, line) from error
        problem = _problem(item, item.dataset or dataset)
        seen[problem.id] += 1
        if (count := seen[problem.id]) > 1:
            if item.id is not None:
                raise DataError(f"id {item.id!r} is already taken by another row", source, line)
            problem = problem.model_copy(update={"id": f"{problem.id}-{count}"})
        problems.append(problem)
    if not problems:
        raise DataError("no problems in it", source)
    return problems


def _problem(item: rows.Item, dataset: str) -> Problem:
    return Problem(
        id=item.id or problem_id(dataset, item.question),
        dataset=dataset,
        question=item.question,
        answer=item.answer,
        alternatives=item.alternatives,
        several=item.several,
        solution=item.solution,
        level=item.level,
        subject=item.subject,
    )
