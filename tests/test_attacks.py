"""Hostile code: none of it reaches the host, another session or the next one, or is late.

The attacks are in tests/cases/attacks. They run in a process of their own, at both levels, as the
user who runs the tests and, for root, as an unprivileged one too, who owns the interpreter's files.
`python tests/test_attacks.py --table` prints how long each takes; run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from attacks.owned import SYSTEM, owned_interpreter

TESTS = Path(__file__).parent
# For minutes they load a machine so that nothing else can be timed beside them.
pytestmark = pytest.mark.skipif(not os.environ.get("ATTACKS"), reason="run by `make attacks`")
OTHERS = {"namespace": 65534, "process": 65533}
"""Ids of unprivileged users; the kernel counts processes by user, so no two levels share one."""
BUSY = 3.0
"""How many times longer than on a quiet machine an attack may take in a test run."""
SECONDS = 280
LEVELS = ("namespace", "process")
SHARES = 2
EVERY = int(os.environ.get("ATTACKS", "1"))
"""1 for all attacks, n for every nth of them."""


def rows(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Run the attacks at one level, in this process; how each of them went."""
    from attacks.attack import attacks
    from attacks.world import Frozen, Limits, World

    chosen = [
        attack
        for attack in attacks(tuple(arguments.kinds))
        if arguments.level in attack.levels and arguments.name in attack.name
    ]
    chosen = chosen[arguments.share :: SHARES] if arguments.share >= 0 else chosen
    chosen = chosen[:: arguments.every]
    world = World(arguments.level, Limits(grace=arguments.grace), bare=arguments.bare)
    with asyncio.Runner() as runner:
        for n, attack in enumerate(chosen):
            try:
                yield runner.run(world.survive(attack)).as_row()
            except Frozen as error:
                yield row(arguments.level, f"{attack.kind}: {attack.name}", [f"{error!r}"])
                return
            if n + 1 == len(chosen) or chosen[n + 1].kind != attack.kind:
                yield row(arguments.level, f"rest after {attack.kind}", runner.run(world.rest()))
        yield row(arguments.level, "end", world.close())


def row(level: str, name: str, complaints: list[str]) -> dict[str, Any]:
    empty = {"kind": "all", "seconds": 0.0, "cut": "", "lag": 0.0, "skipped": ""}
    return {"name": name, "level": level, "user": os.geteuid(), "complaints": complaints, **empty}


def start(stack: ExitStack, level: str, user: int, *more: str) -> subprocess.Popen[str]:
    """A process that runs the attacks and prints a row of JSON for each.

    What it needs is deleted with `stack`.
    """
    python, packages = sys.executable, ""
    become: dict[str, Any] = {}
    if user != os.geteuid():
        if not SYSTEM.exists():
            pytest.skip(f"no {SYSTEM}")
        python = str(stack.enter_context(owned_interpreter(user)))
        packages = next(p for p in sys.path if p.endswith("site-packages"))
        become = {"user": user, "group": user, "extra_groups": []}
        more = (*more, "--bare")
    path = ":".join(filter(None, [str(TESTS), str(TESTS.parent / "src"), packages]))
    return subprocess.Popen(
        [python, "-B", __file__, "--rows", "--level", level, *more],
        env={"PYTHONPATH": path, "HOME": "/", "PATH": os.environ.get("PATH", "")},
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **become,
    )


