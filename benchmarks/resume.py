"""Kill a run with SIGKILL at random moments, resume it each time, and compare what it made.

    python benchmarks/resume.py --kills 20

A run is made undisturbed, and again in another folder with kills that together hit every stage:
each picks a stage, every one in turn and then more often the longer ones, and a moment in it.
Half of the moments are drawn over the time that the undisturbed run needed for the stage, half
over a part of it from when the stage first kept something (rows, a checkpoint). After every kill
no process of the run may be left, and in the end every stage must have the same rows. Exit code 1
where it has not.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from scdpo.pipeline.provenance import in_order
from scdpo.store import Manifest, RunFolder

GONE_SECONDS = 5.0
"""How long the kernel and the children may take to follow a killed parent."""
POLL_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Aim:
    """A moment: so many seconds after a stage began to work, or after it first kept something."""

    stage: str
    after: float
    once_kept: bool = False


@dataclass(frozen=True, slots=True)
class Kill:
    """What one kill met: the stages that were begun and unfinished, what these had kept, and the
    processes that outlived it."""

    aim: Aim
    stages: tuple[str, ...]
    kept: str
    left: tuple[str, ...]


def start(recipe: str, folder: Path) -> subprocess.Popen[bytes]:
    """The console script as a process group of its own."""
    code = "from scdpo.cli import main; main()"
    command = [sys.executable, "-c", code, "run", recipe, "--out", str(folder)]
    with Path(f"{folder}.log").open("ab") as log:
        return subprocess.Popen(command, start_new_session=True, stdout=log, stderr=log)


def finish(recipe: str, folder: Path) -> None:
    """Let the run go to its end."""
    if start(recipe, folder).wait():
        raise SystemExit(f"the run failed: {Path(f'{folder}.log').read_text()}")


def manifests(folder: Path) -> dict[str, Manifest]:
    """The manifest of every stage begun, in pipeline order."""
    found = {}
    for path in (*folder.glob("*/manifest.json"), *folder.glob("*/*/manifest.json")):
        manifest = Manifest.model_validate_json(path.read_bytes())
        found[manifest.stage] = manifest
    return {m.stage: m for m in in_order(list(found.values()))}


def hashes(folder: Path) -> dict[str, str]:
    """The hash of every stage's rows as a set."""
    with RunFolder(folder, write=False) as run:
        return {stage: run.stage(stage).output_hash() for stage in manifests(folder)}


def plan(seconds: dict[str, float], kills: int, seed: int) -> Iterator[Aim]:
    """Moments to kill at, in pipeline order."""
    draw = random.Random(seed)
    stages = list(seconds)
    if kills < len(stages):
        names = draw.sample(stages, kills)
    else:
        names = stages + draw.choices(stages, list(seconds.values()), k=kills - len(stages))
    for stage in sorted(names, key=stages.index):
        once_kept = draw.random() < 0.5
        yield Aim(stage, draw.uniform(0, seconds[stage] * (0.3 if once_kept else 1.0)), once_kept)


def kill_in(recipe: str, folder: Path, aim: Aim, order: list[str]) -> Kill:
    """Run to the moment aimed at, in that stage or the first unfinished one behind it; kill."""
    before = manifests(folder)
    unfinished = [s for s in order if s not in before or before[s].status != "done"]
    later = [s for s in unfinished if order.index(s) >= order.index(aim.stage)]
    stage = (later or unfinished or [aim.stage])[0]
    resumes = before[stage].resumes if stage in before else -1
    process = start(recipe, folder)

    def wait_while(condition: Callable[[], bool]) -> None:
        while process.poll() is None and condition():
            time.sleep(POLL_SECONDS)

    wait_while(lambda: _resumes(folder, stage) == resumes)
    if aim.once_kept:
        wait_while(lambda: not kept(folder, [stage]))
    end = time.monotonic() + aim.after
    wait_while(lambda: time.monotonic() < end)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    hit = [name for name, m in manifests(folder).items() if m.status != "done"]
    left = tuple(survivors(process.pid))
    return Kill(replace(aim, stage=stage), tuple(hit), kept(folder, hit), left)


def kept(folder: Path, stages: list[str]) -> str:
    """What stages have that a resumed run goes on from, in words; empty for nothing."""
    shards = [path for stage in stages for path in (folder / stage).glob("rows-*.jsonl")]
    rows = sum(path.read_bytes().count(b"\n") for path in shards)
    states = [p for s in stages for p in (folder / s).glob("checkpoints/*/trainer_state.json")]
    return ", ".join([f"{rows} rows"] * bool(rows) + sorted(p.parent.name for p in states))


def _resumes(folder: Path, stage: str) -> int:
    path = folder / stage / "manifest.json"
    try:
        return Manifest.model_validate_json(path.read_bytes()).resumes
    except FileNotFoundError:
        return -1


def survivors(owner: int) -> list[str]:
    """Processes and folders of a killed run that are still there after a while."""
    end = time.monotonic() + GONE_SECONDS
    while (found := _of(owner)) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def _of(owner: int) -> list[str]:
    """Sandbox processes, sessions and grading workers that process `owner` started."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has just ended
        sandbox = "scdpo.sandbox.processes.boot" in line and f'"owner": {owner},' in line
        grading = "scdpo.grading.worker" in line and f" {owner} " in line
        if sandbox or grading:
            found.append(f"process {path.name} ({'sandbox' if sandbox else 'grading'})")
    return found


def resumed_with_kills(
    recipe: str, folder: Path, seconds: dict[str, float], kills: int, seed: int
) -> Iterator[Kill]:
    """Make the run in `folder` with that many kills on the way, and let it end."""
    for aim in plan(seconds, kills, seed):
        yield kill_in(recipe, folder, aim, list(seconds))
    finish(recipe, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--recipe", default="smoke")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder to keep both runs in")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        raise SystemExit(report(arguments.recipe, folder, arguments.kills, arguments.seed))


def report(recipe: str, folder: Path, kills: int, seed: int) -> int:
    """Make both runs, print what was met, and return the exit code."""
    started = time.monotonic()
    finish(recipe, folder / "undisturbed")
    made = manifests(folder / "undisturbed")
    seconds = {stage: manifest.seconds for stage, manifest in made.items()}
    print(f"undisturbed: {len(made)} stages, {time.monotonic() - started:.0f} s", flush=True)
    left = 0
    runs = resumed_with_kills(recipe, folder / "killed", seconds, kills, seed)
    for n, kill in enumerate(runs, 1):
        point = "from what it first kept" if kill.aim.once_kept else "into it"
        print(
            f"kill {n:2}: {kill.aim.stage}, {kill.aim.after:.2f} s {point}; hit "
            f"{', '.join(kill.stages) or 'no stage under way'} ({kill.kept or 'nothing'} kept); "
            f"left behind: {', '.join(kill.left) or 'nothing'}"
        )
        sys.stdout.flush()
        left += len(kill.left)
    wanted, found = hashes(folder / "undisturbed"), hashes(folder / "killed")
    for stage in wanted | found:
        same = wanted.get(stage) == found.get(stage)
        print(f"{'same rows' if same else 'OTHER ROWS'}  {stage} ({made[stage].rows} rows)")
    different = [s for s in wanted | found if wanted.get(s) != found.get(s)]
    print(f"{kills} kills, {len(different)} stages differ, {left} processes left behind")
    return 1 if different or left else 0


if __name__ == "__main__":
    main()
