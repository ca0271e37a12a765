"""Which benchmarks are meant, and where the file of each is in a folder that holds several."""

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
"""The benchmarks of the paper (arXiv 2407.00782), which `all` stands for."""


@dataclass(frozen=True, slots=True)
class Place:
    """A benchmark and where it is read from: a file, a folder, or a data set on the hub."""

    name: str
    path: str


def places(names: str, data: Sequence[str] = (), split: str = "test") -> list[Place]:
    """Where the benchmarks in a list such as `gsm8k,math500` are, without repeats.

    `all` stands for those of the paper. An item of `data` is a folder that holds a sub-folder or
    a file for each, or `name=path` for one of them; what is in none is looked for on the Hugging
    Face hub. Raises InputError for an unknown name, and DataError for a benchmark that is in no
    place.
    """
    wanted: dict[str, None] = {}
    for name in filter(None, (part.strip() for part in names.split(","))):
        wanted.update(dict.fromkeys(PAPER if name == "all" else [known(name)]))
    if not wanted:
        raise InputError(f"--benchmarks: none is named; known are {_known()}")
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
    return [Place(name, own.get(name) or _found(name, folders, split)) for name in wanted]


def known(name: str) -> str:
    """The name of a benchmark. Raises InputError that lists the known ones."""
    if name in BENCHMARKS:
        return name
    raise InputError(f"benchmark {name!r}: known are {_known()}")


def _known() -> str:
    return ", ".join((*BENCHMARKS, "all"))


def _folder(item: str) -> Path:
    path = Path(item)
    if path.is_dir():
        return path
    found = "this is a file" if path.exists() else "there is none"
    raise InputError(f"--data {item}: a folder or NAME=PATH is expected, {found}")


def _found(name: str, folders: Sequence[Path], split: str) -> str:
    for folder in folders:
        path = _in_folder(name, folder, split)
        if path is not None:
            return str(path)
    hub = BENCHMARKS[name].hub
    if hub and not folders:
        return hub
    if not folders:
        raise DataError(f"{name}: its data set is not on the hub; give --data {name}=FILE")
    where, names = " or ".join(map(str, folders)), ", ".join(_names(name, split))
    raise DataError(f"{name}: not in {where} (looked for {names}); give --data {name}=FILE")


def _in_folder(name: str, folder: Path, split: str) -> Path | None:
    """The file of a benchmark in a sub-folder of its name, in one that it shares, or beside
    others; only its own folder may hold a plain `test.jsonl`."""
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
    found = [f"{name}/", f"{name}.jsonl", *(f"{shared}/{f}" if shared else f for f in own)]
    return [text.format(split=split) for text in found]
