"""What one attack is, and how the files in tests/cases/attacks are read.

A file holds the attacks of one kind. `== name` begins an attack; lines of settings follow, then
its steps, each begun by a line with two dashes:

    --              the source, the session that is opened first, runs the lines that follow
    -- copy         the copy runs them; left out where the source could not be cloned
    -- other        a third session runs them, which must come to its end
    -- clone        the source is cloned
    -- descend      the source is cloned and closed, and the copy takes its place
    -- clone copy   the copy is cloned; what comes of that runs nothing
    -- close        the source is closed; `-- close copy` closes the copy
    -- wait         nothing happens for a moment

The last step of the source or the copy is what `cuts`, `says` and `ends` judge. `++ name` begins
lines that attacks put before their steps with `use`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LEVELS = ("namespace", "process")
FOLDER = Path(__file__).parents[1] / "cases" / "attacks"
_GROUPS = {
    "fine": {""},
    "short": {"deadline", "memory", "died"},
    "any": {"", "deadline", "memory", "died"},
    "full": {"memory", "died"},
}
_CUTS = {"deadline", "memory", "died", "output", "gone"}
_STEPS = ("", "copy", "other", "clone", "descend", "clone copy", "close", "close copy", "wait")
_SETTINGS = ("cuts", "says", "never", "levels", "needs", "ends", "pause", "use", "times", "clones")


@dataclass(frozen=True)
class Step:
    """Something that is done to one of an attack's sessions."""

    what: str
    code: str = ""


@dataclass(frozen=True)
class Attack:
    """One hostile case.

    `cuts`: what the last execution may be cut by, empty for not at all, `gone` for a session that
    has ended before. Where it is not cut, each of `says` must be in its output, and so must the
    `end` that is printed after it if it `ends`. `never`: what no output may hold, besides
    `SUCCEEDED` and the secrets. `levels`: where it is run; `needs`: a word of
    `ProcessSandbox.isolation` without which there is no promise. `pause`: seconds that the
    sessions are left alone before they are closed. `times`: how often it is done. `clones`:
    whether the clone must be had, or may be refused.
    """

    name: str
    kind: str
    steps: tuple[Step, ...]
    cuts: frozenset[str] = frozenset({""})
    says: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    levels: tuple[str, ...] = LEVELS
    needs: str = ""
    ends: bool = True
    pause: float = 0.0
    times: int = 1
    clones: bool = False


@dataclass
class _Section:
    name: str
    settings: dict[str, list[str]] = field(default_factory=dict)
    steps: list[tuple[str, list[str]]] = field(default_factory=list)


def attacks(kinds: tuple[str, ...] = ()) -> list[Attack]:
    """All attacks of some kinds, or of all. Raises ValueError for a file that is not right."""
    found = []
    for path in sorted(FOLDER.glob("*.txt")):
        if not kinds or path.stem in kinds:
            found += _read(path)
    names = [(a.kind, a.name) for a in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"attacks that occur twice: {sorted(twice)}")
    return found


def _read(path: Path) -> list[Attack]:
    shared: dict[str, str] = {}
    found = []
    for part in re.split(r"(?m)^(?=(?:==|\+\+) )", path.read_text())[1:]:
        head, _, body = part.partition("\n")
        if head.startswith("++ "):
            shared[head[3:]] = body.rstrip() + "\n"
        else:
            found.append(_attack(path.stem, _section(head[3:], body), shared))
    return found


def _section(name: str, body: str) -> _Section:
    section = _Section(name)
    for line in body.rstrip().split("\n"):
        if re.fullmatch("--( [a-z ]+)?", line):
            what = line[3:]
            if what not in _STEPS:
                raise ValueError(f"{name}: no step {what!r}; there are {_STEPS}")
            section.steps.append((what, []))
        elif section.steps:
            section.steps[-1][1].append(line)
        else:
            setting, _, value = line.partition(": ")
            if setting not in _SETTINGS:
                raise ValueError(f"{name}: no setting {setting!r}; there are {_SETTINGS}")
            section.settings.setdefault(setting, []).append(value)
    return section


def _attack(kind: str, section: _Section, shared: dict[str, str]) -> Attack:
    def words(name: str, default: str = "") -> list[str]:
        return " ".join(section.settings.get(name, [default])).split()

    cuts: set[str] = set()
    for word in words("cuts", "fine"):
        if word not in _GROUPS and word not in _CUTS:
            raise ValueError(f"{section.name}: no cut {word!r}")
        cuts |= _GROUPS.get(word, {word})
    before = "".join(shared[name] for name in words("use"))
    steps = []
    for what, lines in section.steps:
        code = "\n".join(lines).rstrip()
        if what == "" and before:
            code, before = before + code, ""
        steps.append(Step(what, code))
    optional: dict[str, Any] = {}
    if "levels" in section.settings:
        optional["levels"] = tuple(words("levels"))
    return Attack(
        section.name,
        kind,
        tuple(steps),
        frozenset(cuts),
        tuple(section.settings.get("says", [])),
        tuple(section.settings.get("never", [])),
        needs=" ".join(words("needs")),
        ends=words("ends", "yes") == ["yes"],
        pause=float(words("pause", "0")[0]),
        times=int(words("times", "1")[0]),
        clones=words("clones", "no") == ["yes"],
        **optional,
    )
