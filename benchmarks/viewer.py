"""How fast `scdpo view` is: page load, interactions, and the server's memory, in headless Chromium.

    python benchmarks/viewer.py

Runs of 5,000 problems (4 solutions each) and of 100,000 solutions (10,000 problems) are written
into a temporary folder, with rows as long as those of the embedded run, and served by the command.
A page is loaded when all rows are listed; an interaction ends with the frame after what it changed.
Page loads are shown after the server has read the run, and (cold) from the server's start. Exit
code 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from scdpo.records import CORRECT, WRONG, Problem, Solution, Step, pack_logps, undecided
from scdpo.store import RunFolder, json_line

PORT = 8766
LOAD_SECONDS = {"5,000 problems": 1.0, "100,000 solutions": 2.0}
INTERACTION_MS = 100.0
MEMORY_MB = 300.0
STEPS, TOKENS = 7, 30
VERDICTS = (CORRECT, WRONG, undecided("no answer"))

# An interaction: what starts it, and what must be true before the next frame counts as its end.
INTERACTIONS = {
    "filter on all rows": (
        "type('verdict == \"wrong\" and k >= 2 and mean_logp < -0.3')",
        "/ of .* rows$/.test(note()) && filtered('verdict ==')",
    ),
    "filter off": ("type('')", "/^([\\d,]+) of \\1 problems$/.test(note())"),
    "open a problem (j)": ("opened = title(); press('j')", "title() !== opened"),
    "next problem (j)": ("opened = title(); press('j')", "title() !== opened"),
    "last problem (G)": ("opened = title(); press('G')", "title() !== opened"),
    "first solution (n)": ("press('n')", "document.querySelector('.solution')"),
    "expand steps (e)": ("press('e')", "!document.querySelector('.step:not([open])')"),
    "scroll the list": (
        "list().scrollTop = list().scrollHeight * Math.random()",
        "shown()",
    ),
}
HELPERS = """() => {
window.opened = "";
window.note = () => document.getElementById("filter-note").textContent;
window.title = () => document.querySelector("#detail .title")?.textContent ?? "";
window.list = () => document.getElementById("list");
window.filtered = (text) => decodeURIComponent(location.hash.replaceAll("+", " ")).includes(text);
window.press = (key) => document.body.dispatchEvent(
  new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
window.type = (text) => {
  const input = document.getElementById("filter");
  input.value = text;
  input.dispatchEvent(new Event("input"));
};
window.shown = () => {
  const box = list().getBoundingClientRect();
  const middle = document.elementFromPoint(box.left + 30, box.top + box.height / 2);
  return middle?.closest(".item");
};
window.measured = (start, done) => new Promise((resolve, reject) => {
  const began = performance.now();
  start();
  const look = () => {
    if (done()) requestAnimationFrame(() => resolve(performance.now() - began));
    else if (performance.now() - began > 20000) reject(new Error("never done"));
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
});
}"""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a run is."""

    name: str
    problems: int
    solutions: int


def write_run(path: Path, size: Size) -> None:
    """A run folder with problems, solutions and branches, in the rows of the package."""
    with RunFolder(path) as folder:
        stage = folder.stage("problems/train").open({})
        stage.append(_problem(p) for p in range(size.problems))
        stage.finish()
        each = size.solutions // size.problems
        for name, first, last in (("solutions", 0, each // 2), ("branches", each // 2, each)):
            stage = folder.stage(name).open({})
            templates = [
                json_line(_solution(branch=name == "branches", verdict=n)) for n in range(3)
            ]
            # Written as text: making a record of each row would take minutes.
            with (stage.path / "rows-00000.jsonl").open("ab") as out:
                for p in range(size.problems):
                    for attempt in range(first, last):
                        row = templates[(p + attempt) % 3]
                        out.write(
                            row.replace(b"PROBLEM", b"%d" % p).replace(b"77777777", b"%d" % attempt)
                        )
            stage.close()


def _problem(p: int) -> Problem:
    question = f"Question {p}. " + "A farmer has some apples and gives away the others. " * 5
    return Problem(id=f"bench/train/{p}", dataset="bench", question=question, answer="42")


def _solution(*, branch: bool, verdict: int) -> Solution:
    steps = tuple(
        Step(
            kind="code" if n % 2 else "text",
            text=f"<|text|>Step {n}: the farmer has 400*0.75 apples, or so it seems.<|endofblock|>",
            token_ids=tuple(range(100, 100 + TOKENS)),
            output="300.0" if n % 2 else None,
            host_text="<|execution|>300.0<|endofblock|>" if n % 2 else "",
            host_ids=(6, 44, 50, 51, 7) if n % 2 else (),
            temperature=1.0,
            mean_logp=-0.11398164518320697 * (1 + n * verdict),
            logps=pack_logps([-0.11398164518320697 * (1 + n * verdict)] * TOKENS),
        )
        for n in range(STEPS)
    )
    question = "A farmer has some apples and gives away the others. " * 5
    return Solution(
        id="bench/train/PROBLEM#77777777",
        problem_id="bench/train/PROBLEM",
        dataset="bench",
        question=question,
        format="blocks",
        policy="sft",
        prompt=f"<|user|><|text|>{question}<|endofblock|><|endofmessage|><|assistant|>",
        prompt_ids=tuple(range(100, 190)),
        steps=steps,
        finish="finished",
        answer="300",
        verdict=VERDICTS[verdict],
        attempt=77777777,
        seed=77777777,
        parent="bench/train/PROBLEM#0" if branch else None,
        branch_step=3 if branch else 0,
    )


@contextmanager
def served(path: Path) -> Iterator[tuple[str, int]]:
    """The command serving a run: its address and process id."""
    command = [sys.executable, "-m", "scdpo", "view", str(path), "--port", str(PORT)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            if "http://" not in line:
                raise SystemExit(f"the viewer did not start: {line}{process.stderr.read()}")
            yield line.split()[1], process.pid
        finally:
            process.terminate()


def load(page: Page, address: str) -> float:
    """Seconds until every row is in the page and listed."""
    page.goto("about:blank")
    page.goto(address, wait_until="commit")
    while True:  # the page's policy forbids to wait for an expression inside it
        found = page.evaluate("performance.getEntriesByName('complete').map((e) => e.startTime)")
        if found:
            return float(found[0]) / 1000
        time.sleep(0.05)


def memory_mb(pid: int) -> float:
    """The most memory that a process ever had resident."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def interactions(page: Page, times: int) -> dict[str, tuple[float, float]]:
    """Median milliseconds of each interaction, and those of them that the page's thread worked."""
    page.evaluate(HELPERS)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def worked() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return 1000 * next(m["value"] for m in metrics if m["name"] == "TaskDuration")

    found: dict[str, list[tuple[float, float]]] = {name: [] for name in INTERACTIONS}
    for _ in range(times):
        for name, (start, done) in INTERACTIONS.items():
            before = worked()
            taken = page.evaluate(f"measured(() => {{ {start}; }}, () => {done})")
            found[name].append((float(taken), worked() - before))
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        page.wait_for_selector(".overview")
        page.evaluate("list().scrollTop = 0")
    return {
        name: (statistics.median(t for t, _ in values), statistics.median(c for _, c in values))
        for name, values in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=5, help="how often each thing is measured")
    arguments = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        raise SystemExit("no chromium is installed")
    sizes = (Size("5,000 problems", 5000, 20_000), Size("100,000 solutions", 10_000, 100_000))
    missed = []

    def line(name: str, value: float, unit: str, limit: float | None, more: str = "") -> None:
        over = limit is not None and value > limit
        said = more if limit is None else f"  limit {limit:g}{more}{'  MISSED' if over else ''}"
        print(f"  {name:<28}{value:9.2f} {unit}{said}", flush=True)
        if over:
            missed.append(name)

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=browser, args=["--no-sandbox"] if os.getuid() == 0 else []
        )
        for size in sizes:
            path = Path(folder) / size.name.replace(",", "").replace(" ", "-")
            write_run(path, size)
            megabytes = sum(file.stat().st_size for file in path.rglob("*.jsonl")) / 1e6
            print(f"{size.name} ({size.solutions:,} rows, {megabytes:.0f} MB)")
            began = time.perf_counter()
            with served(path) as (address, pid):
                page = chromium.new_page(viewport={"width": 1400, "height": 900})
                load(page, address)
                line("server's start, page (cold)", time.perf_counter() - began, "s ", None)
                loads = [load(page, address) for _ in range(arguments.times)]
                line("page load", statistics.median(loads), "s ", LOAD_SECONDS[size.name])
                for name, (taken, work) in interactions(page, arguments.times).items():
                    line(name, taken, "ms", INTERACTION_MS, f", work of the page {work:.0f}")
                line("server's memory, most", memory_mb(pid), "MB", MEMORY_MB)
                page.close()
        chromium.close()
    if missed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