def users(level: str) -> list[int]:
    return [os.geteuid(), OTHERS[level]] if os.geteuid() == 0 else [os.geteuid()]


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, int], list[dict[str, Any]]]:
    """How the attacks went by level and user, who has every other one at a level.

    They run side by side, since most only wait.
    """
    runs = []
    with ExitStack() as stack:
        for n, level in enumerate(LEVELS):
            for share in range(SHARES):
                # Root has one half at one level and the other half at the other.
                user = users(level)[(share + n) % len(users(level))]
                more = (f"--share={share}", f"--every={EVERY}", f"--grace={BUSY * 0.5}")
                runs.append((level, user, start(stack, level, user, *more)))
        with ThreadPoolExecutor(len(runs)) as threads:
            said = list(threads.map(lambda run: run[2].communicate(timeout=SECONDS), runs))
    results: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for (level, user, run), (output, errors) in zip(runs, said, strict=True):
        assert run.returncode == 0, errors[-2000:]
        results.setdefault((level, user), []).extend(map(json.loads, output.splitlines()))
    return results


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize(("level", "user"), [(n, user) for n in LEVELS for user in users(n)])
def test_attacks(found: dict[tuple[str, int], list[dict[str, Any]]], level: str, user: int) -> None:
    results = found[level, user]
    assert {r["user"] for r in results} == {user}
    assert sum(not r["skipped"] for r in results) > 150 / EVERY
    slowest = max(results, key=lambda r: r["seconds"])
    print(f"{len(results)} attacks; the slowest took {slowest['seconds']:.2f} s: {slowest['name']}")
    failed = [r for r in results if r["complaints"]]
    again = [r if r["kind"] == "all" else alone(level, user, r) for r in failed]
    complaints = [f"{r['kind']}: {r['name']}: {r['complaints']}" for r in again if r["complaints"]]
    assert not complaints, "\n".join(complaints)


def alone(level: str, user: int, failed: dict[str, Any]) -> dict[str, Any]:
    """How a failed attack goes with no other beside it: with many side by side, a busy machine may
    cut a session that has done nothing. An attack that succeeds does so again."""
    with ExitStack() as stack:
        more = (f"--name={failed['name']}", f"--grace={BUSY * 0.5}", failed["kind"])
        run = start(stack, level, user, *more)
        output, errors = run.communicate(timeout=SECONDS)
    assert run.returncode == 0, errors[-2000:]
    rows = map(json.loads, output.splitlines())
    result: dict[str, Any] = next(r for r in rows if r["name"] == failed["name"])
    print(f"again: {failed['name']}: {failed['complaints']} → {result['complaints']}")
    return result


def table(arguments: argparse.Namespace) -> int:
    """Print one line per attack, level and user; how many failed."""
    levels = (arguments.level,) if arguments.level else LEVELS
    failed = 0
    print(f"{'attack':58}{'level':10}{'user':>6}{'seconds':>8}  cut")
    more = [f"--grace={arguments.grace}", f"--name={arguments.name}", *arguments.kinds]
    for level in levels:
        for user in [arguments.user] if arguments.user is not None else users(level):
            with ExitStack() as stack:
                failed += follow(start(stack, level, user, *more))
    print(f"{failed} failed")
    return min(failed, 100)


def follow(run: subprocess.Popen[str]) -> int:
    """Print a line for each attack of a run; how many failed."""
    failed = 0
    assert run.stdout is not None and run.stderr is not None
    for line in run.stdout:
        r = json.loads(line)
        name = f"{r['kind']}: {r['name']}"
        cut = f"skipped: {r['skipped']}" if r["skipped"] else r["cut"]
        print(f"{name:58}{r['level']:10}{r['user']:6}{r['seconds']:8.2f}  {cut}", flush=True)
        for complaint in r["complaints"]:
            print(f"    FAILED {complaint}", flush=True)
        failed += bool(r["complaints"])
    if run.wait():
        print(run.stderr.read()[-3000:])
        failed += 1
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help="files of tests/cases/attacks, by default all")
    parser.add_argument("--table", action="store_true", help="run all and print a table")
    parser.add_argument("--rows", action="store_true", help="print rows of JSON, for one level")
    parser.add_argument("--level", default="", help="namespace or process")
    parser.add_argument("--user", type=int, help="id of the user to run as")
    parser.add_argument("--name", default="", help="only attacks with this in their name")
    parser.add_argument("--share", type=int, default=-1, help="which share of them, by number")
    parser.add_argument("--every", type=int, default=1, help="only every nth of them")
    parser.add_argument("--bare", action="store_true", help="the interpreter has no packages")
    parser.add_argument("--grace", type=float, default=0.5, help="seconds past the deadline")
    arguments = parser.parse_args()
    if not arguments.rows:
        return table(arguments)
    for found in rows(arguments):
        print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
