"""The rooms of the package keep to the table of docs: who may import whom, and how heavy."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "scdpo"
MAX_LINES = 400
VAGUE_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}

DESIGN = SOURCE.parents[1] / "docs" / "design.md"
WINGS = "## Wings of the sandbox"


def table_of_rooms(text: str) -> dict[str, tuple[int, set[str]]]:
    """Room → its floor and the rooms it may import besides itself, from docs/design.md.

    The room of scdpo/__init__.py is ''. Raises ValueError for a row that cannot be read.
    """
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \| [^|]+ \| ([^|]+) \|$", text, re.MULTILINE)
    listed: dict[str, tuple[int, str]] = {}
    for floor, rooms, allowed in rows:
        for name in re.findall(r"`([^`]+)`", rooms):
            room = name.removesuffix("/").removesuffix(".py")
            listed["" if room == "__init__" else room] = int(floor), allowed
    return {
        room: (
            floor,
            {name for part in allowed.split(", ") for name in _rooms(part, floor, listed)},
        )
        for room, (floor, allowed) in listed.items()
    }


def _rooms(words: str, floor: int, listed: dict[str, tuple[int, str]]) -> set[str]:
    """The rooms that an entry of the last column names."""
    if words == "nothing":
        return set()
    if words == "all below":
        return {room for room, (other, _) in listed.items() if other < floor}
    if words.startswith("floor "):
        return {room for room, (other, _) in listed.items() if other == int(words[6:])}
    if words in listed:
        return {words}
    raise ValueError(f"docs/design.md: may import {words!r}, which is no room")


ROOMS = table_of_rooms(DESIGN.read_text(encoding="utf-8"))
MAY_IMPORT = {room: allowed for room, (_, allowed) in ROOMS.items()}
"""Room → rooms it may import, besides itself. A lazy import inside a function counts too."""

MODULES = sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    """The first folder or module below scdpo; the package's own __init__ is ''."""
    first = path.relative_to(SOURCE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def dotted(path: Path) -> tuple[str, ...]:
    """The module's name without a trailing __init__: ('scdpo', 'engines', 'base')."""
    parts = ("scdpo", *path.relative_to(SOURCE).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported(path: Path, tree: ast.AST) -> list[tuple[int, str]]:
    """Line and full name (`scdpo.records.Problem`) of everything of ours a module imports."""
    package = dotted(path) if path.name == "__init__.py" else dotted(path)[:-1]
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            start = ".".join([*base, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{start}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            # After a bare `import scdpo`, `scdpo.training` reaches a room as well.
            found.append((node.lineno, f"{node.value.id}.{node.attr}"))
    return [(line, name) for line, name in found if name.split(".")[0] == "scdpo"]


def violations(path: Path, tree: ast.AST) -> list[str]:
    """Imports of a module that its room may not make, and of names private to another room."""
    room = room_of(path)
    found = []
    for line, name in imported(path, tree):
        target, *inside = [*name.split(".")[1:], ""][:-1] or [""]
        if target == room:
            continue
        where = f"{path.relative_to(SOURCE)}:{line} imports {name}"
        if target not in MAY_IMPORT[room]:
            # The bare package and its own `__version__` or `__file__` are no room.
            if target and not target.startswith("__"):
                found.append(f"{where}: {room or 'scdpo'} may not import {target}")
        elif any(part.startswith("_") and not part.endswith("__") for part in inside):
            found.append(f"{where}: private to {target}")
    return found


def test_every_room_of_the_table_exists() -> None:
    for room in ROOMS:
        name = room or "__init__"
        assert (SOURCE / name).is_dir() or (SOURCE / f"{name}.py").is_file(), f"no room {name}"


def test_rooms_import_downwards() -> None:
    """Rooms of one floor may import each other only where that is said by name, in one way."""
    assert len({floor for floor, _ in ROOMS.values()}) <= 8
    for room, (floor, allowed) in ROOMS.items():
        assert all(ROOMS[other][0] <= floor for other in allowed), f"{room} looks up"
        beside = {other for other in allowed - {room} if ROOMS[other][0] == floor}
        assert not any(room in MAY_IMPORT[other] for other in beside), f"{room}: a circle"


MAX_ARROWS = 108
"""Arrows between rooms, an arrow for each room that another one imports. Insight has nine of them.
The viewer has four: it reads the store, has the package's errors and colours, and the command line
starts it.
"""


def modules_imported(path: Path) -> set[Path]:
    """The modules of ours that a module imports, also inside functions."""
    found = set()
    for _, name in imported(path, ast.parse(path.read_text(encoding="utf-8"))):
        parts = name.split(".")[1:]
        for n in range(len(parts), 0, -1):
            base = SOURCE.joinpath(*parts[:n])
            if (module := base.with_suffix(".py")).is_file():
                found.add(module)
                break
            if (module := base / "__init__.py").is_file():
                found.add(module)
                break
    return found - {path}


def test_there_are_few_arrows_between_rooms_and_no_circle_of_modules() -> None:
    graph = {path: modules_imported(path) for path in MODULES}
    arrows = {(room_of(a), room_of(b)) for a, targets in graph.items() for b in targets}
    assert len([1 for a, b in arrows if a != b]) <= MAX_ARROWS
    # A package's face loads its modules when they are used, so an import of it is no circle.
    faces = {path for path in MODULES if path.name == "__init__.py"}
    TopologicalSorter({a: targets - faces for a, targets in graph.items()}).prepare()


@pytest.mark.parametrize("words", ["everything", "floor one", "stores"])
def test_the_table_is_read_or_refused(words: str) -> None:
    with pytest.raises(ValueError, match=r"no room|invalid literal"):
        table_of_rooms(f"| 2 | `store/` | rows | {words} |")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_imports_only_what_its_room_may(path: Path) -> None:
    room = room_of(path)
    assert room in MAY_IMPORT, f"{room} is no room: move it, or give it a row in docs/design.md"
    assert violations(path, ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("module", "line", "complaint"),
    [
        ("report/table.py", "from scdpo.sampling.naive import sample", "may not import sampling"),
        ("report/table.py", "def f():\n    import scdpo.pairs.naive", "may not import pairs"),
        ("report/table.py", "from ..training import loss", "may not import training"),
        ("report/table.py", "from .. import training", "may not import training"),
        ("report/table.py", "from scdpo import training", "may not import training"),
        ("report/table.py", "import scdpo\nx = scdpo.training.loss", "may not import training"),
        ("store.py", "from .engines import base", "may not import engines"),
        ("doctor.py", "from scdpo.store import _hash", "private to store"),
        ("cli/app.py", "from scdpo.store import _hash", "private to store"),
        ("engines/__init__.py", "from ..sampling import x", "may not import sampling"),
    ],
)
def test_the_walk_sees_every_way_to_import(module: str, line: str, complaint: str) -> None:
    found = violations(SOURCE / module, ast.parse(line))
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("report/table.py", "from scdpo.report.grid import _text"),
        ("report/table.py", "from .grid import Grid"),
        ("report/__init__.py", "from .grid import Grid"),
        ("store.py", "from scdpo import __version__"),
        ("store.py", "import scdpo\nx = scdpo.__file__"),
        ("engines/http.py", "from scdpo.policies import policy_path"),
        ("cli/app.py", "from scdpo.training.preference import train"),
        ("store.py", "import json, typing"),
    ],
)
def test_the_walk_allows_what_the_table_allows(module: str, line: str) -> None:
    assert violations(SOURCE / module, ast.parse(line)) == []


def wings() -> dict[str, set[str]]:
    """Wing of the sandbox → wings that it may import, as the table of docs/sandbox.md says."""
    docs = SOURCE.parents[1] / "docs" / "sandbox.md"
    section = docs.read_text(encoding="utf-8").partition(WINGS)[2].partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| `")]
    names = {row[0].strip(" `/"): row[-1] for row in rows}
    return {
        wing: {word.strip() for word in allowed.split(",")} - {"nothing"}
        for wing, allowed in names.items()
    }


def crossings(path: Path, tree: ast.AST) -> list[str]:
    """Imports of a module of the sandbox that its wing may not make."""
    inside = path.relative_to(SOURCE / "sandbox").parts
    if len(inside) == 1:
        return []  # the face
    table, wing = wings(), inside[0]
    found = []
    for line, name in imported(path, tree):
        _, room, *rest = [*name.split("."), "", ""]
        if room != "sandbox":
            # Only the owner's process has what other rooms need, such as pydantic.
            if room and wing != "host":
                found.append(f"{wing}, line {line}: {name}")
        elif rest[0] != wing and rest[0] not in table[wing]:
            found.append(f"{wing}, line {line}: {name}")
    return found


def test_the_sandbox_has_the_wings_of_its_table() -> None:
    folders = {
        path.name for path in (SOURCE / "sandbox").iterdir() if (path / "__init__.py").is_file()
    }
    assert wings().keys() == folders
    assert all(allowed <= folders for allowed in wings().values())
    loose = {path.name for path in (SOURCE / "sandbox").glob("*.py")}
    assert loose == {"__init__.py"}


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if room_of(path) == "sandbox"],
    ids=lambda path: str(path.relative_to(SOURCE)),
)
def test_a_module_of_the_sandbox_imports_only_what_its_wing_may(path: Path) -> None:
    assert crossings(path, ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("notebook/cell.py", "from scdpo.sandbox.processes import wire"),
        ("notebook/cell.py", "from scdpo.sandbox import Execution"),
        ("notebook/cell.py", "from scdpo.errors import SandboxError"),
        ("walls/view.py", "def f():\n    from ..processes.boot import main"),
        ("processes/boot.py", "import scdpo.sandbox.host.client"),
        ("host/client.py", "from scdpo.sandbox.notebook.cell import Notebook"),
    ],
)
def test_the_walk_sees_a_crossing(module: str, line: str) -> None:
    assert len(crossings(SOURCE / "sandbox" / module, ast.parse(line))) == 1


