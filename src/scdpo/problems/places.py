"""Resolve benchmark names, and find each benchmark's file in folders that hold several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scdpo.errors import DataError, InputError
from scdpo.problems.benchmarks import BENCHMARKS, PATTERNS
from scdpo.problems.files import find_file

OWN = "jsonl"
PAPER = (
    *("gsm8k", "math", "ape210k", "cmath", "mgsm_zh"),
    *("svamp", "asdiv", "mawps", "simuleq", "mathematics"),
)
"""The paper's benchmarks (arXiv 2407.00782), which `all` stands for."""


@dataclass(frozen=True, slots=True)
class Place:
    """A benchmark and its source: a file, a folder, or a data set on the hub."""

    name: str
    path: str


def places(names: str, data: Sequence[str] = (), split: str = "test") -> list[Place]:
    """Where to read the benchmarks in a list such as `gsm8k,math500`, without repeats.

    `all` stands for those of the paper. An item of `data` is either a folder that holds a
    sub-folder or a file for each benchmark, or `name=path` for a single benchmark. If `data` names
    no folder, the other benchmarks are read from the Hugging Face hub. Raises InputError for an
    unknown name or a bad item, and DataError for a benchmark that is not found.
    """
    wanted: dict[str, None] = {}
    for name in filter(None, (part.strip() for part in names.split(","))):
        wanted.update(dict.fromkeys(PAPER if name == "all" else [known(name)]))
    if not wanted:
        raise InputError(f"--benchmarks: no names given; known: {_known()}")
    own: dict[str, str] = {}
    folders: list[Path] = []
    for item in data:
        name, equals, path = item.partition("=")
        if equals and not Path(item).exists():
            own[known(name)] = path
        else:
            folders.append(_folder(item))
    if unused := [name for name in own if name not in wanted]:
        raise InputError(f"--data {unused[0]}=…: {unused[0]} is not among --benchmarks")
    return [Place(name, own.get(name) or _located(name, folders, split)) for name in wanted]


def known(name: str) -> str:
    """The name itself. Raises InputError if it is not a known benchmark."""
    if name in BENCHMARKS:
        return name
    raise InputError(f"unknown benchmark {name!r}; known: {_known()}")


def _known() -> str:
    return ", ".join((*BENCHMARKS, "all"))


def _folder(item: str) -> Path:
    path = Path(item)
    if path.is_dir():
        return path
    found = "a file" if path.exists() else "nothing at this path"
    raise InputError(f"--data {item}: expected a folder or NAME=PATH, found {found}")


def _located(name: str, folders: Sequence[Path], split: str) -> str:
    for folder in folders:
        path = _in_folder(name, folder, split)
        if path is not None:
            return str(path)
    hub = BENCHMARKS[name].hub
    if hub and not folders:
        return hub
    if not folders:
        raise DataError(f"{name}: no hub data set is known for it; give --data {name}=FILE")
    where, names = " or ".join(map(str, folders)), ", ".join(_names(name, split))
    raise DataError(f"{name}: not in {where} (looked for {names}); give --data {name}=FILE")


def _in_folder(name: str, folder: Path, split: str) -> Path | None:
    """The file of a benchmark in the sub-folder of its name, in a shared sub-folder, or directly
    in `folder`; a plain `test.jsonl` is accepted only in its own sub-folder."""
    benchmark = BENCHMARKS[name]
    own_names = [pattern for pattern in benchmark.files if pattern not in PATTERNS]
    if (folder / name).is_dir():
        return find_file(folder / name, benchmark.files, split)
    shared = [folder / benchmark.folder] if benchmark.folder else []
    beside = [f"{name}{suffix}" for suffix in (".jsonl", ".json", ".tsv")]
    beside += [f"{name}_{{split}}.jsonl", f"{name}_{{split}}.json"]
    for place, patterns in (*((path, own_names) for path in shared), (folder, own_names + beside)):
        for pattern in patterns:
            path = place / pattern.format(split=split)
            if path.is_file():
                return path
    return None


def _names(name: str, split: str) -> list[str]:
    shared = BENCHMARKS[name].folder
    own = [f for f in BENCHMARKS[name].files if f not in PATTERNS]
    names = [f"{name}/", f"{name}.jsonl", *(f"{shared}/{f}" if shared else f for f in own)]
    return [text.format(split=split) for text in names]
