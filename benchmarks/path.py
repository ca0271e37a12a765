"""How many functions and files of ours one way through sampling touches, and what an import costs.

    python benchmarks/path.py          # make bench-path

Samples solutions of 12 embedded problems with the embedded policy under `sys.setprofile` and
counts distinct functions (comprehensions included) in this thread: through `scdpo.sample` with
everything warm, and through the stage of a run, which opens the engine and keeps rows on disk.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import scdpo
from scdpo.pipeline.recipe import Recipe, load_recipe
from scdpo.pipeline.run import Run

PACKAGE = str(Path(scdpo.__file__).parent)
QUESTIONS = 12
IMPORTS = 9


def called(work: Callable[[], object]) -> Counter[str]:
    """Distinct functions of ours that `work` calls in this thread, by file."""
    seen: set[tuple[str, str]] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE):
            seen.add((code.co_filename.removeprefix(f"{PACKAGE}/"), code.co_qualname))

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return Counter(file for file, name in seen if name != "<module>")


def in_memory(recipe: Recipe) -> Counter[str]:
    """The way through `scdpo.sample`."""
    problems = scdpo.load_problems("embedded", split="train", limit=QUESTIONS)
    format = scdpo.get_format("blocks", system="")
    with scdpo.Engine("embedded") as engine, scdpo.Sandbox(recipe.sandbox) as box:

        def sample(n: int) -> object:
            return scdpo.sample(
                problems[:n], engine, sandbox=box, format=format, config=recipe.sample
            )

        sample(2)
        return called(lambda: sample(QUESTIONS))


def on_disk(recipe: Recipe) -> Counter[str]:
    """The way through the stage of a run."""
    source = recipe.problems.sources("train")[0].model_copy(update={"limit": QUESTIONS})
    problems = recipe.problems.model_copy(update={"train": source})
    recipe = recipe.model_copy(update={"problems": problems})
    with tempfile.TemporaryDirectory() as folder, Run(recipe, Path(folder) / "run") as run:
        run.problems("train")
        return called(run.sample)


def import_seconds() -> float:
    """The median time of `import scdpo` in a fresh interpreter, beyond an empty one's."""

    def seconds(code: str) -> float:
        script = f"import time; t = time.perf_counter(); {code}; print(time.perf_counter() - t)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
        return float(done.stdout)

    return statistics.median(seconds("import scdpo") for _ in range(IMPORTS))


def main() -> None:
    """Print the figures."""
    recipe = load_recipe("embedded")
    for way, found in (("scdpo.sample", in_memory(recipe)), ("scdpo sample", on_disk(recipe))):
        print(f"{way}: {found.total()} functions in {len(found)} files")
        for file, n in found.most_common():
            print(f"  {n:3} {file}")
    print(f"import scdpo: {import_seconds():.3f} s, median of {IMPORTS}")


if __name__ == "__main__":
    main()