def test_other_rooms_import_the_sandbox_by_its_face() -> None:
    inner = {("scdpo", "sandbox", wing) for wing in wings()}
    found = []
    for path in MODULES:
        if room_of(path) != "sandbox":
            names = imported(path, ast.parse(path.read_text(encoding="utf-8")))
            found += [
                f"{path.relative_to(SOURCE)}:{line} imports {name}"
                for line, name in names
                if tuple(name.split(".")[:3]) in inner
            ]
    assert found == []


def test_the_processes_of_a_sandbox_need_neither_pydantic_nor_asyncio() -> None:
    code = "import scdpo.sandbox.processes.boot; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"pydantic", "asyncio", "numpy", *HEAVY}
    assert "scdpo.sandbox.notebook.cell" in done.stdout.split()
    assert "scdpo.sandbox.host" not in done.stdout.split()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_can_be_read_in_one_go_and_has_a_telling_name(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{lines} lines, at most {MAX_LINES} are meant to be in a file"
    assert not VAGUE_NAMES & set(dotted(path))


HEAVY = ("torch", "transformers", "accelerate", "sympy", "math_verify", "matplotlib", "datasets")


def loaded_after(code: str) -> set[str]:
    """Heavy packages that a fresh interpreter has loaded after running `code`."""
    script = f"import sys\n{code}\nprint(*sys.modules, sep='\\n', file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return set(done.stderr.splitlines()) & set(HEAVY)


def test_importing_the_rooms_is_cheap() -> None:
    rooms = sorted(room for room in MAY_IMPORT if (SOURCE / room).is_dir() and room)
    modules = [f"scdpo.{room}" for room in rooms]
    modules += ["scdpo.report.table", "scdpo.evaluation.accuracy"]
    assert loaded_after("\n".join(f"import {module}" for module in modules)) == set()


@pytest.mark.skipif(not (SOURCE / "cli").is_dir(), reason="this tree has no scdpo/cli")
@pytest.mark.parametrize(
    "code",
    [
        "import scdpo.cli",
        "import scdpo.cli\n"
        "sys.argv = ['scdpo', '--help']\n"
        "try:\n    scdpo.cli.main()\n"
        "except SystemExit as end:\n    assert not end.code",
    ],
    ids=["import scdpo.cli", "scdpo --help"],
)
def test_the_command_line_starts_without_the_heavy_packages(code: str) -> None:
    assert not loaded_after(code) & {"torch", "transformers"}
